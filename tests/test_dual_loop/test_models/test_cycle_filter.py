"""The filter of rows against a student that was given the teacher's weights."""

import pytest
import torch

from dual_loop.models.cycle_filter import cycle_ious, filtered
from dual_loop.models.teacher import Teacher

ROWS = (dict(key=1), dict(key=2, pair=True), dict(key=3), dict(key=4, pair=True))
CAPTIONS = ['A very big red dog.', 'a cat', 'it stands on a mat', 'a green circle']


@pytest.fixture
def student(build_base):
    return build_base(lora=dict(r=2, alpha=4, dropout=0.5)).train()


@pytest.fixture
def teacher(student):
    teacher, generator = Teacher(student), torch.Generator().manual_seed(7)
    teacher.set_values({name: value + 0.3 * torch.randn(value.shape, generator=generator)
                        for name, value in teacher.values.items()})
    return teacher


def ious(teacher, data, captions=CAPTIONS):
    images = teacher.student.encode(data['pixel_values'], data['g_pixel_values'], data['image2'].tolist())
    return cycle_ious(teacher, images, data['image2'].tolist(), captions, data['masks2'])


def counted(found, masks):
    """IoU by counting pixels."""
    pairs = [(int((one & other).sum()), int((one | other).sum())) for one, other in zip(found, masks)]
    return [shared / either if either else 0.0 for shared, either in pairs]


def test_ious_are_those_of_a_student_with_the_teachers_values(student, teacher, make_batch):
    data = make_batch(*ROWS)
    found = ious(teacher, data)
    own = counted(student.eval().forced_masks(data | dict(captions=CAPTIONS)), data['masks2'])
    with torch.no_grad():
        for name, parameter in student.trainables().items():
            if name in teacher.values:
                parameter.copy_(teacher.values[name])
    expected = counted(student.eval().forced_masks(data | dict(captions=CAPTIONS)), data['masks2'])
    assert found.tolist() == pytest.approx(expected) and found.tolist() != pytest.approx(own)
    assert found.min() < found.max() and not found.requires_grad


def test_the_student_is_as_before_and_nothing_is_drawn(student, teacher, make_batch):
    data = make_batch(*ROWS)
    before, random = {name: p.clone() for name, p in student.named_parameters()}, torch.get_rng_state()
    assert torch.equal(ious(teacher, data), ious(teacher, data))
    assert torch.equal(torch.get_rng_state(), random) and student.training
    assert all(torch.equal(p, before[name]) for name, p in student.named_parameters())


def test_an_empty_mask_is_never_found(teacher, make_batch):
    data = make_batch(*ROWS)
    data['masks2'][1] = False
    assert ious(teacher, data)[1] == 0


def test_rows_below_the_threshold_lose_their_weight_and_no_other_gains():
    weights, rows = torch.tensor([0.2, 0.3, 0.1, 0.4]), torch.tensor([0, 2, 3])
    found, figures = filtered(weights, rows, torch.tensor([0.5, 0.49, 0.9]), 0.5)
    assert torch.equal(found, torch.tensor([0.2, 0.3, 0.0, 0.4]))
    assert torch.equal(weights, torch.tensor([0.2, 0.3, 0.1, 0.4]))
    assert float(figures['rows_kept']) == pytest.approx(2 / 3) and float(figures['cycle_iou']) == pytest.approx(0.63)
