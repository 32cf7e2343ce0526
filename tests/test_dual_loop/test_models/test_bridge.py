"""The caption bridge against the plain soft mixture that it stands for."""

import plain_loops
import pytest
import torch

from dual_loop.models.bridge import CaptionBridge
from llava_sam2.randomness import generator_for, seed_for

TOPK, TAU = 8, 0.7


@pytest.fixture
def weight():
    return torch.randn(640, 5, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def logits():
    """Three rows of captions; together more tokens than one chunk of the backward pass."""
    generator = torch.Generator().manual_seed(4)
    return [2 * torch.randn(n, 640, generator=generator) for n in (3, 1, 90)]


def keys_of(names):
    return torch.tensor([seed_for(name) for name in names])


def run(logits, weight, vocabulary, keys=(0, 1, 2), topk=TOPK):
    return CaptionBridge(topk, TAU)(logits, keys_of(keys), weight, vocabulary)


def soft_mixture(logits, weight, vocabulary, keys=(0, 1, 2), topk=TOPK):
    """The tempered mixture of the k best rows in float64, row by row; its argmax is the sampled token."""
    rows, sampled = [], []
    for part, key in zip(logits, keys):
        drawn = torch.stack([plain_loops.uniform(seed_for(key), topk, place) for place in range(len(part))])
        noise = -(-(1 - drawn).log()).log()
        allowed = part.double().masked_fill(vocabulary.not_in_caption, float('-inf'))
        values, ids = allowed.sort(dim=-1, descending=True)
        values, ids = values[:, :topk] + noise, ids[:, :topk].clone()
        ids[0] = vocabulary.with_leading_space[ids[0]]
        probs = (values / TAU).softmax(dim=-1)
        rows.append(torch.stack([p @ weight.double()[i] for p, i in zip(probs, ids)]))
        sampled.append([int(i[v.argmax()]) for v, i in zip(values, ids)])
    return rows, sampled


def test_forward_is_the_embedding_of_the_sampled_token(logits, weight, vocabulary):
    out = run(logits, weight, vocabulary)
    assert out.ids == soft_mixture(logits, weight, vocabulary)[1]
    assert [len(ids) for ids in out.ids] == [3, 1, 90]
    for embeds, ids in zip(out.embeds, out.ids):
        assert torch.equal(embeds, weight[ids])


def test_backward_is_the_gradient_of_the_soft_mixture(logits, weight, vocabulary):
    logits = [part.requires_grad_() for part in logits]
    upstream = [torch.randn(len(part), 5, generator=generator_for('g')) for part in logits]
    total = sum((embeds * up).sum() for embeds, up in zip(run(logits, weight, vocabulary).embeds, upstream))
    actual = torch.autograd.grad(total, logits)
    mixture = sum((soft * up).sum() for soft, up in zip(soft_mixture(logits, weight, vocabulary)[0], upstream))
    expected = torch.autograd.grad(mixture, logits)
    for one, other in zip(actual, expected):
        assert one.count_nonzero() > 0
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_backward_agrees_with_finite_differences(logits, weight, vocabulary):
    part = logits[0].clone().requires_grad_()
    upstream = torch.randn(3, 5, generator=generator_for('g'))
    total = (run([part], weight, vocabulary, keys=(0,)).embeds[0] * upstream).sum()
    (actual,) = torch.autograd.grad(total, part)

    def mixture(values):
        return float((soft_mixture([values], weight, vocabulary, keys=(0,))[0][0] * upstream).sum())

    step = 1e-5
    for place in actual.abs().flatten().topk(6).indices.tolist() + [0]:
        change = torch.zeros(3 * 640, dtype=torch.float64)
        change[place] = step
        change = change.view(3, 640)
        numeric = (mixture(logits[0] + change) - mixture(logits[0] - change)) / (2 * step)
        assert actual.flatten()[place].item() == pytest.approx(numeric, rel=1e-3, abs=1e-5)


def test_special_tokens_and_beginnings_of_the_terminator_are_never_sampled(weight, vocabulary):
    forbidden = vocabulary.special.clone()
    forbidden[[vocabulary.pieces.index(piece) for piece in (b'<', b'<|', b'.<|')]] = True
    logits = torch.zeros(300, 640)
    logits[:, forbidden] = 50.0
    for topk in (4, 640):  # also when there are fewer ordinary tokens than candidates
        (ids,) = run([logits], weight, vocabulary, keys=(0,), topk=topk).ids
        assert not forbidden[ids].any()


def test_first_position_takes_the_form_that_follows_a_space(weight, vocabulary):
    letter = vocabulary.pieces.index(b'd')
    logits = torch.zeros(2, 640)
    logits[:, letter] = 99.0
    out = run([logits, logits], weight, vocabulary, keys=(0, 1))
    for ids in out.ids:
        assert [vocabulary.pieces[index] for index in ids] == [b' d', b'd']


def test_noise_of_a_row_depends_on_its_own_key_alone(logits, weight, vocabulary):
    together = run(logits, weight, vocabulary)
    for index, part in enumerate(logits):
        alone = run([part], weight, vocabulary, keys=(index,))
        assert torch.equal(alone.embeds[0], together.embeds[index])
    other = run(logits, weight, vocabulary, keys=(9, 1, 2))
    assert other.ids[1:] == together.ids[1:]
    assert run([logits[2]], weight, vocabulary, keys=(5,)).ids[0] != together.ids[2]


def test_samples_follow_the_students_distribution(weight, vocabulary):
    """Gumbel-max draws from the softmax itself; the temperature touches the gradient only."""
    ids = vocabulary.ordinary_ids[300:303]
    logits = torch.full((6000, 640), -99.0)
    logits[:, ids] = torch.tensor([0.7, 0.2, 0.1]).log()
    (sampled,) = run([logits], weight, vocabulary, keys=(0,), topk=3).ids
    shares = [sampled[1:].count(index) / 5999 for index in ids.tolist()]
    assert shares == pytest.approx([0.7, 0.2, 0.1], abs=0.02)


def test_embedding_matrix_gets_a_gradient_only_when_it_is_trained(logits, weight, vocabulary):
    logits = [part.requires_grad_() for part in logits]
    sum(e.sum() for e in run(logits, weight, vocabulary).embeds).backward()
    assert weight.grad is None
    weight.requires_grad_()
    out = run(logits, weight, vocabulary)
    sum(e.sum() for e in out.embeds).backward()
    counts = torch.bincount(torch.tensor([index for ids in out.ids for index in ids]), minlength=640)
    assert torch.equal(weight.grad, counts[:, None].expand(-1, 5).float())


def test_figures(vocabulary, weight):
    logits = torch.full((200, 640), -99.0)
    ids = vocabulary.ordinary_ids[300:302]
    logits[:, ids] = 0.0
    out = run([logits], weight, vocabulary, keys=(0,), topk=2)
    assert out.entropy == pytest.approx(0.6931, abs=1e-3)
    assert 0.35 < out.agreement < 0.65
    logits[:, ids[0]] = 30.0
    out = run([logits], weight, vocabulary, keys=(0,), topk=2)
    assert out.entropy == pytest.approx(0, abs=1e-5) and out.agreement == 1.0


# Given tokens ------------------------------------------------------------------------------------------------------


def given_tokens(logits, vocabulary):
    """The best, the last of the candidates, the first outside, the worst, and one that may not be sampled."""
    allowed = [part.detach().masked_fill(vocabulary.not_in_caption, float('-inf')) for part in logits]
    ranks = [0, TOPK - 1, TOPK, len(vocabulary.ordinary_ids) - 1]
    given = [[int(row.argsort(descending=True)[ranks[place % 4]]) for place, row in enumerate(part)]
             for part in allowed]
    given[2][5] = int((vocabulary.not_in_caption & ~vocabulary.special).nonzero()[0, 0])
    return given


def given_mixture(logits, weight, vocabulary, given):
    """In float64 and position by position: the given token and the k - 1 best others, without noise."""
    rows = []
    for part, tokens in zip(logits, given):
        rows.append([])
        for place, (scores, token) in enumerate(zip(part.double(), tokens)):
            order = scores.masked_fill(vocabulary.not_in_caption, float('-inf')).argsort(descending=True).tolist()
            ids = [token, *[index for index in order if index != token][: TOPK - 1]]
            names = vocabulary.with_leading_space[ids] if place == 0 else ids
            rows[-1].append((scores[ids] / TAU).softmax(0) @ weight.double()[names])
    return [torch.stack(row) for row in rows]


def test_given_tokens_stand_in_the_slot_wherever_they_rank(logits, weight, vocabulary):
    given = given_tokens(logits, vocabulary)
    out = CaptionBridge(TOPK, TAU)(logits, keys_of((0, 1, 2)), weight, vocabulary, given=given)
    for embeds, ids, tokens in zip(out.embeds, out.ids, given):
        assert ids == [int(vocabulary.with_leading_space[tokens[0]]), *tokens[1:]]
        assert torch.equal(embeds, weight[ids])
    best = [tokens[place] == int(row.masked_fill(vocabulary.not_in_caption, float('-inf')).argmax())
            for part, tokens in zip(logits, given) for place, row in enumerate(part)]
    assert float(out.agreement) == pytest.approx(sum(best) / len(best), abs=0.02) and 0.2 < out.agreement < 0.3


def test_backward_with_given_tokens_is_the_gradient_of_the_mixture_with_them(logits, weight, vocabulary):
    logits = [part.requires_grad_() for part in logits]
    given = given_tokens(logits, vocabulary)
    upstream = [torch.randn(len(part), 5, generator=generator_for('g')) for part in logits]

    def gradient(captions):
        return torch.autograd.grad(sum((one * up).sum() for one, up in zip(captions, upstream)), logits)

    out = CaptionBridge(TOPK, TAU)(logits, keys_of((0, 1, 2)), weight, vocabulary, given=given)
    other_noise = CaptionBridge(TOPK, TAU)(logits, keys_of((7, 8, 9)), weight, vocabulary, given=given)
    actual, again = gradient(out.embeds), gradient(other_noise.embeds)
    for one, same, other in zip(actual, again, gradient(given_mixture(logits, weight, vocabulary, given))):
        assert one.count_nonzero() > 0 and torch.equal(one, same)
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert actual[2][5, given[2][5]] != 0  # it is a candidate although it may not be sampled


@pytest.mark.parametrize('options', [dict(topk=0), dict(tau=0.0)])
def test_senseless_settings_are_refused(options):
    with pytest.raises(ValueError, match='topk >= 1 and tau > 0'):
        CaptionBridge(**options)
