"""SAM 2's video memory: tensors that single frames do not use and that are carried through for export."""

import re
from collections.abc import Mapping, Sequence

from .key_maps import SAM2_PREFIX, is_carried

#: Width of every published SAM 2, whose memory has four layers and a feed-forward of 2 048.
_PUBLISHED = dict(width=256, num_layers=4, mlp_dim=2048)
#: Channels of a memory, and of the mask on its way into it.
_MEMORY_DIM, _MASK_CHANNELS = 64, (1, 4, 16, 64, 256)
#: Frames that are remembered.
_FRAMES = 7


def video_memory_shapes(width: int = 256, num_layers: int = 4, mlp_dim: int = 2048) -> dict[str, tuple[int, ...]]:
    """Released name to shape of every tensor of the video memory; 157 of them in the published models.

    Args:
        width: of SAM 2's decoder, ``d_model``.
        num_layers: of the memory attention.
        mlp_dim: of its feed-forward.
    """
    d, m = width, _MEMORY_DIM
    shapes = dict(
        maskmem_tpos_enc=(_FRAMES, 1, 1, m), no_mem_pos_enc=(1, 1, d), no_obj_ptr=(1, d),
        **_affine('mask_downsample', 1, 1, 4, 4),
    )
    for layer in range(num_layers):
        place = f'memory_attention.layers.{layer}'
        for attention, source in (('self_attn', d), ('cross_attn_image', m)):
            for projection, inputs in (('q_proj', d), ('k_proj', source), ('v_proj', source), ('out_proj', d)):
                shapes |= _affine(f'{place}.{attention}.{projection}', d, inputs)
        shapes |= _affine(f'{place}.linear1', mlp_dim, d) | _affine(f'{place}.linear2', d, mlp_dim)
        for norm in ('norm1', 'norm2', 'norm3'):
            shapes |= _affine(f'{place}.{norm}', d)
    shapes |= _affine('memory_attention.norm', d)
    for index, (inputs, outputs) in enumerate(zip(_MASK_CHANNELS, _MASK_CHANNELS[1:])):
        place = 'memory_encoder.mask_downsampler.encoder'
        shapes |= _affine(f'{place}.{3 * index}', outputs, inputs, 3, 3) | _affine(f'{place}.{3 * index + 1}', outputs)
    shapes |= _affine('memory_encoder.mask_downsampler.encoder.12', d, _MASK_CHANNELS[-1], 1, 1)
    shapes |= _affine('memory_encoder.pix_feat_proj', d, d, 1, 1)
    for layer in range(2):
        place = f'memory_encoder.fuser.layers.{layer}'
        shapes |= {f'{place}.g_weight': (d,)} | _affine(f'{place}.dwconv', d, 1, 7, 7) | _affine(f'{place}.norm', d)
        shapes |= _affine(f'{place}.pwconv1', 4 * d, d) | _affine(f'{place}.pwconv2', d, 4 * d)
    if d != m:  # else SAM 2 leaves the projection out
        shapes |= _affine('memory_encoder.out_proj', m, d, 1, 1)
    for layer in range(3):
        shapes |= _affine(f'obj_ptr_proj.layers.{layer}', d, d)
    return {SAM2_PREFIX + name: shape for name, shape in shapes.items()}


def expected_video_memory(found: Mapping[str, Sequence[int]], width: int) -> dict[str, tuple[int, ...]]:
    """Shapes that a checkpoint's video memory must have: nothing, or all of it.

    Args:
        found: shapes of all tensors by released name. A model that is not of the published width may have another
            number of layers and another feed-forward, which are then taken from here.
        width: of SAM 2's decoder.
    """
    names = [name for name in found if is_carried(name)]
    if not names:
        return {}
    if width == _PUBLISHED['width']:
        return video_memory_shapes(**_PUBLISHED)
    layers = [int(match[1]) for name in names if (match := re.search(r'memory_attention\.layers\.(\d+)\.', name))]
    feed_forward = found.get(SAM2_PREFIX + 'memory_attention.layers.0.linear1.bias', (_PUBLISHED['mlp_dim'],))
    num_layers = min(max(layers, default=0) + 1, len(names))  # a number in a name is no reason to list millions
    return video_memory_shapes(width, num_layers, feed_forward[0])


def _affine(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f'{name}.weight': shape, f'{name}.bias': shape[:1]}
