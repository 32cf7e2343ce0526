"""The reward of captions: its estimator against enumeration, its figures and gradient against a plain listener."""

from copy import deepcopy
from itertools import product

import plain_loops
import pytest
import torch
from loop_probes import gradients, speak, spy

from dual_loop.models import BridgeOutput, DualLoopModel, MaskLoop
from dual_loop.models.bridge import CaptionBridge
from dual_loop.models.caption_reward import score_function
from llava_sam2.randomness import generator_for, seed_for

STEP = 3


# -- the estimator --------------------------------------------------------------------------------------------------


def test_expected_gradient_is_that_of_the_mean_reward_whatever_the_baseline():
    """All captions of two tokens over three, each with its probability."""
    generator = generator_for('closed form')
    logits = torch.randn(2, 3, generator=generator, dtype=torch.float64).requires_grad_()
    reward = torch.rand(3, 3, generator=generator, dtype=torch.float64)
    logs = logits.log_softmax(-1)
    mean = torch.einsum('ij,i,j->', reward, logs[0].exp(), logs[1].exp())
    [closed] = torch.autograd.grad(-mean, logits, retain_graph=True)
    captions = list(product(range(3), repeat=2))
    log_probs = torch.stack([logs[0, one] + logs[1, two] for one, two in captions])
    rewards = torch.stack([reward[caption] for caption in captions])
    for baseline in (0.0, 0.3, float(reward[tuple(logits.argmax(-1).tolist())])):
        losses = score_function(log_probs, rewards, torch.full_like(rewards, baseline))
        [expected] = torch.autograd.grad(log_probs.detach().exp() @ losses, logits, retain_graph=True)
        torch.testing.assert_close(expected, closed)
    losses = score_function(log_probs, rewards.requires_grad_(), rewards)
    assert torch.autograd.grad(losses.sum(), rewards, allow_unused=True) == (None, )


def test_the_bridges_samples_estimate_it(vocabulary):
    """Candidates that are cut off have no probability; so many samples that the mean is near the closed form."""
    count, topk = 10_000, 3
    values = torch.full((2, 640), -9.0)
    allowed = [int(index) for index in vocabulary.ordinary_ids if vocabulary.with_leading_space[index] == index][:4]
    values[0, allowed], values[1, allowed] = torch.tensor([1.0, 0.2, 0.7, -0.5]), torch.tensor([0.0, 0.4, 0.9, -1.0])
    logits = values.requires_grad_()
    keys = torch.tensor([seed_for('sample', number) for number in range(count)])
    out = CaptionBridge(topk, 0.7)([logits] * count, keys, torch.randn(640, 2), vocabulary)
    reward = torch.rand(640, 640, generator=generator_for('table'))
    rewards = torch.stack([reward[one, two] for one, two in out.ids])
    baseline = torch.stack([reward[one, two] for one, two in out.best])
    assert out.best[0] == logits.argmax(-1).tolist() and len(set(map(tuple, out.ids))) == topk**2
    [found] = torch.autograd.grad(score_function(out.log_probs, rewards, baseline).mean(), logits)
    kept = [logits[place].topk(topk) for place in range(2)]
    probs = [each.values.softmax(-1) for each in kept]
    mean = torch.einsum('ij,i,j->', reward[kept[0].indices][:, kept[1].indices], *probs)
    [closed] = torch.autograd.grad(-mean, logits)
    assert closed.abs().max() > 0.02
    torch.testing.assert_close(found, closed, rtol=0, atol=6e-3)


# -- in loop 1 ------------------------------------------------------------------------------------------------------


def plain_reward(model, listener, data, taught) -> tuple[torch.Tensor, list[float], list[float]]:
    """The weighted term, rewards and baselines of the rows ``taught``, row by row."""
    total, rewards, baselines = 0.0, [], []
    for index, ids in taught.items():
        row = plain_loops.PlainRow(model.base, data, index, STEP, 0)
        hears = plain_loops.PlainRow(listener, data, index, STEP, 0)
        log_probs, sampled, best = caption_log_probs(row, ids)
        ious = []
        for said in (sampled, best):
            text = ' '.join(row.tokenizer.decode(said).lower().split())
            with torch.no_grad():
                logits = hears.segmentation(hears.encode(' ' + text.removesuffix('.').rstrip()))['logits']
            full = torch.nn.functional.interpolate(logits[None, None], size=(128, 128), mode='bilinear')[0, 0] > 0
            truth = data['masks2'][index]
            ious.append(float((full & truth).sum()) / float((full | truth).sum()))
        rewards.append(ious[0])
        baselines.append(ious[1])
        total = total - row.weight * (ious[0] - ious[1]) * log_probs
    return total, rewards, baselines


