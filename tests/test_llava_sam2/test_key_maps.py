"""Names of tensors, against the list of the released 4B model."""

import pytest
from llava_sam2.key_maps import is_carried, released_table, released_to_training, training_to_released


def test_names_and_shapes_of_the_4b_model(released_4b, network_4b):
    state = network_4b.state_dict()
    shapes = {}
    for name, parts in released_table({own: tensor.shape for own, tensor in state.items()}).items():
        covered = sorted({(part.rows.start, part.rows.stop) for part in parts})
        assert [start for start, _ in covered] == [0] + [stop for _, stop in covered[:-1]], f'{name} has gaps'
        assert all(part.own_rows.stop - part.own_rows.start == part.rows.stop - part.rows.start for part in parts)
        shapes[name] = (covered[-1][1], *state[parts[0].own].shape[1:])
    assert shapes == {name: shape for name, shape in released_4b.items() if not is_carried(name)}


def test_training_names_and_back(released_4b):
    for name in released_4b:
        assert training_to_released(released_to_training(name)) == name
    assert len({released_to_training(name) for name in released_4b}) == len(released_4b)


_SAM2 = 'grounding_encoder.sam2_model.'


@pytest.mark.parametrize('training, released', [
    ('mllm.model.vision_model.embeddings.class_embedding', 'vision_model.embeddings.class_embedding'),
    ('mllm.model.mlp1.0.weight', 'mlp1.0.weight'),
    ('mllm.model.language_model.base_model.model.lm_head.weight', 'language_model.lm_head.weight'),
    ('mllm.model.language_model.base_model.model.model.layers.0.mlp.up_proj.base_layer.weight',
     'language_model.model.layers.0.mlp.up_proj.weight'),
    ('mllm.model.language_model.model.layers.0.mlp.up_proj.weight', 'language_model.model.layers.0.mlp.up_proj.weight'),
    (_SAM2 + 'memory_encoder.fuser.layers.1.gamma', _SAM2 + 'memory_encoder.fuser.layers.1.g_weight'),
    ('text_hidden_fcs.0.bias', 'text_hidden_fcs.0.bias'),
])
def test_official_training_names(training, released):
    assert training_to_released(training) == released
    assert 'base_model' in training or released_to_training(released) == training


def test_lora_stays_out_of_the_table_and_base_layers_in_it():
    own = 'language_model.model.layers.0.mlp.up_proj.{}.weight'
    table = released_table({own.format('base_layer'): (8, 4), own.format('lora_A.default'): (2, 4)})
    assert list(table) == ['language_model.model.layers.0.mlp.up_proj.weight']
