"""The encoder without the idle attention gives what transformers' own gives, to the bit."""

import torch
from transformers import Sam2Model
from transformers.models.sam2.modeling_sam2 import Sam2MultiScaleAttention

from llava_sam2.portable.configuration import sam2_config
from llava_sam2.portable.idle_attention import LeanAttention, leave_out_idle_attention


def test_output_and_gradient_are_equal_to_the_bit(network_sizes):
    torch.manual_seed(0)
    sam = Sam2Model(sam2_config(**network_sizes['grounding_config'])).train()
    images = torch.randn(2, 3, 128, 128)

    def run():
        maps = sam.vision_encoder(images).fpn_hidden_states
        loss = sum(each.square().mean() for each in maps)
        return [*maps, *torch.autograd.grad(loss, list(sam.vision_encoder.parameters()), allow_unused=True)]

    names, before = list(sam.state_dict()), run()
    blocks = [module for module in sam.modules() if isinstance(module, Sam2MultiScaleAttention)]
    leave_out_idle_attention(sam)
    assert len(blocks) == 5 and all(type(block) is LeanAttention for block in blocks)
    assert any(block.query_stride for block in blocks) and list(sam.state_dict()) == names
    for own, lean in zip(before, run()):
        assert (own is None) == (lean is None) and (own is None or torch.equal(own, lean))
