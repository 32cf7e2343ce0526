"""The network's own lines against slow and plain versions of them; whole parts are in test_golden.py."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from llava_sam2.portable.configuration import Sa2VAConfig
from llava_sam2.portable.network import Sa2VANetwork, binary_masks, pixel_shuffle
from llava_sam2.portable.sequences import IGNORE, Row, pad_rows


@pytest.fixture(scope='module')
def network(sizes):
    """With every parameter drawn, also those that begin as zeros or ones."""
    network = Sa2VANetwork(Sa2VAConfig(**sizes)).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data.normal_(std=0.3, generator=generator)
    return network


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -- images ---------------------------------------------------------------------------------------------------------


def test_pixel_shuffle_by_its_index_formula():
    features = torch.arange(2 * 36 * 5.0).view(2, 36, 5)
    shuffled = pixel_shuffle(features)
    assert shuffled.shape == (2, 9, 20)
    for image in range(2):
        for i in range(3):
            for j in range(3):
                for p in range(2):
                    for q in range(2):
                        patch = features[image, (2 * i + p) * 6 + 2 * j + q]
                        assert torch.equal(shuffled[image, 3 * i + j, (2 * p + q) * 5 : (2 * p + q + 1) * 5], patch)


def test_image_tokens_leave_out_the_class_token(network, monkeypatch):
    """8 x 8 patches in reading order, the class token before them."""
    states = torch.cat([torch.full((1, 1, 1), -1.0), torch.arange(64.0).view(1, 64, 1)], dim=1)
    seen = []
    monkeypatch.setattr(network.vision_model, 'forward',
                        lambda pixel_values: seen.append(pixel_values) or SimpleNamespace(last_hidden_state=states))
    tokens = network.encode_vision(pixels := noise(1, 3, 112, 112))
    assert torch.equal(seen[0], pixels)  # normalised by the data pipeline, and not once more
    assert tokens.shape == (1, 16, 4)
    assert tokens[0, 0].tolist() == [0, 1, 8, 9] and tokens[0, 1].tolist() == [2, 3, 10, 11]
    assert tokens[0, 4].tolist() == [16, 17, 24, 25]


def test_sam2_reads_imagenet_normalised_pixels(network, monkeypatch):
    maps = [noise(2, 32, 32, 32), noise(2, 32, 16, 16), noise(2, 32, 8, 8)]
    seen = []
    monkeypatch.setattr(network.grounding_encoder.vision_encoder, 'forward',
                        lambda pixels: seen.append(pixels) or SimpleNamespace(fpn_hidden_states=maps))
    levels = torch.arange(6).view(2, 3, 1, 1).expand(2, 3, 128, 128) * 51
    found = network.encode_grounding(levels.to(torch.uint8))
    assert all(one is other for one, other in zip(found, maps)) and len(found) == 3
    for image, values in enumerate([(0, 51, 102), (153, 204, 255)]):
        for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
            expected = torch.full((128, 128), (values[channel] / 255 - mean) / std)
            torch.testing.assert_close(seen[0][image, channel], expected, rtol=0, atol=1e-6)


# -- text -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize('side', ['right', 'left'])
def test_embeddings_slot_by_slot(network, side):
    """Of three images, tiles and regions included, and of two soft captions, each row's own stand in its slots."""
    image_id, pad, n = 600, 7, 16
    features = noise(3, n, 32, seed=1)
    regions = torch.zeros(2, n, dtype=torch.bool)
    regions[0, [3, 9]] = True
    regions[1, [14]] = True
    soft1, soft2 = noise(2, 32, seed=2), noise(3, 32, seed=3)

    def row(ids, **options):
        return Row(ids, [IGNORE] * len(ids), **options)

    rows = [
        row([1, *[image_id] * n, 2, *[pad] * 2, 3], image=2, soft=soft1, slot=n + 2),
        row([*[image_id] * n, 4, *[image_id] * 3, 5], image=0, region=regions),
        row([6, 7, 8], image=()),
        row([*[image_id] * (2 * n + 1), *[pad] * 3, 9], image=(2, 1), region=regions[1], soft=soft2, slot=2 * n + 1),
    ]
    expected = [
        [1, *features[2], 2, *soft1, 3],
        [*features[0], 4, features[0, 3], features[0, 9], features[0, 14], 5],
        [6, 7, 8],
        [*features[2], *features[1], features[1, 14], *soft2, 9],
    ]
    batch = pad_rows(rows, pad, image_id, n, side=side)
    embeds = network.embed(batch, features)
    matrix = network.language_model.model.embed_tokens.weight
    for index, (start, row) in enumerate(zip(batch.starts, expected)):
        for place, what in enumerate(row, start=start):
            assert torch.equal(embeds[index, place], matrix[what] if isinstance(what, int) else what), (index, place)


