"""``dual-loop segment``."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

from dual_loop_command.arguments import add_answering_model
from dual_loop_command.command import Command

ABOUT = """Find an object in a photo by words: a picture of its outline, and its mask as JSON.

    {command} photo.jpg "the red ring"
    {command} photo.jpg "the dog on the left" --model pretrained/Sa2VA-4B --out dog.png

Writes the photo as it is beside the photo with the object outlined, and a JSON file with the answer and the mask (COCO
run lengths, at the size of the photo). Runs on the GPU if there is one.
"""


def phrase(text: str) -> str:
    """Words, as an argument."""
    if not text.strip():
        raise ArgumentTypeError('say what to find, such as "the red ring"')
    return text


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('photo', type=Path, help='picture in any usual format and of any size')
    parser.add_argument('text', type=phrase, help='what to find, in quotes')
    add_answering_model(parser)


def act(args: Namespace) -> int:
    from dual_loop.evaluation.photograph import (
        Photograph,
        answering_model,
        check_out,
        read_photo,
        write_answer,
    )

    out = check_out(args.out, 'segment', args.photo)
    photograph = Photograph(args.photo.name, read_photo(args.photo), answering_model(args.model, args.dtype),
                            args.max_new_tokens)
    answer = photograph.segment(args.text)
    notes, beside = answer.notes, write_answer(out, photograph.sheet(answer), answer.notes)
    print(f'{args.text}: {found(notes["mask"], notes)}; answer: {notes["answer"]!r}')
    print(f'picture: {out}\nmask: {beside}')
    return 0


def found(mask: dict, notes: dict) -> str:
    """What the terminal says of a mask."""
    if not mask['area']:
        return 'nothing found'
    x, y, width, height = mask['box']
    share = mask['area'] / (notes['width'] * notes['height'])
    return f'{mask["area"]} pixels ({share:.1%} of the photo) in the box {x},{y},{width},{height}'


COMMAND = Command('segment', ABOUT, add_arguments, act)
