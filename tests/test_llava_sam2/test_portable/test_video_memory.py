"""SAM 2's video memory: names and shapes, against the released 4B model and official modules of a smaller width."""

from llava_sam2.portable.key_maps import is_carried
from llava_sam2.portable.video_memory import expected_video_memory, video_memory_shapes


def test_shapes_of_the_4b_model(released_4b):
    assert video_memory_shapes() == {name: shape for name, shape in released_4b.items() if is_carried(name)}
    assert expected_video_memory(released_4b, 256) == video_memory_shapes()


def test_shapes_of_a_small_model(memory_64):
    assert expected_video_memory(memory_64, 64) == memory_64 and len(memory_64) == 77


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
