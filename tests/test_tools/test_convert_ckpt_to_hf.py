"""Exporting a checkpoint: which tensors change, and what is refused before anything is written."""

import importlib.util
import json
import shutil
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from safetensors.torch import load_file

from dual_loop.checkpoints.files import Trained, write_plain_parts

CONFIG = """
from dual_loop.models import DualLoopModel
from llava_sam2.model import VideoLLaVASAMModel

model = dict(type=DualLoopModel, base=dict(
    type=VideoLLaVASAMModel, tokenizer='{base}', pretrained='{base}', lora=dict(r=2, alpha=4)))
"""
DECODER = 'grounding_encoder.sam2_model.sam_mask_decoder.'
#: Released names that each choice may change.
CHANGED = {
    'lora': ('language_model.model.layers.', ),
    'sam2': (DECODER, 'text_hidden_fcs.'),
    'lora+sam2': ('language_model.model.layers.', DECODER, 'text_hidden_fcs.'),
    'proj': ('mlp1.', ),
    'full': ('language_model.model.layers.', DECODER, 'text_hidden_fcs.', 'mlp1.'),
}


@pytest.fixture(scope='module')
def main(checkout):
    """The command in this process; gives its status."""
    spec = importlib.util.spec_from_file_location('convert_command', checkout / 'tools/convert_ckpt_to_hf.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(*arguments) -> int:
        before, sys.argv = sys.argv, ['convert_ckpt_to_hf.py', *map(str, arguments)]
        try:
            return module.main()
        finally:
            sys.argv = before

    return call


@pytest.fixture(scope='module')
def trained(checkout, tmp_path_factory):
    """A config, and a checkpoint folder of its model in which every trained tensor has moved; and live model."""
    folder = tmp_path_factory.mktemp('trained')
    (folder / 'config.py').write_text(CONFIG.replace('{base}', str(checkout / 'assets/tiny')))
    model = MODELS.build(Config.fromfile(folder / 'config.py').model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.trainables().values():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
    live = {name: parameter.detach().clone() for name, parameter in model.trainables().items()}
    average = {name: value * 0.5 for name, value in live.items()}
    checkpoint = folder / 'iter_7.pth'
    checkpoint.mkdir()
    write_plain_parts(checkpoint, Trained(7, live, average, 7, dict(weights=model.base.fingerprint)))
    return folder / 'config.py', checkpoint, model


@pytest.fixture(scope='module')
def base_tensors(checkout):
    """In fp32, in which they are trained and exported; they are stored in bf16."""
    return {name: tensor.float() for name, tensor in load_file(checkout / 'assets/tiny/model.safetensors').items()}


@pytest.mark.parametrize('parts', CHANGED)
def test_exactly_the_selected_parts_differ_from_the_base(main, trained, base_tensors, parts, tmp_path, capsys):
    config, checkpoint, _ = trained
    assert main(config, checkpoint, tmp_path / 'out', '--parts', parts) == 0
    exported = load_file(tmp_path / 'out/model.safetensors')
    assert exported.keys() == base_tensors.keys()
    assert all(exported[name].shape == tensor.shape and exported[name].dtype == tensor.dtype
               for name, tensor in base_tensors.items())
    differ = {name for name, tensor in base_tensors.items() if not torch.equal(exported[name], tensor)}
    assert all(name.startswith(CHANGED[parts]) for name in differ)
    for prefix in CHANGED[parts]:
        assert any(name.startswith(prefix) for name in differ), prefix
    never_trained = ('.iou_prediction_head.', '.pred_obj_score_head.',
                     *(f'.output_hypernetworks_mlps.{number}.' for number in (0, 2, 3)))
    expected = {name for name in base_tensors if name.startswith(CHANGED[parts]) and not any(
        part in name for part in never_trained) and ('_proj.weight' in name or 'language_model' not in name)}
    assert differ == expected
    assert 'tensors changed, by ' in capsys.readouterr().out


def test_merges_lora_in_fp32_onto_the_base(main, trained, base_tensors, tmp_path):
    config, checkpoint, model = trained
    assert main(config, checkpoint, tmp_path / 'out') == 0
    exported = load_file(tmp_path / 'out/model.safetensors')
    values = dict(model.trainables())
    prefix = 'base.network.language_model.model.layers.0.self_attn.q_proj'
    a, b = (values[f'{prefix}.lora_{side}.default.weight'].detach() for side in 'AB')
    name = 'language_model.model.layers.0.self_attn.q_proj.weight'
    torch.testing.assert_close(exported[name], base_tensors[name] + 2.0 * b @ a, rtol=1e-6, atol=1e-7)
    assert torch.equal(exported['mlp1.1.weight'], values['base.network.mlp1.1.weight'])


def test_averages_and_types(main, trained, tmp_path):
    config, checkpoint, model = trained
    assert main(config, checkpoint, tmp_path / 'out', '--ema', '--dtype', 'bf16') == 0
    exported = load_file(tmp_path / 'out/model.safetensors')
    value = dict(model.trainables())['base.network.mlp1.1.weight'].detach()
    assert torch.equal(exported['mlp1.1.weight'], (value * 0.5).bfloat16())
    assert json.loads((tmp_path / 'out/config.json').read_text())['dtype'] == 'bfloat16'


def test_the_card_says_what_it_is(main, trained, tmp_path):
    config, checkpoint, model = trained
    (tmp_path / 'results.json').write_text(json.dumps(dict(metrics={'ciou': 0.5})))
    assert main(config, checkpoint, tmp_path / 'out', '--parts', 'sam2', '--metrics', tmp_path / 'results.json') == 0
    card = (tmp_path / 'out/README.md').read_text()
    assert model.base.fingerprint in card and 'sam2' in card and 'iter_7.pth, after 7 steps' in card
    assert '| ciou | 0.5 |' in card and 'decoded in every frame independently' in card


def other_base(folder, checkout):
    """The base with one number changed."""
    from safetensors.torch import save_file

    shutil.copytree(checkout / 'assets/tiny', folder)
    tensors = load_file(folder / 'model.safetensors')
    tensors['mlp1.1.bias'][0] += 1
    save_file(tensors, folder / 'model.safetensors', metadata={'format': 'pt'})
    return folder


def renamed_tensor(checkpoint):
    from safetensors.torch import save_file

    tensors = load_file(checkpoint / 'trainables.safetensors')
    name = 'base.network.mlp1.1.weight'
    tensors[name + 's'] = tensors.pop(name)
    save_file(tensors, checkpoint / 'trainables.safetensors')


def test_another_base_is_refused(main, trained, checkout, tmp_path, capsys):
    config, checkpoint, model = trained
    assert main(config, checkpoint, tmp_path / 'out', '--base', other_base(tmp_path / 'base', checkout)) == 1
    error = capsys.readouterr().err
    assert model.base.fingerprint in error and 'other base weights' in error and '--base' in error
    assert not (tmp_path / 'out').exists()


def test_files_of_another_kind_are_named(main, trained, tmp_path, capsys):
    config, checkpoint, _ = trained
    note = tmp_path / 'README.md'
    note.write_text('no JSON')
    assert main(config, checkpoint, tmp_path / 'out', '--metrics', note) == 1
    assert f'{note} holds no figures of an evaluation: give the JSON that' in capsys.readouterr().err
    assert main(note, tmp_path / 'none', tmp_path / 'out') == 1  # the config first
    assert f'{note} is no config: ' in capsys.readouterr().err and not (tmp_path / 'out').exists()


def test_the_base_gives_the_generation_settings(main, trained, checkout, tmp_path):
    config, checkpoint, _ = trained
    base = tmp_path / 'base'
    shutil.copytree(checkout / 'assets/tiny', base)
    (base / 'generation_config.json').write_text(json.dumps(dict(max_new_tokens=77)))
    assert main(config, checkpoint, tmp_path / 'out', '--base', base) == 0
    assert json.loads((tmp_path / 'out/generation_config.json').read_text())['max_new_tokens'] == 77


def test_a_tokenizer_without_seg_is_refused(main, trained, checkout, tmp_path, capsys):
    config, checkpoint, _ = trained
    base = tmp_path / 'base'
    shutil.copytree(checkout / 'assets/tiny', base)
    for name in ('tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json'):
        if (base / name).is_file():
            (base / name).write_text((base / name).read_text().replace('[SEG]', '[SAG]'))
    assert main(config, checkpoint, tmp_path / 'out', '--base', base) == 1
    assert '[SEG]' in capsys.readouterr().err and not (tmp_path / 'out').exists()


@pytest.mark.parametrize(('damage', 'named'), [
    (renamed_tensor, 'trainables.safetensors is damaged'),
    (lambda folder: (folder / 'trainables.safetensors').write_bytes(b'cut'), 'trainables.safetensors'),
    (lambda folder: (folder / 'state.json').unlink(), 'state.json'),
    (lambda folder: shutil.rmtree(folder), 'iter_7.pth'),
])
def test_a_damaged_checkpoint_is_refused(main, trained, tmp_path, capsys, damage, named):
    config, checkpoint, _ = trained
    copy = tmp_path / 'iter_7.pth'
    shutil.copytree(checkpoint, copy)
    damage(copy)
    assert main(config, copy, tmp_path / 'out') == 1
    assert named in capsys.readouterr().err and not (tmp_path / 'out').exists()


def test_a_pickle_that_carries_a_call_is_refused(main, trained, tmp_path, capsys):
    class Call:
        def __reduce__(self):
            return (tmp_path.joinpath('executed').write_text, ('yes', ))

    torch.save(dict(state_dict={}, meta={}, call=Call()), tmp_path / 'iter_1.pth')
    assert main(trained[0], tmp_path / 'iter_1.pth', tmp_path / 'out') == 1
    error = capsys.readouterr().err
    assert 'iter_1.pth' in error and not (tmp_path / 'executed').exists() and not (tmp_path / 'out').exists()


def test_nothing_is_overwritten(main, trained, tmp_path, capsys):
    (tmp_path / 'out').mkdir()
    assert main(*trained[:2], tmp_path / 'out') == 1 and 'out exists' in capsys.readouterr().err
