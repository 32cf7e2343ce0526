"""The product on padded rows is the plain one, forward and backward."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llava_sam2.portable.aligned_head import ALIGNMENT, AlignedProduct, head_logits


@pytest.mark.parametrize('size', [1, 7, 8, 13])
def test_it_is_the_plain_product(size):
    draw = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, 5, generator=draw, dtype=torch.float64) for n in (3, size))
    x.requires_grad_()
    logits = AlignedProduct.apply(x, weight)
    assert logits.shape == (3, size) and logits.stride(0) % ALIGNMENT == 0
    torch.testing.assert_close(logits, F.linear(x, weight))
    assert torch.autograd.gradcheck(lambda x: AlignedProduct.apply(x, weight), (x, ))
    # A gradient that is a view of something else, too.
    (grad, ) = torch.autograd.grad(logits.t()[:, ::2].sum(), x)
    torch.testing.assert_close(grad, weight.sum(0).expand(3, 5) * torch.tensor([1, 0, 1.])[:, None].double())


def test_without_a_gpu_the_head_itself_is_asked():
    head = nn.Linear(4, 7, bias=False)
    states = torch.randn(2, 3, 4)
    torch.testing.assert_close(head_logits(head, states), head(states), rtol=0, atol=0)
    assert head_logits(head, states).shape == (2, 3, 7)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_on_a_gpu_it_is_the_same_to_rounding(dtype):
    head = nn.Linear(64, 151, bias=False, device='cuda', dtype=dtype).requires_grad_(False)
    states = torch.randn(2, 9, 64, device='cuda', dtype=dtype, requires_grad=True)
    results = []
    for logits in (head_logits(head, states), head(states)):
        (grad, ) = torch.autograd.grad(logits.float().square().sum(), states)
        results.append((logits, grad))
    assert results[0][0].stride(-2) == 152
    torch.testing.assert_close(*results)
