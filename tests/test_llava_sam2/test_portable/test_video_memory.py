"""SAM 2's video memory: names and shapes, against the released 4B model and the golden weights."""

import json

import pytest
from safetensors import safe_open

from llava_sam2.portable.key_maps import is_carried, training_to_released
from llava_sam2.portable.video_memory import expected_video_memory, video_memory_shapes


def test_shapes_of_the_4b_model(shared_dir):
    file = shared_dir / 'reference' / 'sa2va_4b_hf_keys.json'
    if not file.is_file():
        pytest.skip(f'no {file.name} in ../shared/reference')
    released = {name: tuple(shape) for name, shape in json.loads(file.read_text()).items()}
    assert video_memory_shapes() == {name: shape for name, shape in released.items() if is_carried(name)}
    assert expected_video_memory(released, 256) == video_memory_shapes()


def test_shapes_of_a_small_model(shared_dir):
    file = shared_dir / 'golden' / 'tiny' / 'weights.safetensors'
    if not file.is_file():
        pytest.skip('no ../shared/golden/tiny')
    with safe_open(file, 'pt') as handle:
        names = list(handle.keys())
        shapes = {training_to_released(name): tuple(handle.get_slice(name).get_shape()) for name in names}
    expected = expected_video_memory(shapes, 64)
    assert expected == {name: shape for name, shape in shapes.items() if is_carried(name)} and len(expected) == 77


def test_all_or_none():
    whole = video_memory_shapes()
    assert expected_video_memory({'mlp1.0.weight': (3,)}, 256) == {}
    for name in whole:  # one of them asks for all
        assert expected_video_memory({name: (1,)}, 256) == whole
    # A published width has four layers whatever the file says, another width those of the file.
    less = {name: shape for name, shape in whole.items() if 'memory_attention.layers.3.' not in name}
    assert expected_video_memory(less, 256) == whole
    assert expected_video_memory(less, 32).keys() == less.keys()


def test_a_huge_number_in_a_name_makes_no_huge_table():
    name = 'grounding_encoder.sam2_model.memory_attention.layers.999999999.norm1.weight'
    assert len(expected_video_memory({name: (32,)}, 32)) < 200