@torch.no_grad()
def test_logits_are_the_heads_and_embeddings_the_embeddings(network):
    states = noise(2, 3, 32)
    torch.testing.assert_close(network.logits(states), states @ network.language_model.lm_head.weight.T)
    assert network.token_embeddings() is network.language_model.model.embed_tokens.weight
    assert not torch.equal(network.token_embeddings(), network.language_model.lm_head.weight)


@torch.no_grad()
def test_hidden_states_are_those_after_the_final_norm(network):
    batch = pad_rows([Row([1, 2, 3], [IGNORE] * 3, ())], 0, 600, 16)
    given, norm = [], network.language_model.model.norm
    handle = norm.register_forward_hook(lambda module, args, out: given.append((args, out)))
    states = network.hidden_states(batch, noise(0, 16, 32))
    handle.remove()
    [((before,), after)] = given
    assert torch.equal(states, after)
    scale = norm.weight / (before.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(after, before * scale)


def with_rope(network, **settings):
    """The same weights under other settings of RoPE."""
    fields = network.config.llm_config.to_dict() | settings
    other = Sa2VANetwork(Sa2VAConfig(network.config.vision_config, fields, network.config.grounding_config)).eval()
    other.load_state_dict(network.state_dict())
    return other


@torch.no_grad()
def test_dynamic_rope_is_that_of_its_formula_beyond_the_limit_and_none_below(network):
    """NTK scaling: base * (factor * length / limit - (factor - 1)) ** (dim / (dim - 2)), of a whole batch."""
    limit, length, factor, dim = 24, 40, 2.0, 8
    dynamic = with_rope(network, max_position_embeddings=limit, rope_scaling=dict(type='dynamic', factor=factor))
    base = 10_000.0 * (factor * length / limit - (factor - 1)) ** (dim / (dim - 2))
    stretched = with_rope(network, rope_theta=base)

    def states(of, *lengths, side='right'):
        rows = [Row(list(range(1, 1 + n)), [IGNORE] * n, ()) for n in lengths]
        batch = pad_rows(rows, 0, 600, 16, side=side)
        return of.hidden_states(batch, noise(0, 16, 32))

    for side in ('right', 'left'):  # positions do not count pads, so the limit is that of the rows
        torch.testing.assert_close(states(dynamic, length, 9, side=side), states(stretched, length, 9, side=side))
        assert torch.equal(states(dynamic, limit - 1, 9, side=side), states(network, limit - 1, 9, side=side))
    assert not torch.allclose(states(dynamic, length), states(network, length), atol=1e-2)


# -- masks ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(network, monkeypatch):
    """What the mask decoder is asked by two images with two objects each; mask k of object n of image i is 100i+10n+k.

    The highest predicted IoU is that of masks 1, 2, 0, 2; the lowest that of 0, 1, 2, 0.
    """
    calls = []
    masks = torch.tensor([[[[100.0 * i + 10 * n + k] for k in range(3)] for n in range(2)] for i in range(2)])
    iou = torch.tensor([[[0.1, 0.9, 0.3], [0.4, 0.2, 0.6]], [[0.8, 0.5, 0.3], [0.2, 0.6, 0.7]]])

    def forward(**options):
        calls.append(options)
        return masks[..., None].expand(2, 2, 3, 32, 32), iou, None, None

    monkeypatch.setattr(network.grounding_encoder.mask_decoder, 'forward', forward)
    return calls


MAPS = [noise(2, 32, 32, 32, seed=4), noise(2, 32, 16, 16, seed=5), noise(2, 32, 8, 8, seed=6)]
SEG = noise(2, 2, 32, seed=7)


@torch.no_grad()
@pytest.mark.parametrize('selection, expected', [
    ('predicted_iou', [[1, 12], [100, 112]]), ('single', [[0, 10], [100, 110]]),
])
def test_choice_of_the_mask(network, asked, monkeypatch, selection, expected):
    monkeypatch.setattr(network.config, 'mask_selection', selection)
    masks = network.decode_masks(MAPS, SEG)
    assert masks.shape == (2, 2, 32, 32)
    assert masks[:, :, 5, 9].tolist() == expected
    assert asked[0]['multimask_output'] is True


@torch.no_grad()
def test_what_the_decoder_reads(network, asked):
    sam = network.grounding_encoder
    network.decode_masks(MAPS, SEG)
    [given] = asked
    not_a_point = sam.prompt_encoder.not_a_point_embed.weight[0]
    no_mask = sam.prompt_encoder.no_mask_embed.weight[0]
    for image in range(2):
        for index in range(2):
            sparse = given['sparse_prompt_embeddings'][image, index]
            assert torch.equal(sparse, torch.stack([not_a_point, not_a_point, SEG[image, index]]))
        for y, x in ((0, 0), (3, 7), (6, 2)):
            memory = sam.no_memory_embedding.flatten()
            assert torch.equal(given['image_embeddings'][image, :, y, x], MAPS[2][image, :, y, x] + memory)
            assert torch.equal(given['dense_prompt_embeddings'][image, :, y, x], no_mask)
    assert not_a_point.abs().min() > 0 and sam.no_memory_embedding.abs().min() > 0
    fine, middle = given['high_resolution_features']
    for found, map_, name in ((fine, MAPS[0], 'conv_s0'), (middle, MAPS[1], 'conv_s1')):
        convolution = getattr(sam.mask_decoder, name)
        weight = convolution.weight[:, :, 0, 0]
        expected = torch.einsum('oc,ichw->iohw', weight, map_) + convolution.bias.view(1, -1, 1, 1)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_positions_in_the_image_are_sines_of_random_projections(network, asked):
    network.decode_masks(MAPS, SEG)
    gaussian = network.grounding_encoder.shared_image_embedding.positional_embedding
    for y, x in ((0, 0), (3, 7), (6, 2)):
        centre = 2 * torch.tensor([(x + 0.5) / 8, (y + 0.5) / 8]) - 1
        angle = 2 * torch.pi * (centre @ gaussian)
        for image in range(2):
            found = asked[0]['image_positional_embeddings'][image, :, y, x]
            torch.testing.assert_close(found, torch.cat([angle.sin(), angle.cos()]), rtol=0, atol=1e-5)


def test_binary_masks_are_resized_through_the_sizes_in_turn():
    logits = noise(2, 3, 8, 8)
    through = F.interpolate(F.interpolate(logits, size=(31, 31), mode='bilinear'), size=(13, 21), mode='bilinear') > 0
    masks = binary_masks(logits, (31, 31), (13, 21))
    assert masks.dtype == torch.bool and torch.equal(masks, through)
    assert not torch.equal(masks, binary_masks(logits, (13, 21)))
    assert binary_masks(torch.tensor([[[[0.0, 1e-3, -1e-3]]]]))[0, 0, 0].tolist() == [False, True, False]


def test_binary_masks_interpolate_between_pixel_centres():
    logits = torch.tensor([[[[-3.0, 1.0]]]])  # zero at 3/4 of the way between the two centres
    assert binary_masks(logits, (1, 16))[0, 0, 0].tolist() == [place + 0.5 > 10 for place in range(16)]


def test_padding_on_the_right_needs_no_mask(build_base, make_batch):
    """States, loss and gradients of ragged rows against a pass with mask and positions."""
    base = build_base().train()
    batch = make_batch(dict(key=1), dict(key=2))
    images = base.encode(batch['pixel_values'], batch['g_pixel_values'])
    rows = []
    for number, words in enumerate((1, 9, 4, 20)):
        region = torch.zeros(16, dtype=torch.bool)
        region[: 1 + 4 * number] = True
        rows.append(base.text_rows.description(number % 2, region, 'red ' * words))
    padded = base.pad(rows)
    parameters = [p for name, p in base.trainables().items() if '.lora_' in name or '.mlp1.' in name]
    results = []
    for masked in (False, True):
        features = base.project(images)
        states = base.network.language_model.model(
            inputs_embeds=base.network.embed(padded, features), attention_mask=padded.attention_mask,
            position_ids=padded.position_ids, use_cache=False).last_hidden_state if masked else \
            base.network.hidden_states(padded, features)
        loss = base.token_loss(padded, states)
        results.append((states[padded.attention_mask.bool()], loss, torch.autograd.grad(loss.sum(), parameters)))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
