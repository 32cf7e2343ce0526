"""The model without memory has what the built one has."""

import pytest
from mmengine.config import Config
from torch._subclasses.fake_tensor import FakeTensor

from dual_loop.estimate.kept import parameters_by_part
from dual_loop.estimate.shadow import base_settings, shadow_model


@pytest.mark.parametrize('base', [{}, dict(lora=None, trainable=('language_model', 'mlp1')),
                                  dict(train_token_rows=True), dict(dtype='bfloat16')])
def test_parameters_are_those_of_the_built_model(pair, base):
    real, shadow = pair(**base)

    def table(model):
        return {name: (parameter.shape, parameter.dtype, parameter.requires_grad)
                for name, parameter in model.named_parameters()}

    assert table(shadow) == table(real)
    assert {name: (b.shape, b.dtype) for name, b in shadow.named_buffers()} == \
        {name: (b.shape, b.dtype) for name, b in real.named_buffers()}
    assert all(isinstance(parameter.data, FakeTensor) for parameter in shadow.parameters())
    parts = parameters_by_part(real)
    assert parameters_by_part(shadow) == parts
    assert sum(map(sum, parts.values())) == sum(parameter.numel() for parameter in real.base.parameters())
    assert sum(trained for trained, _ in parts.values()) == sum(p.numel() for p in real.trainables().values())


def test_sizes_come_from_the_folder_of_weights():
    shadow, notes = shadow_model(Config(dict(model=dict(
        base=dict(tokenizer='assets/tiny', pretrained='assets/tiny', lora=dict(r=16, alpha=32))))))
    assert notes == [] and shadow.base.config.llm_config.hidden_size == 192


def test_without_the_folder_they_are_those_stated(network_sizes, tmp_path):
    stated, notes = base_settings(dict(tokenizer=str(tmp_path), pretrained=str(tmp_path / 'none'),
                                       network=network_sizes))
    assert stated['network'] == network_sizes and len(notes) == 2
    with pytest.raises(FileNotFoundError, match=r'model\.base\.network'):
        base_settings(dict(tokenizer='assets/tiny', pretrained=str(tmp_path / 'none')))


def test_a_config_without_loops_is_refused():
    with pytest.raises(ValueError, match='only runs with loops'):
        shadow_model(Config(dict(model=dict(type='VideoLLaVASAMModel'))))
