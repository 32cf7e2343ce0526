"""Philox4x32-10 in one kernel on a GPU, where the steps of ``randomness.philox`` are eighty."""

import torch
import triton
import triton.language as tl


def philox_words(keys: torch.Tensor, quads: int, places: torch.Tensor | None) -> torch.Tensor:
    """Words (R, quads, 4) of 32 bits, as int64, at the counters (quad, place, 0, 0): see ``randomness.words``."""
    words = keys.new_empty(len(keys), quads, 4)
    total = len(keys) * quads
    if total:
        with torch.cuda.device_of(keys):
            _philox[triton.cdiv(total, 1024), ](keys.contiguous(), keys if places is None else places.contiguous(),
                                                words, quads, total, placed=places is not None, block=1024)
    return words


@triton.jit
def _philox(keys, places, words, quads, total, placed: tl.constexpr, block: tl.constexpr):
    number = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = number < total
    row = number // quads
    quad = (number % quads).to(tl.uint32)
    zero = tl.zeros_like(quad)
    place = tl.load(places + row, mask=inside, other=0).to(tl.uint32) if placed else zero
    a, b, c, d = tl.philox(tl.load(keys + row, mask=inside, other=0), quad, place, zero, zero)
    tl.store(words + 4 * number, a.to(tl.int64), mask=inside)
    tl.store(words + 4 * number + 1, b.to(tl.int64), mask=inside)
    tl.store(words + 4 * number + 2, c.to(tl.int64), mask=inside)
    tl.store(words + 4 * number + 3, d.to(tl.int64), mask=inside)
