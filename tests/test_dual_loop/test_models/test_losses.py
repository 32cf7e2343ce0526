"""Cross-entropy at chosen positions."""

import math

import torch

from dual_loop.models.losses import positions_loss


def test_positions_loss_counts_only_the_given_positions():
    first = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [5.0, 5.0]], requires_grad=True)
    second = torch.zeros(2, 2, requires_grad=True)
    loss = positions_loss(torch.cat([first, second]), [[0, 1, 0], [1, 1]], [[0, 1], []])
    torch.testing.assert_close(loss, torch.tensor([(math.log(2) + math.log(4)) / 2, 0.0]))
    grads = torch.autograd.grad(loss.sum(), [first, second])
    assert grads[0][2].eq(0).all() and grads[0][1].ne(0).all() and grads[1].eq(0).all()


def test_no_positions_at_all():
    logits = torch.zeros(2, 4, requires_grad=True)
    loss = positions_loss(logits, [[1, 2]], [[]])
    assert loss.tolist() == [0.0] and torch.autograd.grad(loss.sum(), logits)[0].eq(0).all()
