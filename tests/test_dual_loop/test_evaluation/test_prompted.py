"""What SAM 2 makes of boxes and points, against its parts put together by hand."""

import pytest
import torch

from dual_loop.evaluation.predictor import Picture
from dual_loop.evaluation.prompted import boxed_region, decoder_answer, pointed_region
from llava_sam2.portable.configuration import Sa2VAConfig
from llava_sam2.portable.image_processing import grounding_pixels, normalise
from llava_sam2.portable.network import Sa2VANetwork


@pytest.fixture(scope='module')
def network(network_sizes):
    torch.manual_seed(0)
    return Sa2VANetwork(Sa2VAConfig(**dict(network_sizes, mask_selection='predicted_iou'))).eval()


@pytest.fixture(scope='module')
def picture():
    image = torch.randint(256, (3, 90, 150), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Picture(torch.zeros(1, 3, 112, 112), grounding_pixels(image, 128), (90, 150))


def by_hand(network, picture, corners, labels):
    """Points in pixels of the 128 x 128 input: Fourier features, the embeddings of their labels, the decoder."""
    sam = network.grounding_encoder
    prompts, decoder = sam.prompt_encoder, sam.mask_decoder
    fine, middle, coarse = sam.vision_encoder(normalise(picture.grounding[None])).fpn_hidden_states
    places = 2 * (torch.tensor(corners) + 0.5) / 128 - 1
    waves = 2 * torch.pi * places @ prompts.shared_embedding.positional_embedding
    sparse = torch.cat([waves.sin(), waves.cos()], dim=-1) + prompts.point_embed.weight[labels]
    sparse = torch.cat([sparse, prompts.not_a_point_embed.weight])
    masks, scores, _, _ = decoder(
        image_embeddings=coarse + sam.no_memory_embedding.view(1, -1, 1, 1),
        image_positional_embeddings=sam.get_image_wide_positional_embeddings(),
        sparse_prompt_embeddings=sparse[None, None],
        dense_prompt_embeddings=prompts.no_mask_embed.weight[..., None, None].expand(1, -1, *coarse.shape[-2:]),
        multimask_output=True, high_resolution_features=[decoder.conv_s0(fine), decoder.conv_s1(middle)])
    best = masks[:, :, scores[0, 0].argmax()]
    large = torch.nn.functional.interpolate(best, size=(128, 128), mode='bilinear')
    return torch.nn.functional.interpolate(large, size=(90, 150), mode='bilinear')[0, 0] > 0


@torch.no_grad()
def test_a_box_and_a_point_are_asked_as_sam_2_is(network, picture):
    x, y = 128 / 150, 128 / 90
    box = decoder_answer(network, picture, box=(30, 18, 120, 72))
    assert torch.equal(box, by_hand(network, picture, [[30 * x, 18 * y], [120 * x, 72 * y]], [2, 3]))
    point = decoder_answer(network, picture, point=(60, 45))
    assert torch.equal(point, by_hand(network, picture, [[60 * x, 45 * y]], [1]))
    assert box.any() and point.any() and not torch.equal(box, point)
    region = boxed_region(network, picture, (30, 18, 90, 54))
    assert torch.equal(region.mask, box) and region.rule == "the mask decoder's answer"
    assert torch.equal(pointed_region(network, picture, (60, 45)).mask, point)


@torch.no_grad()
def test_an_answer_without_a_pixel_is_replaced(network, picture, monkeypatch):
    monkeypatch.setattr('dual_loop.evaluation.prompted.decoder_answer', lambda *_, **__: torch.zeros(90, 150).bool())
    region = boxed_region(network, picture, (30, 18, 90, 54))
    assert region.mask.sum() == 90 * 54 and 'since the mask decoder found nothing' in region.rule
