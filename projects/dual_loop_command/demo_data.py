"""``dual-loop demo-data`` and ``tools/make_demo_data.py``."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from dual_loop_command.command import Command

ABOUT = """Write synthetic demo data: SA-V pairs, SA-1B, Open Images, RefCOCO, Describe Anything.

    {command} data/demo
    {command} data/demo_refcocog --images 100 --sources refcocog

Equal settings give equal bytes. The tiny configurations make theirs by themselves.
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('out', type=Path, help='folder to make; left alone when it holds the same data already')
    parser.add_argument('--images', type=int, default=400, help='scenes of each source (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--workers', type=int, help='processes (default: one per core, at most 16)')
    parser.add_argument('--sources', nargs='+', metavar='NAME',
                        help='some of sav sa1b openimages refcoco dam (default: all of these), refcoco+ refcocog '
                        'dam_Mapillary dam_OpenImages dam_PACO')
    parser.add_argument('--world', default='a', help='a, or b, which has shapes, colours and textures that a does not '
                        'have (default: %(default)s)')
    parser.add_argument('--split', help='of all images of RefCOCO and its variants (default: most in train)')


def act(args: Namespace) -> int:
    from dual_loop.demo import ensure_demo_data

    root = ensure_demo_data(args.out.absolute(), args.images, args.seed, workers=args.workers, progress=True,
                            sources=args.sources, world=args.world, split=args.split)
    scenes = json.loads((root / 'manifest.json').read_text())['scenes']
    print(f'{root}: ' + ', '.join(f'{name} {count}' for name, count in scenes.items()) + ' scenes')
    return 0


COMMAND = Command('demo-data', ABOUT, add_arguments, act)
