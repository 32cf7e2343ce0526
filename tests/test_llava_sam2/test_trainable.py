"""What is trained gets a gradient, whatever the weights and the data; what never can is frozen."""

import pytest
import torch

from llava_sam2.trainable import TRAINABLE_PARTS, check_parts, has_unused_masks, rarely_reached


def reached(model, mask: int) -> set[str]:
    """Names of the decoder's tensors that one mask of the decoder depends on, from a pass of their own."""
    sam, decoder = model.network.grounding_encoder, model.network.grounding_encoder.mask_decoder
    decoder.requires_grad_(True)
    width, side = sam.config.mask_decoder_config.hidden_size, 8
    torch.manual_seed(0)
    coarse = (1, width, side, side)
    masks = [decoder(
        image_embeddings=torch.randn(coarse), image_positional_embeddings=torch.randn(coarse),
        sparse_prompt_embeddings=torch.randn(1, 1, 3, width), dense_prompt_embeddings=torch.randn(coarse),
        multimask_output=several,
        high_resolution_features=[torch.randn(1, width // 8, 4 * side, 4 * side),
                                  torch.randn(1, width // 4, 2 * side, 2 * side)])[0] for several in (False, True)]
    every = torch.cat(masks, 2)  # the first alone, and the other three
    decoder.zero_grad()
    every[:, :, mask].square().sum().backward()
    return {name for name, p in decoder.named_parameters() if p.grad is not None and p.grad.abs().sum() > 1e-6}


@pytest.mark.parametrize(('selection', 'taken'), [('single', (1, )), ('predicted_iou', (1, 2, 3))])
def test_trained_is_what_a_mask_that_may_be_taken_depends_on(build_base, network_sizes, selection, taken):
    model = build_base(network=network_sizes | dict(mask_selection=selection))
    prefix = 'network.grounding_encoder.mask_decoder.'
    trained = {name.removeprefix(prefix) for name in model.trainables() if name.startswith(prefix)}
    assert len(model.unused_masks()) == 6 * (4 - len(taken))
    assert all(p is dict(model.named_parameters())[name] for name, p in model.unused_masks().items())
    depends = set().union(*(reached(model, mask) for mask in taken)) | {'conv_s0.weight', 'conv_s0.bias',
                                                                        'conv_s1.weight', 'conv_s1.bias'}
    assert {name for name in trained if not name.endswith('k_proj.bias')} == {
        name for name in depends if not name.endswith('k_proj.bias')}


def test_runs_of_before_train_them_all(build_base):
    model = build_base(train_unused_masks=True)
    assert not model.unused_masks() and has_unused_masks([*model.trainables()])
    assert len(model.trainables()) == len(build_base().trainables()) + 18
    assert not has_unused_masks([*build_base().trainables()])


def test_an_unknown_part_is_refused_by_name():
    check_parts(TRAINABLE_PARTS)
    with pytest.raises(ValueError, match="model.trainable names \\['decoder'\\], known parts are .*'mask_decoder'"):
        check_parts(['decoder'])


def test_who_may_go_without_a_gradient():
    assert rarely_reached('base.network.grounding_encoder.mask_decoder.output_hypernetworks_mlps.2.proj_in.weight')
    assert rarely_reached('x.transformer.layers.0.self_attn.k_proj.bias')
    assert not any(map(rarely_reached, ('x.q_proj.bias', 'x.k_proj.weight', 'x.mask_tokens.weight', 'lm_head.weight')))