def caption_log_probs(row, ids) -> tuple[torch.Tensor, list[int], list[int]]:
    """Log-probability of what the bridge samples, the sample, and the best tokens."""
    heads = []
    head = row.network.language_model.lm_head
    hook = head.register_forward_hook(lambda *args: heads.append(args[-1]))
    sampled = row.student(ids)[1]
    hook.remove()
    total, best = 0.0, []
    for place, logits in enumerate(heads[-len(ids):]):  # after those of the denoising loss
        values, candidates = logits.masked_fill(row.vocabulary.not_in_caption, float('-inf')).topk(16)
        candidates = candidates.tolist()
        if place == 0:
            candidates = [int(row.vocabulary.with_leading_space[index]) for index in candidates]
        noise = -(-(1 - plain_loops.uniform(row.key('gumbel'), 16, place)).log()).log().float()
        drawn = int((values + noise).argmax())
        assert candidates[drawn] == sampled[place]
        total = total + values[drawn] - values.logsumexp(0)
        best.append(candidates[0])
    return total, sampled, best


def moved(model) -> torch.nn.Module:
    """Let training go on for a while; returns the base model as it was."""
    start, generator = deepcopy(model.base).eval(), generator_for('moved')
    with torch.no_grad():
        for parameter in model.base.trainables().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    model.teacher.set_values(dict(model.base.trainables()))
    return start


@pytest.fixture
def rows():
    return dict(key=1), dict(key=2, caption='a cat'), dict(key=3, pair=True), dict(key=4)


def test_loop1_equals_a_plain_listener_with_the_weights_of_the_start(build_loops, make_batch, monkeypatch, rows):
    taught = {0: 'a big dog', 2: 'it stands', 3: 'a very long green mat'}
    outs, grads = [], []
    for weight in (0.0, 0.7):
        model = build_loops(reward_weight=weight, max_caption_len=30)
        start = moved(model)
        model.eval()
        data = make_batch(*rows)
        speak(monkeypatch, model, *taught.values())
        outs.append(model.loops['loop1'].forward(model, data, STEP))
        grads.append(gradients(model, outs[-1]['loss']))
    without, out = outs
    assert 'score' not in without and 'reward' not in without
    ids = {row: model.base.vocabulary.encode(text) for row, text in taught.items()}
    expected, rewards, baselines = plain_reward(model, start, data, ids)
    torch.testing.assert_close(out['score'], expected.detach(), rtol=1e-3, atol=1e-6)
    assert float(out['reward']) == pytest.approx(sum(rewards) / 3, rel=2e-3)
    assert float(out['reward_baseline']) == pytest.approx(sum(baselines) / 3, rel=2e-3)
    assert rewards != baselines and max(rewards) > 0
    torch.testing.assert_close(out['loss'], without['loss'] + 0.7 * out['score'])
    wanted = gradients(model, expected)
    for name in wanted:
        torch.testing.assert_close(grads[1][name], grads[0][name] + 0.7 * wanted[name], rtol=2e-3, atol=2e-5, msg=name)
    # The caption path only, and all of it.
    reached = {name for name in wanted if wanted[name].abs().max() > 0}
    assert reached == {name for name in wanted if '.lora_' in name or '.mlp1.' in name}


def test_who_listens(build_loops, make_batch, monkeypatch, rows):
    """A live listener hears as the student; a frozen one keeps no more than what is trained."""
    data, found = make_batch(*rows), {}
    for listener in ('frozen', 'live', dict(type='LiveTeacher')):
        model = build_loops(reward_weight=0.1, listener=listener)
        heard = model.loops['loop1'].reward.listener
        assert heard.values.keys() == (model.base.trainables().keys() if listener == 'frozen' else set())
        moved(model)
        found[str(listener)] = float(model.loops['loop1'].forward(model.eval(), data, STEP)['reward'])
    assert found['frozen'] != found['live'] == found["{'type': 'LiveTeacher'}"]


