"""``dual-loop describe``."""

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path

from dual_loop_command.arguments import add_answering_model
from dual_loop_command.command import Command
from dual_loop_command.segment import found

ABOUT = """Describe a region of a photo in words, and find it again by them.

    {command} photo.jpg --box 40,30,120,90 --cycle
    {command} photo.jpg --mask ring.png --model pretrained/Sa2VA-4B
    {command} photo.jpg --point 100,75

A mask is a picture of the photo's size that is black outside of the region. A box or a point becomes a region by the
mask decoder's own answer to it; assets/tiny, whose decoder has never been asked so, takes the box itself, and for a
point a disc with a radius of an eighth of the shorter side. The JSON says which.

Writes the photo as it is beside the photo with the region outlined (orange) and, with --cycle, one with what is found
again by the description (blue), and a JSON file with the description and the masks (COCO run lengths).
"""
_NUMBER = r'\d+(?:\.\d*)?|\.\d+'


def numbers(*names: str) -> Callable[[str], tuple[float, ...]]:
    """Of so many numbers with commas between them, as an argument."""
    def parse(text: str) -> tuple[float, ...]:
        parts = [part.strip() for part in text.split(',')]
        if len(parts) != len(names) or not all(re.fullmatch(f'-?(?:{_NUMBER})', part) for part in parts):
            raise ArgumentTypeError(f'{text!r} is not {",".join(names)} in pixels of the photo')
        return tuple(map(float, parts))

    return parse


def box(text: str) -> tuple[float, ...]:
    """A box with an area, as an argument."""
    result = numbers('x', 'y', 'w', 'h')(text)
    if min(result[2:]) <= 0:
        raise ArgumentTypeError(f'{text!r} has no area: give x,y of the upper left corner, width and height')
    return result


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('photo', type=Path, help='picture in any usual format and of any size')
    region = parser.add_mutually_exclusive_group(required=True)
    region.add_argument('--mask', type=Path, metavar='PNG', help='picture of that size, black outside the region')
    region.add_argument('--box', type=box, metavar='X,Y,W,H', help='upper left corner, width and height in pixels')
    region.add_argument('--point', type=numbers('x', 'y'), metavar='X,Y', help='in pixels from the upper left corner')
    parser.add_argument('--cycle', action='store_true', help='find the region again from the description; its IoU')
    add_answering_model(parser)


def act(args: Namespace) -> int:
    from dual_loop.evaluation.photograph import (
        Photograph,
        answering_model,
        check_out,
        read_photo,
        write_answer,
    )
    from dual_loop.evaluation.prompted import boxed_region, masked_region, pointed_region

    def region_of(loaded, picture):
        if args.mask:
            return masked_region(args.mask, picture.size)
        if args.box:
            return boxed_region(loaded.network, picture, args.box)
        return pointed_region(loaded.network, picture, args.point)

    out = check_out(args.out, 'describe', args.photo, args.mask)
    photograph = Photograph(args.photo.name, read_photo(args.photo), answering_model(args.model, args.dtype),
                            args.max_new_tokens)
    answer = photograph.describe(region_of, args.cycle)
    notes, beside = answer.notes, write_answer(out, photograph.sheet(answer), answer.notes)
    print(notes['text'])
    print(f'region: {notes["region"]["rule"]}, {found(notes["region"], notes)}')
    if args.cycle:
        print(f'found again: {found(notes["cycle"]["mask"], notes)}; IoU {notes["cycle"]["iou"]:.3f}')
    print(f'picture: {out}\nmasks: {beside}')
    return 0


COMMAND = Command('describe', ABOUT, add_arguments, act)
