"""What is taken of a checkpoint, and what is refused."""

import pytest
import torch

from dual_loop.checkpoints.files import Trained
from dual_loop.checkpoints.trained_model import check_base, select
from llava_sam2.weights.loading import CheckpointError


@pytest.fixture(scope='module')
def model(build_loops):
    model = build_loops()
    model.base.random_weights, model.base.fingerprint = False, 'aaa'
    return model


@pytest.fixture
def trained(model):
    state = {name: torch.full_like(value, 1.0) for name, value in model.state_dict().items()}
    ema = {name: torch.full_like(value, 2.0) for name, value in model.trainables().items()}
    return Trained(7, state, ema, 3, dict(weights='aaa'))


@pytest.mark.parametrize('parts, inside', [
    ('full', ('lora_', 'mlp1', 'text_hidden_fcs', 'mask_decoder')),
    ('lora', ('lora_',)),
    ('sam2', ('text_hidden_fcs', 'mask_decoder')),
    ('lora+sam2', ('lora_', 'text_hidden_fcs', 'mask_decoder')),
    ('proj', ('mlp1',)),
])
def test_parts_of_a_checkpoint(model, trained, parts, inside):
    chosen = select(trained, model, parts, False, 'x.pth')
    assert set(chosen) == {name for name in trained.trainables if any(part in name for part in inside)}
    assert len(chosen) >= 4 and all(value.eq(1).all() for value in chosen.values())


def test_averages_in_place_of_weights(model, trained):
    assert all(value.eq(2).all() for value in select(trained, model, 'full', True, 'x.pth').values())
    trained.ema = {}
    with pytest.raises(CheckpointError, match='x.pth holds no averages'):
        select(trained, model, 'full', True, 'x.pth')


def test_other_tensors_and_shapes_are_named(model, trained):
    name = next(iter(trained.trainables))
    value = trained.trainables.pop(name)
    with pytest.raises(CheckpointError, match=f'does not fit the config: 1 tensors .* first {name}'):
        select(trained, model, 'full', False, 'x.pth')
    trained.trainables[name] = value[None]
    with pytest.raises(CheckpointError, match=f'does not fit the config: {name} is'):
        select(trained, model, 'full', False, 'x.pth')


@pytest.mark.parametrize('ema', [False, True])
def test_masks_that_version_0_1_0_trained_are_taken_over_and_told_of(model, trained, ema, monkeypatch):
    said = []
    monkeypatch.setattr('dual_loop.checkpoints.trained_model.print_log', lambda message, *_: said.append(message))
    state = trained.ema if ema else trained.trainables
    assert not said and len(select(trained, model, 'full', ema, 'x.pth')) == len(state)
    old = {f'base.{name}': torch.full_like(value, 3.0) for name, value in model.base.unused_masks().items()}
    state.update(old)
    chosen = select(trained, model, 'full', ema, 'x.pth')
    assert chosen.keys() == state.keys() and all(torch.equal(chosen[name], value) for name, value in old.items())
    assert len(said) == 1 and said[0].startswith('x.pth holds 18 tensors of masks that mask_selection never takes')
    state.popitem()
    with pytest.raises(CheckpointError, match='does not fit the config: 1 tensors'):
        select(trained, model, 'full', ema, 'x.pth')


def test_weights_must_be_those_that_were_trained_on(model, trained):
    check_base(trained, model.base, 'x.pth')
    trained.run['weights'] = 'bbb'
    with pytest.raises(CheckpointError, match='from other base weights .sha256 bbb.*sha256 aaa.*--base'):
        check_base(trained, model.base, 'x.pth')
    trained.run = {}
    with pytest.warns(UserWarning, match='x.pth does not say which weights'):
        check_base(trained, model.base, 'x.pth')
