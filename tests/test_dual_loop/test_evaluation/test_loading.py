import importlib.util
import shutil
import sys

import pytest
import torch

from dual_loop.datasets import RefCOCODataset
from dual_loop.evaluation.loading import load_model
from dual_loop.evaluation.referring import evaluate_referring


@pytest.fixture(scope='module')
def export(checkout, trained, tmp_path_factory):
    """The export command on the checkpoint, with some of its options; gives the folder."""
    spec = importlib.util.spec_from_file_location('convert_command', checkout / 'tools/convert_ckpt_to_hf.py')
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)

    def call(*options: str):
        folder = tmp_path_factory.mktemp('exported') / 'model'
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, 'argv', ['convert', *map(str, trained), str(folder), *options])
            assert command.main() == 0
        return folder

    return call


def tensors(loaded) -> dict[str, torch.Tensor]:
    return dict(loaded.network.named_parameters()) | dict(loaded.network.named_buffers())


@pytest.mark.parametrize(('options', 'choice'), [
    ((), dict()),
    (('--ema', '--dtype', 'bf16'), dict(ema=True, dtype='bf16')),
    (('--parts', 'lora'), dict(parts='lora')),
])
def test_a_checkpoint_is_the_folder_that_it_is_exported_to(export, trained, options, choice):
    live = load_model(*trained, **choice)
    folder = load_model(export(*options))
    expected, found = tensors(folder), tensors(live)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert tensor.dtype == found[name].dtype and torch.equal(tensor, found[name]), name
    assert live.description['fingerprint'] == folder.description['fingerprint']
    assert live.description['dtype'] == folder.description['dtype'] == choice.get('dtype', 'fp32')
    assert not live.network.training and live.network.config.to_dict().keys() <= folder.network.config.to_dict().keys()


def test_both_give_the_same_results_to_the_last_digit(export, trained, demo_root):
    dataset = RefCOCODataset(demo_root, split='val')
    results = [evaluate_referring(model, dataset, max_new_tokens=12, max_images=2, max_texts_per_image=3, num_workers=0)
               for model in (load_model(*trained), load_model(export()))]
    assert 0 < results[0]['metrics']['ciou'] < 1
    assert results[0]['metrics'] == results[1]['metrics'] and results[0]['samples'] == results[1]['samples']


def test_both_give_the_same_results_on_real_pictures(export, trained, real_samples):
    dataset = RefCOCODataset(real_samples / 'ref_seg', split='train', exclude_image_ids=())
    results = [evaluate_referring(model, dataset, max_new_tokens=12, num_workers=0)
               for model in (load_model(*trained), load_model(export()))]
    assert len(results[0]['samples']) == len(dataset)
    assert results[0]['metrics'] == results[1]['metrics'] and results[0]['samples'] == results[1]['samples']


def test_what_is_evaluated_is_told_apart(trained, checkout):
    described = {key: load_model(*arguments, **options).description for key, arguments, options in (
        ('live', trained, {}), ('ema', trained, dict(ema=True)), ('base', trained[:1], {}),
        ('lora', trained, dict(parts='lora')), ('bf16', trained, dict(dtype='bf16')),
        ('tiny', (checkout / 'assets/tiny', ), {}))}
    prints = {key: each['fingerprint'] for key, each in described.items()}
    assert prints.pop('base') == prints['tiny'], 'without a checkpoint, the weights that training starts from'
    assert len(set(prints.values())) == 5
    assert {key: each['name'] for key, each in described.items()} == dict(
        live='config_iter_7', ema='config_iter_7_ema', base='config_base', lora='config_iter_7_lora',
        bf16='config_iter_7', tiny='tiny')
    assert (described['ema']['checkpoint'], described['ema']['step'], described['ema']['averages']) == (
        'iter_7.pth', 7, True)
    assert described['base']['checkpoint'] is None and described['bf16']['dtype'] == 'bf16'


@pytest.mark.parametrize(('arguments', 'options', 'message'), [
    (('nowhere/at_all', ), {}, 'nowhere/at_all does not exist'),
    (('{tiny}', '{checkpoint}'), {}, 'weights of its own'),
    (('{tiny}', ), dict(ema=True), 'weights of its own'),
    (('{config}', ), dict(ema=True), 'Give a checkpoint'),
    (('{config}', 'iter_9.pth'), {}, 'no checkpoint iter_9.pth'),
    (('{tiny}/config.json', ), {}, 'neither a folder nor a config'),
    (('{random}', ), {}, 'random weights'),
])
def test_what_cannot_be_loaded_is_named(trained, checkout, tmp_path, network_sizes, arguments, options, message):
    (tmp_path / 'random.py').write_text(
        'from llava_sam2.model import VideoLLaVASAMModel\n'
        f"model = dict(type=VideoLLaVASAMModel, tokenizer='assets/tiny', random_weights=True, network={network_sizes})")
    places = dict(tiny=checkout / 'assets/tiny', config=trained[0], checkpoint=trained[1],
                  random=tmp_path / 'random.py')
    with pytest.raises((OSError, ValueError), match=message):
        load_model(*[argument.format(**places) for argument in arguments], **options)


def test_a_tokenizer_without_seg_is_refused(checkout, tmp_path):
    folder = tmp_path / 'model'
    shutil.copytree(checkout / 'assets/tiny', folder)
    for name in ('tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json'):
        (folder / name).write_text((folder / name).read_text().replace('[SEG]', '[SAG]'))
    with pytest.raises(ValueError, match=r'\[SEG\] as one token'):
        load_model(folder)
