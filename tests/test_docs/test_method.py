"""The defaults of docs/method.md are those of the shipped configs; its formulas those of the code, in numbers."""

import math
import re

import pytest
import torch
from mmengine.config import Config

from dual_loop.engine.ema import ExponentialMovingAverage
from dual_loop.engine.surgery_rules import orthogonal
from dual_loop.models.bridge import _HardLookup
from dual_loop.models.caption_reward import score_function
from llava_sam2.losses import PointMaskLoss, dice

CONFIGS = dict(zip(('4B', 'tiny'), ('dual_loop_4b', 'dual_loop_tiny')))


@pytest.fixture(scope='module')
def page(checkout):
    return (checkout / 'docs/method.md').read_text()


def value_of(cfg, path: str):
    for key in path.split('.'):
        cfg = cfg[key]
    return cfg


def test_defaults_are_those_of_the_configs(checkout, page):
    rows = re.findall(r'^\|[^|]*\| `([\w.]+)` \| (\S+) \| (\S+) \|$', page, re.M)
    assert len(rows) > 20
    for number, name in enumerate(CONFIGS.values(), 1):
        cfg = Config.fromfile(checkout / f'configs/{name}.py')
        assert [(row[0], row[number]) for row in rows] == [(row[0], str(value_of(cfg, row[0]))) for row in rows]


def test_named_settings_of_the_losses(page):
    loss = PointMaskLoss()
    assert '$w_d$ is 0.5' in page and loss.dice == dict(weight=0.5, eps=1.0)
    assert 'three quarters of them where the prediction is uncertain' in page
    assert loss.points['importance_ratio'] == 0.75
    logits, masks = torch.tensor([[0.3, -1.0, 2.0]]), torch.tensor([[1.0, 0.0, 0.5]])
    p, t = logits.sigmoid(), masks
    assert r'1 - (2\sum pt + 1) / (\sum p + \sum t + 1)' in page
    assert dice(logits, masks).item() == pytest.approx((1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)).item())


def test_the_averages(page):
    assert r'd_t = \min\Big(0.999, \frac{1 + t}{10 + t}\Big)' in page
    weight = torch.tensor([1.0])
    averages = ExponentialMovingAverage([('w', weight)])
    expected = 1.0
    for t in range(30):
        weight += 1
        decay = min(0.999, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * weight.item()
        averages.update([('w', weight)])
    assert averages.values['w'].item() == pytest.approx(expected)
    averages.num_updates = 10**6
    assert averages.decay == 0.999


def test_surgery(page):
    assert r'\beta\Big(g_2 - \frac{\langle g_1, g_2\rangle}{\langle g_1, g_1\rangle}\,g_1\Big)' in page
    g1, g2 = torch.randn(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    both = torch.stack([g1, g2])
    w1, w2 = orthogonal(both @ both.T, [1, 0.5])
    assert torch.allclose(w1 * g1 + w2 * g2, g1 + 0.5 * (g2 - (g1 @ g2) / (g1 @ g1) * g1))


def test_the_bridge():
    """Forward one row, backward the gradient of the mixture."""
    generator = torch.Generator().manual_seed(0)
    noisy, rows, weights = (torch.randn(*size, generator=generator, dtype=torch.float64)
                            for size in ((2, 5), (9, 3), (2, 3)))
    candidates = torch.stack([torch.randperm(9, generator=generator)[:5] for _ in range(2)])
    gradients = []
    for way in ('bridge', 'page'):
        scores = noisy.clone().requires_grad_()
        probs = (scores / 0.7).softmax(-1)
        if way == 'bridge':
            hard = scores.argmax(-1)
            embeds = _HardLookup.apply(probs, candidates, hard, rows)
            assert torch.equal(embeds, rows[candidates[range(2), hard]])
        else:
            embeds = torch.einsum('nk,nkd->nd', probs, rows[candidates])
        gradients.append(torch.autograd.grad((embeds * weights).sum(), scores)[0])
    assert torch.allclose(*gradients)


def test_the_reward(page):
    assert r'-(r - r_{best}) \log p(\hat v)' in page
    assert score_function(torch.tensor([math.log(0.2)]), torch.tensor([0.7]), torch.tensor([0.4])).item() == \
        pytest.approx(-0.3 * math.log(0.2))


def test_samples_of_a_step(checkout, page):
    cfg = Config.fromfile(checkout / 'configs/dual_loop_4b.py')
    loaders = cfg.train_dataloader, cfg.train_cfg.loop2_dataloader
    assert {8 * each.batch_size * cfg.train_cfg.accumulative_counts for each in loaders} == {256}
    assert '| samples of a step (8 GPUs) | 64 | 256 of each loop |' in page