def test_passes_with_a_graph_outlive_the_listeners(build_loops, make_batch, rows):
    """Also where the backward pass reads the weights again."""
    data, found = make_batch(*rows), []
    for checkpointing in (False, True):
        model = build_loops(dict(checkpointing=checkpointing), reward_weight=0.3, distill_weight=0.5)
        moved(model)
        out = model.loops['loop1'].forward(model.train(), data, STEP)
        found.append(gradients(model, out['loss']))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_a_stop_is_heard_before_each_pass_of_teacher_and_listener(build_loops, make_batch, rows):
    model = build_loops(reward_weight=0.1, distill_weight=0.5)
    data, loop = make_batch(*rows), model.loops['loop1']
    prepared = loop.prepare(model, [data], 0)
    for last in (1, 2):
        calls = []

        def poll(calls=calls, last=last):
            calls.append(1)
            if len(calls) == last:
                raise KeyboardInterrupt

        state = {name: p.detach().clone() for name, p in model.base.trainables().items()}
        with pytest.raises(KeyboardInterrupt):
            loop.forward(model, data, STEP, poll=poll, prepared=prepared[0])
        assert len(calls) == last
        assert all(torch.equal(p, state[name]) for name, p in model.base.trainables().items())


def test_human_sentences_earn_nothing(build_loops, make_batch, monkeypatch):
    model = build_loops(reward_weight=0.1)
    asked = spy(monkeypatch, model.loops['loop1'].reward.listener, 'segment', lambda *_: 1)
    out = model.loops['loop1'].forward(model, make_batch(dict(key=2, caption='a cat')), STEP)
    assert not asked and out['score'] == 0 and 'reward' not in out


# -- settings -------------------------------------------------------------------------------------------------------


def test_settings_that_cannot_be(build_base):
    for options, message in [
        (dict(bridge='discrete', reward_weight=0.1), "bridge='discrete' it samples none: use bridge='gumbel'"),
        (dict(slot='teacher', reward_weight=0.1), "slot='teacher' it samples none: use slot='student'"),
        (dict(reward_weight=-0.1), 'model.reward_weight=-0.1 may not be negative'),
        (dict(distill_weight=-1), 'model.distill_weight=-1 '),
        (dict(reward_weight=0.1, listener='ema'), "model.listener='ema' waits for averages.*'frozen'"),
        (dict(reward_weight=0.1, listener='me'), "model.listener='me' is unknown"),
    ]:
        with pytest.raises(ValueError, match=message):
            DualLoopModel(build_base(), **options)


def test_the_flat_form_and_the_list_of_loops_say_the_same(build_base):
    options = dict(distill_weight=0.5, reward_weight=0.1, listener='live')
    flat = DualLoopModel(build_base(), **options).loops['loop1']
    listed = DualLoopModel(build_base(), loops=[dict(type='MaskLoop', **options)]).loops['loop1']
    for loop in (flat, listed):
        assert (loop.distill_weight, loop.reward_weight, loop.listener) == (0.5, 0.1, 'live')
        assert loop.losses == ('mask', 'dice', 'answer', 'denoise', 'distill', 'score') and loop.reward is not None
    assert MaskLoop().losses == ('mask', 'dice', 'answer', 'denoise')
    with pytest.raises(ValueError, match='model.reward_weight stands beside model.loops'):
        DualLoopModel(build_base(), loops=[dict(type='MaskLoop')], reward_weight=0.1)


def test_a_bridge_that_says_nothing_of_its_samples_cannot_be_rewarded(build_loops, make_batch, monkeypatch):
    model = build_loops(reward_weight=0.1)
    loop = model.loops['loop1']
    bridge = loop.bridge

    def silent(*args):
        out = bridge(*args)
        return BridgeOutput(out.embeds, out.ids, out.entropy, out.agreement)

    monkeypatch.setattr(loop, 'bridge', silent)
    with pytest.raises(ValueError, match='log_probs and best in its BridgeOutput'):
        loop.forward(model, make_batch(dict(key=1)), STEP)
