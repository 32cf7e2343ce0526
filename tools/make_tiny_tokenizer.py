"""Train the tokenizer of the tiny model on the text of the demo world and on the prompts.

    python tools/make_tiny_tokenizer.py assets/tiny
"""

import sys
from pathlib import Path

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'projects'))
    import dual_loop_command.script  # noqa: F401  Ctrl-C while the imports below take their seconds; the environment

import argparse

from dual_loop.demo import demo_corpus
from dual_loop.stop import run_command
from dual_loop_command.command import Parser
from llava_sam2.paths import resolve
from llava_sam2.portable import prompts
from llava_sam2.portable.templates import PHI3_CHAT, ChatTemplate
from llava_sam2.tokenizer import train_tokenizer


def protocol_corpus(captions: list[str], template: ChatTemplate = PHI3_CHAT) -> list[str]:
    """Captions in every prompt and answer, so that BPE learns the seams that the protocol has."""
    texts = []
    for index, caption in enumerate(captions):
        question = prompts.SEGMENTATION_QUESTIONS[index % len(prompts.SEGMENTATION_QUESTIONS)]
        texts.append(prompts.segmentation_prompt(template, question, 1, prompts.phrase(caption)))
        texts.append(prompts.caption_prompt(template, 1, 1))
        texts.append(template.ended(caption))
        texts.append(template.ended(prompts.SEGMENTATION_ANSWERS[index % len(prompts.SEGMENTATION_ANSWERS)]))
    return texts


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', help='folder to write the tokenizer to')
    parser.add_argument('--vocab-size', type=int, default=640,
                        help='tokens, added ones included (default: %(default)s)')
    parser.add_argument('--captions', type=int, default=4000, help='captions to train on (default: %(default)s)')
    args = parser.parse_args()
    tokenizer = train_tokenizer(protocol_corpus(demo_corpus(seed=0, n=args.captions)), args.vocab_size)
    tokenizer.save_pretrained(resolve(args.out))
    print(f'wrote a tokenizer of {len(tokenizer)} tokens to {resolve(args.out)}')


if __name__ == '__main__':
    run_command(main)
