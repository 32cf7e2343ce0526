"""The teacher: averaged values in the student's modules, for as long as it speaks."""

from copy import deepcopy

import pytest
import torch

from dual_loop.models import teacher as teacher_module
from dual_loop.models.teacher import LiveTeacher, Teacher, build_teacher, swapped
from llava_sam2.portable.generation import greedy_decode
from llava_sam2.portable.rows import caption_row


@pytest.fixture
def student(build_base):
    return build_base(lora=dict(r=2, alpha=4, dropout=0.5)).train()


@pytest.fixture(scope='module')
def batch(make_batch):
    return make_batch(dict(key=1), dict(key=2))


def encode(student, batch):
    return student.encode(batch['pixel_values'], batch['g_pixel_values'])


def describe(teacher, batch):
    return teacher.describe(encode(teacher.student, batch), [0, 1], list(batch['prompt_masks']), 8)


def own_captions(student, batch):
    """What the student itself says, in evaluation mode."""
    student.eval()
    vocabulary = student.vocabulary
    rows = [caption_row(vocabulary, 16, index, region, []) for index, region in enumerate(batch['prompt_masks'])]
    features = student.network.mlp1(encode(student, batch).vision)
    decoded = greedy_decode(student.network, student.pad(rows, 'left'), features, vocabulary, 8,
                            vocabulary.special, vocabulary.cannot_begin)
    student.train()
    return decoded


def averages(teacher, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value.float() + 0.3 * torch.randn(value.shape, generator=generator)
        for name, value in teacher.values.items()
    }


def test_holds_what_is_trained_behind_the_encoders_and_nothing_else(build_base):
    everything = ('vision_model', 'mlp1', 'text_hidden_fcs', 'image_encoder', 'mask_decoder')
    student = build_base(trainable=everything)
    names, trained = set(Teacher(student).values), set(student.trainables())
    assert {name for name in names if '.lora_' in name or '.mlp1.' in name} == {
        name for name in trained if '.lora_' in name or '.mlp1.' in name}
    encoders = {name for name in trained if '.vision_model.' in name or '.vision_encoder.' in name}
    assert encoders and names == trained - encoders


def test_masks_of_averages_are_those_of_a_model_that_has_them(student, batch):
    """Its LoRA, projector, ``[SEG]`` projection and mask decoder, without dropout."""
    images = encode(student, batch)
    rows = [student.text_rows.segmentation(0, sample, image, 'a red dog') for image, sample in enumerate('ab')]
    teacher = Teacher(student)
    teacher.set_values(averages(teacher))
    asked: list[int] = []
    found = teacher.segment(rows, images, lambda: asked.append(1))
    assert asked == [1] and not found.requires_grad and student.training
    copy = deepcopy(student).eval()
    with torch.no_grad():
        for name, parameter in copy.trainables().items():
            parameter.copy_(teacher.values[name])
        _, states = copy.read_rows(rows, images)
        assert torch.equal(found, copy.segment(rows, states, images))
        _, states = student.eval().read_rows(rows, images)
        assert not torch.allclose(found, student.segment(rows, states, images), atol=1e-2)


def test_teacher_is_the_student_at_the_start_and_dropout_is_off(student, batch):
    teacher = Teacher(student)
    assert describe(teacher, batch) == own_captions(student, batch)
    assert describe(teacher, batch) == describe(teacher, batch)
    assert student.training and student.network.language_model.training and not student.network.vision_model.training


def test_given_values_are_used_and_the_students_restored(student, batch):
    teacher, before = Teacher(student), own_captions(student, batch)
    state = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    values = averages(teacher)
    teacher.set_values(values)
    said = describe(teacher, batch)
    assert said != before
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert own_captions(student, batch) == before
    with torch.no_grad():
        for name, parameter in student.trainables().items():
            if name in values:
                parameter.copy_(values[name])
    assert own_captions(student, batch) == said  # a student with these values says the same
    with torch.no_grad():
        for parameter in student.trainables().values():
            parameter.zero_()
    assert describe(teacher, batch) == said  # the student's changes do not reach the teacher


