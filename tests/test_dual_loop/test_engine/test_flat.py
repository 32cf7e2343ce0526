"""The flat gradient buffer: what lies where, what may be absent, and the average over two ranks."""

import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from dual_loop.engine.flat import FlatLayout, all_reduce_mean_, groups_of_loops
from dual_loop.engine.surgery import GradientSurgery
from dual_loop.models import CaptionLoop, MaskLoop, SupervisedLoop

GROUPS = dict(trunk=dict(pattern='trunk', loops=('loop1', 'loop2')), mask=dict(pattern='mask', loops=('loop1', )),
              text=dict(pattern='text', loops=['loop2']))
TWO = [['loop1'], ['loop2']]


class TwoHeads(nn.Module):
    """A shared trunk, one head per loop and a frozen tensor in between."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Linear(3, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.mask = nn.Linear(4, 2)
        self.trunk_tail = nn.Parameter(torch.randn(4))
        self.text = nn.Linear(4, 2)

    def loss(self, x: torch.Tensor, loop: str) -> torch.Tensor:
        hidden = self.frozen(torch.tanh(self.trunk(x))) * self.trunk_tail
        return (self.mask if loop == 'loop1' else self.text)(hidden).square().mean()


def trainables(model: nn.Module) -> list[nn.Parameter]:
    return [param for param in model.parameters() if param.requires_grad]


def local_gradients(model: TwoHeads, layout: FlatLayout, micro_batches) -> list[torch.Tensor]:
    buffers = []
    for loop in ('loop1', 'loop2'):
        buffer = layout.new_buffer()
        for x in micro_batches:
            grads = torch.autograd.grad(model.loss(x, loop), trainables(model), allow_unused=True)
            layout.accumulate_(buffer, grads, 1 / len(micro_batches), loop)
        buffers.append(buffer)
    return buffers


def test_layout_skips_frozen_tensors_and_joins_neighbours():
    layout = FlatLayout.from_params(TwoHeads().named_parameters(), GROUPS, TWO)
    # Direct parameters come first in named_parameters().
    assert layout.names == ('trunk_tail', 'trunk.weight', 'trunk.bias', 'mask.weight', 'mask.bias', 'text.weight',
                            'text.bias')
    assert layout.groups == ('trunk', ) * 3 + ('mask', ) * 2 + ('text', ) * 2
    assert layout.runs == (('trunk', slice(0, 20)), ('mask', slice(20, 30)), ('text', slice(30, 40)))
    assert [layout.reached_by[group] for group in GROUPS] == [(0, 1), (0, ), (1, )]
    assert layout.numel == 40


def test_split_gives_views_of_the_right_shapes():
    layout = FlatLayout.from_params(TwoHeads().named_parameters(), GROUPS, TWO)
    buffer = torch.arange(40.0)
    parts = dict(zip(layout.names, layout.split(buffer)))
    assert parts['trunk.weight'].tolist() == [[4, 5, 6], [7, 8, 9], [10, 11, 12], [13, 14, 15]]
    parts['text.bias'].zero_()
    assert buffer[38:].tolist() == [0, 0] and buffer[37] == 37
    for wrong in (torch.zeros(39), torch.zeros(40, dtype=torch.float64), torch.zeros(80)[::2]):
        with pytest.raises(ValueError, match=r'contiguous fp32 of shape \(40,\)'):
            layout.split(wrong)


def test_accumulation_over_micro_batches_equals_backward_on_the_mean_loss():
    model = TwoHeads()
    layout = FlatLayout.from_params(model.named_parameters(), GROUPS, TWO)
    micro_batches = torch.randn(3, 5, 3)
    buffers = local_gradients(model, layout, micro_batches)
    for loop, buffer in zip(('loop1', 'loop2'), buffers):
        model.zero_grad()
        model.loss(micro_batches.flatten(0, 1), loop).backward()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in trainables(model)]
        expected = torch.cat([grad.flatten() for grad in grads])
        torch.testing.assert_close(buffer, expected, rtol=1e-5, atol=1e-7)


def test_bf16_gradients_are_summed_in_fp32():
    param = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    layout = FlatLayout.from_params([('trunk', param)], GROUPS, TWO)
    buffer = layout.new_buffer()
    for _ in range(3):
        layout.accumulate_(buffer, [torch.full((1, ), 1 + 2**-7, dtype=torch.bfloat16)], 1.0, loop='loop1')
    assert buffer.item() == 3 + 3 * 2**-7  # 3.0234375 has no bf16 representation


def test_a_lost_or_stray_gradient_names_its_tensor():
    model = TwoHeads()
    layout = FlatLayout.from_params(model.named_parameters(), GROUPS, TWO)
    grads = [torch.ones(shape) for shape in layout.shapes]
    with pytest.raises(RuntimeError, match=r"no gradient to 'trunk.bias' \(1 of the 5 .*use_reentrant=False"):
        layout.accumulate_(layout.new_buffer(), grads[:2] + [None] + grads[3:5] + [None] * 2, 1.0, loop='loop1')
    with pytest.raises(RuntimeError, match=r"loop 2 gives a gradient to 'mask.weight' \(2 .*reached by loop1 only"):
        layout.accumulate_(layout.new_buffer(), grads, 1.0, loop='loop2')
    with pytest.raises(ValueError, match='got 2 gradients for 7'):
        layout.accumulate_(layout.new_buffer(), grads[:2], 1.0, loop='loop1')


def test_default_groups_know_the_parts_of_the_network():
    expected = {
        'network.language_model.model.layers.0.mlp.up_proj.lora_A.default.weight': ('lora', True),
        'network.language_model.lm_head.weight': ('language_model', True),
        'network.mlp1.1.bias': ('projector', True),
        'network.vision_model.embeddings.cls_token': ('vision_model', True),
        'network.text_hidden_fcs.0.weight': ('text_hidden_fcs', False),
        'network.grounding_encoder.mask_decoder.conv_s0.weight': ('decoder', False),
        'network.grounding_encoder.vision_encoder.backbone.pos_embed': ('image_encoder', False),
    }
    layout = FlatLayout.from_params([(name, torch.zeros(1, requires_grad=True)) for name in expected],
                                    groups_of_loops([MaskLoop(), CaptionLoop()]), TWO)
    shared = [(group, layout.reached_by[group] == (0, 1)) for group in layout.groups]
    assert shared == list(expected.values())
    assert {layout.reached_by[group] for group, is_shared in shared if not is_shared} == {(0, )}


def test_an_error_in_the_groups_is_said_in_words():
    model = TwoHeads()
    with pytest.raises(ValueError, match="'text.weight' fits no parameter group"):
        FlatLayout.from_params(model.named_parameters(), {k: v for k, v in GROUPS.items() if k != 'text'}, TWO)
    with pytest.raises(ValueError, match=r"'trunk' has loops=\(3,\), but there is no loop 'loop3' \(loop1, loop2\)"):
        groups_of_loops([MaskLoop(), CaptionLoop()], GROUPS | dict(trunk=dict(pattern='trunk', loops=(3, ))))
    with pytest.raises(ValueError, match="no loop reaches 'text.weight' of parameter group 'text'"):
        FlatLayout.from_params(model.named_parameters(), GROUPS | dict(text=dict(pattern='text', loops=())), TWO)
    stray = MaskLoop()
    stray.reaches = ('lora', 'decoders')
    with pytest.raises(ValueError, match="'loop1' reaches the parameter group 'decoders', which there is not"):
        groups_of_loops([stray])
    with pytest.raises(ValueError, match='nothing to train'):
        FlatLayout.from_params(model.requires_grad_(False).named_parameters(), GROUPS, TWO)


def test_without_a_process_group_the_mean_is_the_buffer():
    buffer = torch.tensor([1.0, 2.0])
    assert all_reduce_mean_(buffer) is buffer and buffer.tolist() == [1, 2]


def _rank(rank: int, port: int, folder: str, batches: torch.Tensor):
    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    model = TwoHeads()
    layout = FlatLayout.from_params(model.named_parameters(), GROUPS, TWO)
    g1, g2 = (all_reduce_mean_(buffer) for buffer in local_gradients(model, layout, batches[rank]))
    combined, stats = GradientSurgery(max_grad_norm=0.01).combine([g1, g2], layout)
    torch.save((combined, stats.scalars()), f'{folder}/{rank}.pt')
    dist.destroy_process_group()


def test_two_ranks_equal_one_process_on_all_rows(tmp_path):
    batches = torch.randn(2, 2, 4, 3, generator=torch.Generator().manual_seed(1))  # rank, micro-batch, row, feature
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    mp.spawn(_rank, args=(port, str(tmp_path), batches), nprocs=2)
    results = [torch.load(tmp_path / f'{rank}.pt', weights_only=True) for rank in (0, 1)]

    model = TwoHeads()
    layout = FlatLayout.from_params(model.named_parameters(), GROUPS, TWO)
    g1, g2 = local_gradients(model, layout, batches.flatten(0, 1))
    expected, stats = GradientSurgery(max_grad_norm=0.01).combine([g1, g2], layout)

    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    torch.testing.assert_close(results[0][0], expected, rtol=1e-5, atol=1e-8)
    assert results[0][1] == pytest.approx(stats.scalars(), rel=1e-5)
    # What surgery before the average would give is another vector: the comparison above can fail.
    per_rank = []
    for rank in (0, 1):
        pair = local_gradients(model, layout, batches[rank])
        per_rank.append(GradientSurgery(max_grad_norm=0.01).combine(pair, layout)[0])
    assert (torch.stack(per_rank).mean(0) - expected).norm() > 1e-3 * expected.norm()


def test_groups_say_which_loops_reach_them_or_the_loops_do():
    loops = [MaskLoop(), CaptionLoop(), SupervisedLoop()]
    reached = {name: group['loops'] for name, group in groups_of_loops(loops).items()}
    assert reached['lora'] == reached['projector'] == ('loop1', 'loop2', 'supervised')
    assert reached['decoder'] == reached['text_hidden_fcs'] == ('loop1', 'supervised')
    with_mask = groups_of_loops([MaskLoop(), CaptionLoop(mask_weight=0.5)])
    assert with_mask['decoder']['loops'] == ('loop1', 'loop2')
    # What a config states counts, by name or by number.
    stated = groups_of_loops(loops, dict(all=dict(pattern='', loops=(1, 'supervised'))))
    assert stated['all']['loops'] == ('loop1', 'supervised')


def test_loops_that_join_share_a_gradient():
    layout = FlatLayout.from_params(TwoHeads().named_parameters(), GROUPS, [['loop1', 'loop2']])
    assert set(layout.reached_by.values()) == {(0, )}
    assert (layout.first_reached('loop1'), layout.first_reached('loop2')) == (0, 0)
    groups = GROUPS | dict(trunk=dict(pattern='trunk', loops=['loop1']))
    layout = FlatLayout.from_params(TwoHeads().named_parameters(), groups, TWO)
    assert (layout.first_reached('loop1'), layout.first_reached('loop2')) == (0, 30)
