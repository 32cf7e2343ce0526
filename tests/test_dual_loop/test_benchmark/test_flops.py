"""The count of arithmetic against torch's own counter, which watches the products that really happen."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dual_loop.benchmark.flops import step_flops
from dual_loop.benchmark.plain import take_the_plain_way
from llava_sam2.portable.idle_attention import leave_out_idle_attention


def counted(work) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.fixture(scope='module')
def model(build_loops):
    model = build_loops().train()
    take_the_plain_way(model)
    model.base.network.language_model.gradient_checkpointing_disable()
    return model


def test_student_passes_and_their_backward(model):
    base, tokens = model.base, 200
    flops = step_flops(model, dict(loop1=1, loop2=1), caption_len=tokens, images=2)
    cells = torch.zeros(4, 4, dtype=torch.bool)
    cells.view(-1)[:2] = True
    images = base.encode(torch.zeros(1, 3, 112, 112), torch.zeros(1, 3, 128, 128, dtype=torch.uint8))
    caption = 'a'
    while len(base.vocabulary.encode(caption)) < tokens:
        caption += ' a'
    rows = [base.text_rows.description(0, cells, caption), base.text_rows.monitored(0, caption)]
    lengths = [len(row.input_ids) for row in rows]
    assert lengths == pytest.approx([flops.caption_row, flops.segmentation_row], abs=9)
    parameters = [p for name, p in base.trainables().items() if '.lora_' in name]

    def passes(backward: bool):
        for row in rows * 2:
            loss = base.token_loss(*base.read_rows([row], images)).sum()
            if backward:
                torch.autograd.grad(loss, parameters)

    projector = counted(lambda: base.project(images))
    forward = counted(lambda: passes(False)) - 4 * projector
    backward = counted(lambda: passes(True)) - 4 * projector - forward
    # torch does not count the attention kernel of a CPU.
    llm = base.config.llm_config
    attention = sum(2 * 2 * length**2 * llm.hidden_size * llm.num_hidden_layers for length in lengths)
    assert flops.language_model == pytest.approx(forward + attention, rel=0.06)
    assert flops.backward == pytest.approx(backward + 2.5 * attention, rel=0.06)


def test_encoders(model):
    network = model.base.network
    flops = step_flops(model, dict(loop1=1, loop2=1), caption_len=1, images=3)
    leave_out_idle_attention(network.grounding_encoder)  # which the plain way has and nobody needs
    spent = counted(lambda: (network.encode_vision(torch.zeros(3, 3, 112, 112)),
                             network.encode_grounding(torch.zeros(3, 3, 128, 128, dtype=torch.uint8))))
    assert flops.encoders == pytest.approx(spent, rel=0.35)  # patch embeddings, necks and pooling are not counted


def test_decoding_reads_and_multiplies_every_weight_once(model):
    network = model.base.network
    weights = sum(p.numel() for name, p in network.language_model.model.layers.named_parameters()
                  if p.ndim == 2 and '.lora_' not in name) + network.language_model.lm_head.weight.numel()
    one, two = (step_flops(model, dict(loop1=3, loop2=3), caption_len=n, images=0) for n in (10, 20))
    assert two.teacher - one.teacher == 10 * 3 * 2 * weights and one.decoded_bytes == 4 * weights
    assert one.total == one.encoders + one.teacher + one.language_model + one.backward and one.encoders == 0


def test_a_third_loop_and_the_teachers_words_as_they_are(build_loops):
    """A supervised row is read as one of loop 2; without a bridge the student does not describe."""
    def counted_of(rows, **settings):
        return step_flops(build_loops(**settings), rows, caption_len=20, images=0)

    two = dict(loop1=2, loop2=3)
    base, more = counted_of(two), counted_of(dict(loop1=2, loop2=5))
    third = counted_of(dict(loop1=2, loop2=3, supervised=2), topk=None, max_caption_len=None, loops=[
        dict(type='MaskLoop'), dict(type='CaptionLoop'), dict(type='SupervisedLoop')])
    assert third == more and third.teacher == base.teacher
    discrete = counted_of(two, bridge='discrete')
    assert discrete.teacher == base.teacher and discrete.language_model < base.language_model
    described = counted_of(dict(loop1=0, loop2=1)).language_model - counted_of(dict(loop1=0, loop2=0)).language_model
    assert base.language_model - discrete.language_model < 2 * described
