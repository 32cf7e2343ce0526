"""Mask distillation against the formula in float64, and loop 1 with it against a plain second model."""

from copy import deepcopy

import plain_loops
import pytest
import torch
from loop_probes import gradients, speak, spy

from dual_loop.models.distillation import mask_distillation
from llava_sam2.losses import PointMaskLoss, point_values, sample_points
from llava_sam2.randomness import generator_for, seed_for

POINTS = dict(num_points=40, oversample_ratio=3.0, importance_ratio=0.75)


@pytest.fixture
def maps():
    """Logits of a student and a teacher, with keys of their points."""
    generator = generator_for('maps')
    student, teacher = 3 * torch.randn(2, 3, 16, 16, generator=generator)
    return student.requires_grad_(), teacher, torch.tensor([seed_for(name) for name in 'abc'])


def divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Between two coins, from its definition; (R, P) to (R,)."""
    p, q = teacher.double().sigmoid(), student.double().sigmoid()
    return (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean(dim=1)


@pytest.mark.parametrize('points', [POINTS, None])
def test_is_the_divergence_of_the_teachers_mask(maps, points):
    student, teacher, keys = maps
    found = mask_distillation(student, teacher, keys, points)
    chosen = [each.flatten(1) for each in (student, teacher)]
    if points:
        where = sample_points(student, keys, **points)
        chosen = [point_values(each, where) for each in (student, teacher)]
    expected = divergence(*chosen)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    one, other = (torch.autograd.grad(loss.sum(), student, retain_graph=True)[0] for loss in (found, expected))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
    # That of BCE with soft targets.
    soft = torch.nn.functional.binary_cross_entropy_with_logits(chosen[0], chosen[1].sigmoid(), reduction='none')
    torch.testing.assert_close(one, torch.autograd.grad(soft.mean(1).sum(), student)[0], rtol=1e-4, atol=1e-7)


def test_is_nothing_where_both_agree_and_teaches_the_student_alone(maps):
    student, teacher, keys = maps
    same = mask_distillation(student, student.detach().clone(), keys, POINTS)
    assert same.abs().max() == 0 and torch.autograd.grad(same.sum(), student)[0].abs().max() < 1e-7
    teacher.requires_grad_()
    assert torch.autograd.grad(mask_distillation(student, teacher, keys, POINTS).sum(), teacher,
                               allow_unused=True) == (None, )


def moved_teacher(model, scale=0.05):
    """Give the teacher averages of its own; returns a model in which they are the weights."""
    generator = generator_for('moved')
    model.teacher.set_values({name: p.detach() + scale * torch.randn(p.shape, generator=generator)
                              for name, p in model.base.trainables().items()})
    copy = deepcopy(model.base).eval()
    with torch.no_grad():
        for name, parameter in copy.trainables().items():
            parameter.copy_(model.teacher.values[name])
    return copy


def plain_distillation(model, second, data, texts, step=3) -> torch.Tensor:
    """The mean over rows of the divergence from the masks that the second model finds by texts, row by row."""
    total = 0.0
    for index, text in enumerate(texts):
        student, teacher = (plain_loops.PlainRow(base, data, index, step, 0) for base in (model.base, second))
        with torch.no_grad():
            target = teacher.segmentation(teacher.encode(' ' + text))['logits']
        slot = student.text_slot() if student.caption else student.student(student.encode(text))[0]
        logits = student.segmentation(slot)['logits']
        where = sample_points(logits[None], torch.tensor([student.key('points')]), 64, 3.0, 0.75)
        pair = (point_values(each[None], where) for each in (logits, target))
        total = total + student.weight * divergence(*pair)[0]
    return total


@pytest.mark.parametrize('bridge', ['gumbel', 'discrete'])
def test_loop1_equals_a_plain_second_model(build_loops, make_batch, monkeypatch, bridge):
    """The teacher's clean caption or the human sentence, the teacher's weights throughout, no dropout in its pass."""
    base = dict(lora=dict(r=2, alpha=4, dropout=0.3))
    model = build_loops(base, bridge=bridge, distill_weight=0.5, max_caption_len=30)
    second = moved_teacher(model)
    # Dropout is for the student of training: off here, so that the plain one needs none; the teacher's is tested below.
    model.eval()
    data = make_batch(dict(key=1), dict(key=2, caption='A Cat.'), dict(key=3, pair=True))
    speak(monkeypatch, model, 'a big dog', 'it stands')
    texts = ['a big dog', 'a cat', 'it stands']
    out = model.loops['loop1'].forward(model, data, 3)
    if bridge == 'discrete':  # the student reads the same texts
        monkeypatch.setattr(plain_loops.PlainRow, 'student', lambda row, ids: ([*row.encode(' ' + texts[row.row])], ))
    expected = plain_distillation(model, second, data, texts)
    torch.testing.assert_close(out['distill'].double(), expected.detach(), rtol=1e-4, atol=1e-6)
    parts = out['mask'] + out['dice'] + out['answer'] + 0.5 * out['distill']
    torch.testing.assert_close(out['loss'].detach(), parts)
    without = build_loops(base, bridge=bridge, max_caption_len=30).eval()
    speak(monkeypatch, without, 'a big dog', 'it stands')
    before = without.loops['loop1'].forward(without, data, 3)
    assert 'distill' not in before
    wanted = gradients(model, expected)
    rest = gradients(without, before['loss'])
    for name, gradient in gradients(model, out['loss']).items():
        torch.testing.assert_close(gradient, rest[name] + 0.5 * wanted[name], rtol=2e-3, atol=2e-5, msg=name)
    assert all(wanted[name].abs().max() > 0 for name in wanted if '.lora_B.' in name)


def test_the_teachers_pass_has_no_dropout_and_leaves_the_students_alone(build_loops, make_batch, monkeypatch):
    base = dict(lora=dict(r=2, alpha=4, dropout=0.5))
    losses = []
    for options in (dict(), dict(distill_weight=0.5)):
        model = build_loops(base, **options).train()
        moved_teacher(model)
        targets = spy(monkeypatch, model.teacher, 'segment', lambda args, result: result)
        state = {name: p.detach().clone() for name, p in model.base.trainables().items()}
        for _ in range(2):
            torch.manual_seed(5)
            losses.append(model.loops['loop1'].forward(model, make_batch(dict(key=1), dict(key=2)), 0)['mask'])
        assert len(targets) == 2 * bool(options) and (not targets or torch.equal(*targets))
        assert all(torch.equal(p, state[name]) for name, p in model.base.trainables().items())
        assert model.base.network.language_model.training
    assert len({float(loss) for loss in losses}) == 1  # the student's dropout draws the same


def test_a_mask_loss_without_points_is_distilled_at_every_pixel(build_loops, make_batch, monkeypatch):
    model = build_loops(distill_weight=0.5)
    moved_teacher(model)
    seen = spy(monkeypatch, model.base, 'segment', lambda args, result: result)
    monkeypatch.setattr(model.base, 'mask_loss', lambda *args: PointMaskLoss(num_points=64)(*args))
    out = model.loops['loop1'].forward(model, make_batch(dict(key=1)), 0)
    teacher, student = seen
    torch.testing.assert_close(out['distill'].double(), divergence(student.flatten(1), teacher.flatten(1))[0].detach(),
                               rtol=1e-4, atol=1e-6)
