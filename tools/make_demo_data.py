"""Write synthetic demo data in all five on-disk formats: python tools/make_demo_data.py OUT [--images N] [--seed S]."""

import signal

if __name__ == '__main__':  # Ctrl-C while the imports below take their seconds, without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import json
import sys
from pathlib import Path

from dual_loop.demo import ensure_demo_data
from dual_loop.stop import run_command


def main(argv=None):
    """Parse the command line and make the data unless the folder has it; returns the exit status."""
    parser = argparse.ArgumentParser(description='Write synthetic demo data: SA-V pairs, SA-1B, Open Images, RefCOCO, '
                                     'Describe Anything. Equal settings give equal bytes.')
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
    args = parser.parse_args(argv)
    try:
        root = ensure_demo_data(args.out.absolute(), args.images, args.seed, workers=args.workers, progress=True,
                                sources=args.sources, world=args.world, split=args.split)
    except (ValueError, OSError) as error:
        print(f'make_demo_data: {error}', file=sys.stderr)
        return 1
    scenes = json.loads((root / 'manifest.json').read_text())['scenes']
    print(f'{root}: ' + ', '.join(f'{name} {count}' for name, count in scenes.items()) + ' scenes')
    return 0


if __name__ == '__main__':
    run_command(main)
