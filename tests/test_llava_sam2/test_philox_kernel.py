"""The kernel draws the words that the plain function draws."""

import os
import subprocess
import sys

import pytest
import torch

from llava_sam2.randomness import seed_for, words

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')

INTERPRETED = """
import torch
from llava_sam2.philox_kernel import philox_words
from llava_sam2.randomness import words
keys, places = torch.tensor([0, 1, 2**62 + 12345, 99]), torch.tensor([0, 1, 2**32 - 1, 7])
for quads in (1, 3, 700):
    for of in (None, places):
        assert torch.equal(philox_words(keys, quads, of).flatten(1), words(keys, 4 * quads, of))
"""


def test_interpreted_on_a_cpu_it_draws_the_same_words():
    pytest.importorskip('triton')
    done = subprocess.run([sys.executable, '-c', INTERPRETED], capture_output=True, text=True, timeout=120,
                          env=os.environ | dict(TRITON_INTERPRET='1', PYTHONPATH=os.pathsep.join(sys.path)))
    assert done.returncode == 0, done.stderr


@needs_gpu
@pytest.mark.parametrize('count', [1, 4, 4095, 81_537])
def test_words_are_those_of_the_cpu(count):
    keys = torch.tensor([0, 1, 2**62 + 12345, *(seed_for('kernel', number) for number in range(5))])
    places = torch.tensor([0, 1, 2**32 - 1, 7, 8, 9, 10, 11])
    for of in (None, places):
        drawn = words(keys.cuda(), count, None if of is None else of.cuda())
        assert torch.equal(drawn.cpu(), words(keys, count, of))


@needs_gpu
def test_no_rows_are_no_words():
    assert words(torch.zeros(0, dtype=torch.long, device='cuda'), 5).shape == (0, 5)
