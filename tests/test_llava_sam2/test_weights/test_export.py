"""The exported folder, loaded in a process without this project, against the live model."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from dual_loop.demo.rendering import draw_scene
from llava_sam2.paths import CannotWrite
from llava_sam2.portable import prompts
from llava_sam2.portable.configuration import Sa2VAConfig
from llava_sam2.portable.generation import greedy_decode
from llava_sam2.portable.image_processing import grounding_pixels, vision_pixels
from llava_sam2.portable.key_maps import is_carried
from llava_sam2.portable.network import Sa2VANetwork, binary_masks
from llava_sam2.portable.regions import region_grid
from llava_sam2.portable.rows import caption_row, segmentation_row
from llava_sam2.portable.video_memory import video_memory_shapes
from llava_sam2.weights.export import release_of, write_release

QUESTION, ANSWER = prompts.EVALUATION_QUESTION, prompts.SEGMENTATION_ANSWERS[0]
PHRASES = ('the plain square', 'the square with stripes')


@pytest.fixture(scope='module')
def random_model(build_base):
    """With LoRA that does something, and with video memory."""
    model = build_base().eval()
    model.network.carried = {
        name: torch.randn(shape) for name, shape in video_memory_shapes(width=32, num_layers=1, mlp_dim=8).items()
    }
    return model


@pytest.fixture(scope='module')
def trained_model(build_base):
    return build_base(network=None, pretrained='assets/tiny', random_weights=False, lora=None).eval()


@pytest.fixture(scope='module')
def scene():
    _, image, masks, _ = draw_scene(np.random.default_rng(1))
    return image, masks


@pytest.fixture(scope='module')
def frames(scene):
    """Seven, the object wandering out of the image."""
    return [np.roll(scene[0], 20 * shift, axis=1) for shift in range(7)]


@pytest.fixture(scope='module')
def folders(random_model, trained_model, tmp_path_factory):
    root = tmp_path_factory.mktemp('exports')
    write_release(random_model.network, root / 'random-1.0', random_model.vocabulary.tokenizer, max_shard_size=300_000,
                  card='# Card\n')
    write_release(trained_model.network, root / 'trained', trained_model.vocabulary.tokenizer)
    write_release(trained_model.network, root / 'bf16', trained_model.vocabulary.tokenizer, dtype=torch.bfloat16)
    with open(root / 'trained' / 'regions.py', 'a') as file:
        file.write("MARK = 'trained'\n")
    shutil.copytree(root / 'trained', root / 'renamed')
    tensors = load_file(root / 'renamed' / 'model.safetensors')
    tensors['mlp1.1.wait'] = tensors.pop('mlp1.1.weight')
    save_file(tensors, root / 'renamed' / 'model.safetensors')
    return root


@pytest.fixture(scope='module')
def answers(folders, random_model, trained_model, scene, frames, tmp_path_factory):
    """What the other process says of every case; one process, since importing transformers takes seconds."""
    work = tmp_path_factory.mktemp('isolated')
    image = Image.fromarray(scene[0])
    pixels = torch.from_numpy(scene[0]).permute(2, 0, 1)
    caption = '<image>' + prompts.CAPTION_QUESTION
    find = '<image>\nPlease segment {} in this image.'
    regions = [torch.from_numpy(scene[1][:1])]
    grids = {name: region_grid(regions[0][0], model.config.region_grid)
             for name, model in (('random', random_model), ('trained', trained_model))}
    shared = dict(
        row=('a red dog', QUESTION, ANSWER),
        pixel_values=vision_pixels(pixels, 112)[None], g_pixel_values=grounding_pixels(pixels, 128)[None])
    cases = dict(
        random=dict(
            folder=folders / 'random-1.0', **shared, region=grids['random'],
            questions=[dict(image=image, text=caption, mask_prompts=regions, max_new_tokens=8)],
        ),
        trained=dict(
            folder=folders / 'trained', **shared, region=grids['trained'],
            questions=[
                *(dict(image=image, text=find.format(phrase)) for phrase in PHRASES),
                dict(image=image, text=caption, mask_prompts=regions),
                dict(video=[Image.fromarray(frame) for frame in frames], text=find.format(PHRASES[0])),
                dict(text='Please segment nothing.', max_new_tokens=4),
            ],
        ),
        bf16=dict(
            folder=folders / 'bf16', loader='AutoModelForCausalLM', save=str(work / 'saved'),
            options=dict(torch_dtype='auto', device_map='cpu', low_cpu_mem_usage=True),
            questions=[dict(image=image, text=find.format(phrase)) for phrase in PHRASES],
        ),
        renamed=dict(folder=folders / 'renamed'),
    )
    for case in cases.values():
        case['folder'] = str(case['folder'])
    torch.save(list(cases.values()), work / 'request.pt')
    script = Path(__file__).with_name('isolated_process.py')
    paths = json.dumps([sysconfig.get_paths()['purelib'], sysconfig.get_paths()['platlib']])
    environment = dict(PATH=os.environ['PATH'], HOME=str(work), HF_HOME=str(work), HF_HUB_OFFLINE='1',
                       OMP_NUM_THREADS='1')
    done = subprocess.run(
        [sys.executable, '-I', '-S', str(script), str(work / 'request.pt'), str(work / 'answer.pt'), paths],
        cwd=work, env=environment, capture_output=True, text=True, timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(cases, torch.load(work / 'answer.pt', weights_only=False))) | dict(saved=work / 'saved')


def encode(model, image: np.ndarray):
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    config = model.config
    return model.encode(vision_pixels(pixels, config.image_size)[None],
                        grounding_pixels(pixels, config.grounding_size)[None])


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize('name', ['random', 'trained'])
def test_logits_masks_and_token_ids_are_those_of_the_live_model(answers, name, request, scene):
    model = request.getfixturevalue(f'{name}_model')
    images = encode(model, scene[0])
    row = segmentation_row(model.vocabulary, model.config.num_image_tokens, 0, 'a red dog', QUESTION, ANSWER)
    batch, states = model.read_rows([row], images)
    close(answers[name]['logits'], model.logits(states))
    close(answers[name]['masks'][0], model.segment(batch.rows, states, images))
    region = region_grid(torch.from_numpy(scene[1][0]), model.config.region_grid)
    prompt = caption_row(model.vocabulary, model.config.num_image_tokens, 0, region, [])
    (decoded,) = greedy_decode(
        model.network, model.pad([prompt], 'left'), model.project(images), model.vocabulary, 32)
    assert answers[name]['ids'] == decoded.ids and len(decoded.ids) > 3
    for parameter in (p for name, p in model.named_parameters() if '.lora_B.' in name):
        assert name == 'trained' or parameter.any()


@torch.no_grad()
@pytest.mark.parametrize('name, index', [('random', 0), ('trained', 2)])
def test_a_region_is_described_with_the_same_tokens(answers, name, index, request, scene):
    model = request.getfixturevalue(f'{name}_model')
    region = region_grid(torch.from_numpy(scene[1][0]), model.config.region_grid)
    row = caption_row(model.vocabulary, model.config.num_image_tokens, 0, region, [])
    (decoded,) = greedy_decode(model.network, model.pad([row], 'left'), model.project(encode(model, scene[0])),
                               model.vocabulary, 8 if name == 'random' else 64)
    answer = answers[name]['answers'][index]
    expected = model.vocabulary.decode(decoded.said).split('<|end|>')[0].strip()
    assert answer == dict(prediction=expected, prediction_masks=[]) and len(decoded.ids) > 3
    assert decoded.ended == (name == 'trained')


@torch.no_grad()
@pytest.mark.parametrize('index', range(len(PHRASES)))
def test_masks_are_those_of_the_training_path(answers, trained_model, scene, index):
    """The training path reads the answer whole, supervised, in one pass."""
    image, _ = scene
    answer = answers['trained']['answers'][index]
    row = segmentation_row(trained_model.vocabulary, trained_model.config.num_image_tokens, 0, PHRASES[index], QUESTION,
                           answer['prediction'])
    images = encode(trained_model, image)
    batch, states = trained_model.read_rows([row], images)
    logits = trained_model.segment(batch.rows, states, images)[None]
    (mask,) = answer['prediction_masks']
    assert mask.dtype == bool and mask.shape == (1, *image.shape[:2])
    expected = binary_masks(logits, (128, 128), image.shape[:2])[0]
    assert (mask != expected.numpy()).mean() < 1e-4  # one pixel at the border of zero


def iou(first, second):
    return (first & second).sum() / (first | second).sum()


def test_the_object_is_found(answers, scene):
    for index, target in ((0, 1), (1, 0)):
        answer = answers['trained']['answers'][index]
        assert answer['prediction'].count('[SEG]') == 1
        assert iou(answer['prediction_masks'][0][0], scene[1][target]) > 0.85


@torch.no_grad()
def test_five_frames_are_read_and_every_frame_is_decoded_alone(answers, trained_model, frames):
    answer = answers['trained']['answers'][3]
    vocabulary, network = trained_model.vocabulary, trained_model.network
    block = '\n'.join(['<img>' + '<IMG_CONTEXT>' * trained_model.config.num_image_tokens + '</img>'] * 5)
    prompt = f'<|user|>\n{block}\nPlease segment {PHRASES[0]} in this image.<|end|>\n<|assistant|>\n'
    images = [encode(trained_model, frame) for frame in frames]
    features = torch.cat([trained_model.project(each) for each in images[:5]])
    ids = torch.tensor([vocabulary.encode(prompt + answer['prediction'])])
    embeds = network.token_embeddings()[ids]
    embeds[ids == vocabulary.image_id] = features.flatten(0, 1)
    states = network.language_model.model(inputs_embeds=embeds).last_hidden_state
    seg = network.text_hidden_fcs(states[ids == vocabulary.seg_id])
    assert len(answer['prediction_masks']) == len(seg) > 0
    for number, masks in enumerate(answer['prediction_masks']):
        assert masks.shape == (7, *frames[0].shape[:2])
        for frame, each, mask in zip(frames, images, masks):
            logits = network.decode_masks(each.maps, seg[None, number : number + 1])
            expected = binary_masks(logits, (128, 128), frame.shape[:2])[0, 0]
            assert (mask != expected.numpy()).mean() < 1e-3


@pytest.mark.parametrize('name', ['random', 'trained'])
def test_static_decoding_is_there_and_says_what_plain_decoding_says(answers, name):
    """In fp32 the same words, and masks but for pixels at the border of zero."""
    assert answers[name]['static'] and answers['bf16']['static']
    for static, plain in zip(answers[name]['answers'], answers[name]['plain'], strict=True):
        assert static['prediction'] == plain['prediction']
        for one, other in zip(static['prediction_masks'], plain['prediction_masks'], strict=True):
            assert one.shape == other.shape and (one != other).mean() < 1e-4


def test_text_alone_is_answered_without_masks(answers):
    answer = answers['trained']['answers'][4]
    assert isinstance(answer['prediction'], str) and answer['prediction_masks'] == []


def test_bf16(answers):
    dtypes = answers['bf16']['dtypes']
    assert {dtype for name, dtype in dtypes.items() if name.endswith(('weight', 'bias'))} == {torch.bfloat16}
    fp32 = {name for name, dtype in dtypes.items() if dtype == torch.float32}
    assert {name.rpartition('.')[2] for name in fp32} == {'inv_freq', 'positional_embedding'}
    for exact, rounded in zip(answers['trained']['answers'], answers['bf16']['answers']):
        assert rounded['prediction'] == exact['prediction']
        assert iou(rounded['prediction_masks'][0], exact['prediction_masks'][0]) > 0.95


def test_saved_there_it_is_the_same_folder(answers, folders):
    names = {path.name for path in (folders / 'bf16').iterdir()}
    saved = {path.name for path in answers['saved'].iterdir()}
    assert {name for name in names - saved if 'token' not in name} == set() and saved <= names
    for name in saved - {'config.json', 'generation_config.json'}:
        assert (answers['saved'] / name).read_bytes() == (folders / 'bf16' / name).read_bytes(), name


def test_each_folder_runs_its_own_files(answers):
    assert answers['trained']['mark'] == 'trained' and answers['random']['mark'] is None
    assert len({answers[name]['package'] for name in ('random', 'trained', 'bf16')}) == 3


def test_a_renamed_tensor_is_an_error(answers):
    error = answers['renamed']['error']
    assert error.startswith('CheckpointError') and '1 tensors are missing: mlp1.1.weight' in error


def test_video_memory_is_carried(answers, random_model):
    carried = answers['random']['carried']
    assert carried.keys() == random_model.network.carried.keys()
    assert all(torch.equal(carried[name], tensor) for name, tensor in random_model.network.carried.items())


def test_the_folder(folders):
    folder = folders / 'random-1.0'
    config = json.loads((folder / 'config.json').read_text())
    assert config['architectures'] == ['Sa2VAChatModel'] and config['dtype'] == 'float32'
    for reference in config['auto_map'].values():
        assert (folder / (reference.split('.')[0] + '.py')).is_file()
    index = json.loads((folder / 'model.safetensors.index.json').read_text())
    assert len(set(index['weight_map'].values())) > 2
    for shard in set(index['weight_map'].values()):
        tensors = load_file(folder / shard)
        assert sum(tensor.nbytes for tensor in tensors.values()) <= 300_000 or len(tensors) == 1
    assert (folder / 'README.md').read_text() == '# Card\n'
    assert sorted(path.name for path in folders.iterdir()) == ['bf16', 'random-1.0', 'renamed', 'trained']


def test_a_fault_leaves_nothing(random_model, tmp_path, monkeypatch):
    tokenizer = random_model.vocabulary.tokenizer
    with pytest.raises(OSError, match='full'), monkeypatch.context() as patch:
        patch.setattr(type(tokenizer), 'save_pretrained', lambda *args: (_ for _ in ()).throw(OSError('disk full')))
        write_release(random_model.network, tmp_path / 'out', tokenizer)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / 'out').mkdir()
    with pytest.raises(FileExistsError, match='remove it'):
        write_release(random_model.network, tmp_path / 'out', tokenizer)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(random_model, tmp_path, small_files_only):
    with pytest.raises(CannotWrite, match=f'^the model cannot be written to {tmp_path}/out: File too large. Make room'):
        write_release(random_model.network, tmp_path / 'out', random_model.vocabulary.tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_what_would_not_load_is_not_written(random_model, tmp_path, network_sizes):
    network = Sa2VANetwork(Sa2VAConfig(**network_sizes))
    network.mlp1.append(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match='the network .* are not expected: mlp1.4'):
        write_release(network, tmp_path / 'out', random_model.vocabulary.tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_token_rows_that_are_trained_alone_are_merged(build_base):
    model = build_base(train_token_rows=True)
    rows = [p for name, p in model.named_parameters() if '.trainable_tokens_delta.' in name]
    assert rows
    for parameter in rows:
        torch.nn.init.normal_(parameter.data)
    plan = release_of(model.network)
    seg = model.vocabulary.seg_id
    embedding = plan['language_model.model.embed_tokens.weight'].tensor()
    with torch.no_grad():
        expected = model.network.language_model.get_input_embeddings()(torch.tensor([seg, 5]))
    assert torch.equal(embedding[[seg, 5]], expected)


def test_names_and_shapes_of_the_4b_model(released_4b, network_4b):
    network_4b.carried = {
        name: torch.empty(shape, device='meta') for name, shape in released_4b.items() if is_carried(name)
    }
    plan = release_of(network_4b, torch.bfloat16)
    assert {name: tuple(planned.shape) for name, planned in plan.items()} == released_4b
    assert sum(planned.num_bytes for planned in plan.values()) == pytest.approx(2 * 3_941_809_458, rel=0.01)