def test_student_is_restored_when_the_teacher_fails(student, batch, monkeypatch):
    teacher = Teacher(student, decoding='plain')
    teacher.set_values(averages(teacher))
    state = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    values = dict(teacher.values)

    def fail(*args, **kwargs):
        parameter = student.network.mlp1[1].weight
        assert torch.equal(parameter, values['network.mlp1.1.weight']) and not student.training
        raise RuntimeError('out of memory')

    monkeypatch.setattr(teacher_module, 'greedy_decode', fail)
    with pytest.raises(RuntimeError, match='out of memory'):
        describe(teacher, batch)
    assert student.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in student.state_dict().items())
    assert all(torch.equal(tensor, values[name]) for name, tensor in teacher.values.items())


def test_static_and_plain_teachers_say_the_same_also_after_a_change(student, batch):
    static, plain = Teacher(student, decoding='static', compile=False), Teacher(student, decoding='plain')
    assert Teacher(student).static and not plain.static
    said = []
    for seed in range(3):
        for teacher in (static, plain):
            teacher.set_values(averages(teacher, seed))
            said.append(describe(teacher, batch))
        assert said[-1] == said[-2]
    assert said[0] != said[2]


def test_averages_of_a_whole_language_model_are_spoken(build_base, batch):
    """Without LoRA there is no copy: the decoder reads the weights themselves, which are the student's."""
    student = build_base(lora=None, trainable=('mlp1', 'language_model', 'mask_decoder')).train()
    static, plain = Teacher(student, decoding='static', compile=False), Teacher(student, decoding='plain')
    said = []
    for seed in range(2):
        for teacher in (static, plain):
            teacher.set_values(averages(teacher, seed))
            said.append(describe(teacher, batch))
        assert said[-1] == said[-2]
    assert said[0] != said[2] and said[0] != own_captions(student, batch)


def test_a_decoding_that_cannot_be_is_refused(build_base, student):
    with pytest.raises(ValueError, match='decoding'):
        Teacher(student, decoding='quick')
    trained = build_base(lora=dict(r=2, alpha=4), train_token_rows=True)
    assert not Teacher(trained).static
    with pytest.raises(ValueError, match="use 'auto' or 'plain'"):
        Teacher(trained, decoding='static')


@pytest.mark.parametrize('moment', ['before', 'between'])
def test_students_gradient_does_not_see_the_teacher(build_base, make_batch, batch, moment):
    student = build_base().train()
    teacher = Teacher(student)
    teacher.set_values(averages(teacher))
    captioned = make_batch(dict(key=1, caption='a dog', describes=True))
    parameters = list(student.trainables().values())

    def gradients(moment):
        if moment == 'before':
            describe(teacher, batch)
        loss = sum(student.supervised_losses(captioned, 0).values())
        if moment == 'between':
            describe(teacher, batch)
        return torch.autograd.grad(loss, parameters, allow_unused=True)

    for expected, actual in zip(gradients('never'), gradients(moment)):
        assert (expected is None) == (actual is None)
        assert expected is None or torch.equal(expected, actual)
    assert all(parameter is mine for parameter, mine in zip(parameters, student.trainables().values()))


def test_nothing_the_teacher_does_needs_a_graph(student, batch, monkeypatch):
    seen = []
    monkeypatch.setattr(
        teacher_module, 'greedy_decode', lambda network, batch, features, *args, **kwargs: seen.append(features)
    )
    describe(Teacher(student, decoding='plain'), batch)
    assert not seen[0].requires_grad


def test_working_copy_has_the_models_dtype_and_is_a_copy(student):
    student.to(torch.bfloat16)
    teacher = Teacher(student)
    values = averages(teacher)
    teacher.set_values(values | {'network.vision_model.another': torch.zeros(1)})
    for name, value in teacher.values.items():
        assert value.dtype == torch.bfloat16
        assert torch.equal(value, values[name].bfloat16())
    student.to(torch.float32)
    teacher = Teacher(student)
    teacher.set_values(values)
    kept = values['network.mlp1.1.weight'].clone()
    values['network.mlp1.1.weight'].zero_()  # the EMA goes on in place
    assert torch.equal(teacher.values['network.mlp1.1.weight'], kept)


def test_missing_average_is_an_error(student):
    teacher = Teacher(student)
    values = averages(teacher)
    del values['network.mlp1.1.weight']
    with pytest.raises(KeyError, match='mlp1.1.weight'):
        teacher.set_values(values)


@pytest.mark.parametrize('cast', [False, True])
def test_frozen_says_the_same_whatever_happens(student, batch, cast):
    """Also after a cast of the whole model, as DeepSpeed's, with the weights of the start cast alike."""
    teacher = build_teacher('frozen', student)
    if cast:
        student.to(torch.bfloat16)
        student.dtype = torch.bfloat16
    expected = own_captions(student, batch)
    teacher.set_values(averages(teacher))
    with torch.no_grad():
        for parameter in student.trainables().values():
            parameter.add_(0.5)
    assert own_captions(student, batch) != expected
    assert describe(teacher, batch) == expected


def test_live_says_what_the_student_says_now_without_dropout(student, batch):
    teacher = build_teacher('live', student)
    said = describe(teacher, batch)
    assert said == own_captions(student, batch)
    teacher.set_values(averages(Teacher(student)))
    with torch.no_grad():
        for parameter in student.trainables().values():
            parameter.add_(0.5)
    assert describe(teacher, batch) == own_captions(student, batch) != said
    assert student.training


def test_teachers_by_word_and_by_class(student, build_loops):
    assert [type(build_teacher(word, student)).__name__ for word in ('ema', 'frozen', 'live')] == [
        'Teacher', 'FrozenTeacher', 'LiveTeacher']
    assert type(build_teacher(dict(type='LiveTeacher'), student)) is LiveTeacher
    with pytest.raises(ValueError, match="model.teacher='mean' is unknown: use 'ema', 'frozen', 'live', or dict"):
        build_teacher('mean', student)
    assert type(build_loops().teacher) is type(build_loops(teacher=None).teacher) is Teacher
    assert type(build_loops(teacher='live').teacher) is LiveTeacher


def parameters() -> dict[str, torch.nn.Parameter]:
    return {name: torch.nn.Parameter(torch.arange(float(n))) for name, n in (('a', 3), ('b', 2))}


def test_swapped_exchanges_pointers_and_restores_them():
    params = parameters()
    values = {name: torch.full_like(param, 7.0) for name, param in params.items()}
    pointers = {name: param.data_ptr() for name, param in params.items()}
    contents = {name: param.detach().clone() for name, param in params.items()}

    def restored() -> bool:
        return all(param.data_ptr() == pointers[name] and torch.equal(param, contents[name])
                   for name, param in params.items())

    with swapped(params, values):
        assert all(param.data_ptr() == values[name].data_ptr() and (param == 7).all() for name, param in params.items())
    assert restored()
    with pytest.raises(RuntimeError, match='inside'), swapped(params, values):
        raise RuntimeError('inside')
    assert restored() and all((value == 7).all() for value in values.values())


def test_swapped_refuses_what_does_not_fit_before_it_changes_anything():
    params = parameters()
    pointers = {name: param.data_ptr() for name, param in params.items()}
    for values, error, message in (
        (dict(a=torch.zeros(3)), KeyError, "'b' has no partner"),
        (dict(a=torch.zeros(3), b=torch.zeros(3)), ValueError, r"'b': the parameter is torch.float32 \(2,\)"),
        (dict(a=torch.zeros(3), b=torch.zeros(2).bfloat16()), ValueError, "'b': the parameter is torch.float32"),
    ):
        with pytest.raises(error, match=message), swapped(params, values):
            pytest.fail('the block must not run')
        assert {name: param.data_ptr() for name, param in params.items()} == pointers


def test_iou_of_masks():
    one, two = torch.zeros(2, 4, 6, 6, dtype=torch.bool)
    one[0, :2], two[0, 1:3] = True, True
    one[1, :3] = True
    two[3] = one[3] = True
    assert teacher_module.mask_iou(one, two).tolist() == pytest.approx([1 / 3, 0, 0, 1])
