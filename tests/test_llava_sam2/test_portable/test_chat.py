"""The model that users load, inside the project: arguments, tiles, dialogue, loading and saving."""

import copy
import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig
from transformers.dynamic_module_utils import get_relative_imports

from llava_sam2.portable.chat import Sa2VAChatModel, modelling_files
from llava_sam2.portable.configuration import Sa2VAConfig, config_of_folder
from llava_sam2.portable.generation import Decoded
from llava_sam2.portable.pickled import CheckpointError
from llava_sam2.portable.regions import region_grid
from llava_sam2.portable.sequences import pad_rows
from llava_sam2.portable.templates import PHI3_CHAT

FIND = '<image>\nPlease segment the dog in this image.'


@pytest.fixture(scope='module')
def model(network_sizes):
    """Reads up to four tiles and a thumbnail."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Sa2VAChatModel(Sa2VAConfig(**network_sizes, max_num_tiles=4)).eval()


@pytest.fixture(scope='module')
def image():
    noise = np.random.default_rng(0).integers(0, 256, (10, 20, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((240, 120), Image.Resampling.BICUBIC)


@pytest.fixture
def asked(model, monkeypatch):
    """What the language model is asked, as rows and features; it answers ``asked.says``."""

    class Asked(list):
        says = ''

    asked = Asked()

    def decode(network, batch, features, vocabulary, max_new_tokens, **options):
        ids = vocabulary.encode(asked.says)
        asked.append((batch.rows[0], features, vocabulary.decode(batch.rows[0].input_ids), max_new_tokens))
        return [Decoded(ids, True, ids + vocabulary.encode('<|end|>'))]

    monkeypatch.setattr('llava_sam2.portable.answers.greedy_decode', decode)
    monkeypatch.setattr(model, 'decoder', None)
    return asked


@pytest.fixture(scope='module')
def tokenizer(vocabulary):
    return vocabulary.tokenizer


def test_an_image_of_two_tiles_and_its_thumbnail_with_regions_of_the_thumbnail(model, image, tokenizer, asked):
    masks = torch.zeros(2, 120, 240)
    masks[0, 70:90, 130:150], masks[1, :, 5] = 1, 1
    model.predict_forward(image=image, text='<image>What is region2?', mask_prompts=[masks], tokenizer=tokenizer)
    row, features, text, _ = asked[0]
    grids = region_grid(masks, 4).flatten(1)
    counts = grids.sum(dim=1).tolist()
    assert text == PHI3_CHAT.ask(
        '<img>' + '<IMG_CONTEXT>' * 48 + '</img>\nThere are 2 part regions in the picture: '
        'region1<vp>' + '<IMG_CONTEXT>' * counts[0] + '</vp>, region2<vp>' + '<IMG_CONTEXT>' * counts[1]
        + '</vp>.\nWhat is region2?'
    )
    assert features.shape == (3, 16, 32)
    batch = pad_rows([row], 0, tokenizer.convert_tokens_to_ids('<IMG_CONTEXT>'), 16)
    embeds = model.embed(batch, features)[0][batch.visual_places]
    thumbnail = features[2]
    expected = torch.cat([features.flatten(0, 1), thumbnail[grids[0]], thumbnail[grids[1]]])
    assert torch.equal(embeds, expected)


def test_masks_as_separate_arrays_of_any_size_are_the_same_regions(model, image, tokenizer, asked):
    masks = np.zeros((2, 120, 240), dtype=bool)
    masks[0, 70:90, 130:150], masks[1, :, 5] = True, True
    for given in ([masks], list(masks), [masks[0], np.kron(masks[1], np.ones((2, 2))).astype(np.uint8)]):
        model.predict_forward(image=image, text='<image>', mask_prompts=given, tokenizer=tokenizer)
    assert torch.equal(asked[0][0].region, asked[1][0].region) and torch.equal(asked[0][0].region, asked[2][0].region)


def test_a_mask_for_each_seg_of_the_answer_the_last_token_too(model, image, tokenizer, asked):
    asked.says = 'Sure, [SEG] and [SEG]'
    answer = model.predict_forward(image=image, text=FIND, tokenizer=tokenizer)
    assert answer['prediction'] == asked.says
    assert [mask.shape for mask in answer['prediction_masks']] == [(1, 120, 240)] * 2
    assert not np.array_equal(*answer['prediction_masks'])
    asked.says = 'Sure, [SEG] and'
    first = model.predict_forward(image=image, text=FIND, tokenizer=tokenizer)
    assert np.array_equal(first['prediction_masks'][0], answer['prediction_masks'][0])  # what follows changes nothing
    asked.says = 'No.'
    assert model.predict_forward(image=image, text=FIND) == dict(prediction='No.', prediction_masks=[])


def test_a_dialogue_goes_on_after_past_text(model, image, tokenizer, asked):
    past = PHI3_CHAT.turn(FIND, 'It is [SEG].')
    asked.says = 'Here: [SEG].'
    answer = model.predict_forward(image=image, text='And the cat?', past_text=past, tokenizer=tokenizer)
    block = '<img>' + '<IMG_CONTEXT>' * 48 + '</img>'
    assert asked[0][2] == (
        f'<|user|>\n{block}\nPlease segment the dog in this image.<|end|>\n<|assistant|>\nIt is [SEG].<|end|>\n'
        '<|user|>\nAnd the cat?<|end|>\n<|assistant|>\n'
    )
    assert len(answer['prediction_masks']) == 1  # that of this answer alone
    model.predict_forward(image=image, text='And the cat?', past_text=past.replace('<image>', block))
    assert asked[1][2] == asked[0][2]
    model.predict_forward(text='<image>Hello', past_text=PHI3_CHAT.turn('Hi', 'Hi'))
    assert asked[2][2] == PHI3_CHAT.turn('Hi', 'Hi') + PHI3_CHAT.ask('Hello') and len(asked[2][1]) == 0


def test_length_of_an_answer(model, image, tokenizer, asked, monkeypatch):
    model.predict_forward(image=image, text=FIND, tokenizer=tokenizer)
    monkeypatch.setattr(model.generation_config, 'max_new_tokens', 7)
    model.predict_forward(image=image, text=FIND)
    model.predict_forward(image=image, text=FIND, max_new_tokens=3)
    assert [one[3] for one in asked] == [2048, 7, 3]


@pytest.mark.parametrize('arguments, message', [
    (dict(image=True, video=True, text=FIND), 'image= or video=, not both'),
    (dict(image=True), 'needs text='),
    (dict(image=True, text='no placeholder'), '<image>; it is there 0 times'),
    (dict(image=True, text=FIND + FIND), 'it is there 2 times'),
    (dict(text='And this?', past_text=FIND), 'past_text speaks of an image'),
    (dict(text=FIND, mask_prompts=[np.ones((1, 4, 4))]), 'regions of an image'),
    (dict(video=True, text=FIND, mask_prompts=[np.ones((1, 4, 4))]), 'regions of an image'),
    (dict(image=True, text=FIND, mask_prompts=[np.stack([np.ones((4, 4)), np.zeros((4, 4))])]), 'region2 of mask_pro'),
    (dict(image=True, text=FIND, mask_prompts=[]), 'region1 of mask_prompts has no pixel'),
    (dict(image=True, text=FIND, mask_prompts=[np.ones(4)]), r'mask_prompts\[0\] must be \(R, H, W\)'),
    (dict(image=True, text=FIND, mask_prompts=['no/mask.png']), r'mask_prompts\[0\] \(no/mask.png\): there is no such'),
    (dict(video=[], text=FIND), 'frames of one size'),
    (dict(video='ragged', text=FIND), 'frames of one size'),
])
def test_arguments_that_contradict_are_refused(model, image, tokenizer, asked, arguments, message):
    given = dict(image=image, video=[image, image])
    arguments = {name: given[name] if value is True else value for name, value in arguments.items()}
    if arguments.get('video') == 'ragged':
        arguments['video'] = [image, image.resize((24, 24))]
    with pytest.raises(ValueError, match=message):
        model.predict_forward(**arguments, tokenizer=tokenizer)


def test_the_first_call_needs_a_tokenizer(network_sizes, image):
    with pytest.raises(ValueError, match='needs tokenizer='):
        Sa2VAChatModel(Sa2VAConfig(**network_sizes)).predict_forward(image=image, text=FIND)


# -- what transformers, PEFT and trainers ask of a model --------------------------------------------------------------


def fresh(sizes, **llm):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Sa2VAChatModel(Sa2VAConfig(**sizes | dict(llm_config=sizes['llm_config'] | llm))).eval()


@pytest.mark.parametrize('tied', [False, True])
def test_embedding_and_head_are_those_of_the_language_model(network_sizes, tied):
    model = fresh(network_sizes, tie_word_embeddings=tied)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert embedding is model.language_model.model.embed_tokens and head is model.language_model.lm_head
    model.tie_weights()  # as transformers does now and then
    assert (head.weight is embedding.weight) == tied
    model.set_input_embeddings(other := torch.nn.Embedding(640, 32))
    assert model.language_model.model.embed_tokens is other
    model.set_output_embeddings(other := torch.nn.Linear(32, 640, bias=False))
    assert model.language_model.lm_head is other


@pytest.mark.parametrize('tied', [False, True])
def test_resized_rows_are_used_saved_and_loaded(network_sizes, image, tokenizer, tmp_path, tied):
    model = fresh(network_sizes, tie_word_embeddings=tied)
    model.predict_forward(image=image, text=FIND, tokenizer=tokenizer, max_new_tokens=1)
    before = model.language_model.model.embed_tokens.weight.detach().clone()
    rows = model.resize_token_embeddings(650, mean_resizing=False)
    assert rows is model.get_input_embeddings() and rows.weight.shape == (650, 32)
    assert model.config.llm_config.vocab_size == 650 and model.language_model.lm_head.weight.shape == (650, 32)
    assert torch.equal(rows.weight[:640], before) and (model.language_model.lm_head.weight is rows.weight) == tied
    model.predict_forward(image=image, text=FIND, max_new_tokens=1, tokenizer=tokenizer)  # its tables are made anew
    model.save_pretrained(tmp_path)
    assert_equal(Sa2VAChatModel.from_pretrained(tmp_path), model)
    model.resize_token_embeddings(300)
    with pytest.raises(ValueError, match='the model has 300 token rows but the tokenizer has 640'):
        model.predict_forward(image=image, text=FIND, tokenizer=tokenizer)


def test_inputs_may_require_gradients(network_sizes):
    model = fresh(network_sizes).requires_grad_(False)
    model.enable_input_require_grads()
    assert model.get_input_embeddings()(torch.tensor([1])).requires_grad
    model.disable_input_require_grads()
    assert not model.get_input_embeddings()(torch.tensor([1])).requires_grad


def test_generation_is_said_in_a_sentence(model):
    assert not model.can_generate()
    with pytest.raises(NotImplementedError, match=r'answers by predict_forward\(.*model.language_model.generate'):
        model.generate(input_ids=torch.tensor([[1]]), max_new_tokens=2)


def test_saving_from_several_processes(network_sizes, tmp_path):
    model = fresh(network_sizes)
    model.save_pretrained(tmp_path / 'none', is_main_process=False)
    assert not (tmp_path / 'none').exists()
    gathered = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path / 'all', is_main_process=True, state_dict=gathered, save_function=torch.save,
                          push_to_hub=False, safe_serialization=True, variant=None)
    loaded = Sa2VAChatModel.from_pretrained(tmp_path / 'all').state_dict()
    assert loaded.keys() == gathered.keys() and all(torch.equal(loaded[name], gathered[name]) for name in loaded)


@pytest.mark.parametrize('tied', [False, True])
def test_a_state_dict_of_another_model_is_refused(network_sizes, tmp_path, tied):
    model = fresh(network_sizes, tie_word_embeddings=tied)
    head = 'language_model.lm_head.weight'
    state = model.state_dict()
    if tied:  # gathered once
        model.save_pretrained(tmp_path / 'once', state_dict={name: state[name] for name in state if name != head})
        assert_equal(Sa2VAChatModel.from_pretrained(tmp_path / 'once'), model)
    for other in (state | dict(more=torch.zeros(1)), state | {'mlp1.0.bias': torch.zeros(1)},
                  {name: tensor for name, tensor in state.items() if name != 'mlp1.0.bias'}):
        with pytest.raises(ValueError, match='state_dict is of another model: (more|mlp1.0.bias) is missing'):
            model.save_pretrained(tmp_path / 'out', state_dict=other)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('options, message', [
    (dict(push_to_hub=True), "no option 'push_to_hub': only push_to_hub=False"),
    (dict(safe_serialization=False), "no option 'safe_serialization': only safe_serialization=True"),
    (dict(variant='fp16'), "no option 'variant': leave it out"),
])
def test_options_of_saving_that_it_does_not_have_are_refused(network_sizes, tmp_path, options, message):
    with pytest.raises(TypeError, match=message):
        fresh(network_sizes).save_pretrained(tmp_path / 'out', **options)
    assert not (tmp_path / 'out').exists()


# -- loading and saving ---------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp('saved')
    model.save_pretrained(folder, max_shard_size=200_000)
    return folder


def assert_equal(first, second):
    first, second = ({**dict(m.named_parameters()), **dict(m.named_buffers())} for m in (first, second))
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_save_and_load_is_bit_equal_without_remote_code(model, folder):
    loaded = Sa2VAChatModel.from_pretrained(folder, device_map='cpu')
    assert type(loaded) is Sa2VAChatModel and not loaded.training and loaded.config.max_num_tiles == 4
    assert_equal(loaded, model)  # RoPE's frequencies, which are in no file, included
    loaded.save_pretrained(folder)  # over itself: one file in place of several
    assert sorted(path.name for path in folder.glob('model*')) == ['model.safetensors']
    assert_equal(Sa2VAChatModel.from_pretrained(folder, dtype=torch.float32), model)
    assert {path.name for path in modelling_files()} <= {path.name for path in folder.iterdir()}


def test_options_that_ask_for_nothing(folder):
    Sa2VAChatModel.from_pretrained(folder, quantization_config=None, load_in_8bit=False, attn_implementation='sdpa',
                                   low_cpu_mem_usage=True, use_flash_attn=True, trust_remote_code=True)


def test_types_and_devices(folder):
    assert Sa2VAChatModel.from_pretrained(folder, dtype='auto').dtype == torch.float32
    for options in (dict(dtype=torch.bfloat16), dict(torch_dtype='bfloat16', device_map={'': 'cpu'})):
        assert Sa2VAChatModel.from_pretrained(folder, **options).dtype == torch.bfloat16
    assert Sa2VAChatModel.from_pretrained(folder, device_map=torch.device('cpu')).device.type == 'cpu'


@pytest.mark.parametrize('options, error, message', [
    (dict(dtype='int8'), ValueError, "torch.int8 is no floating-point type"),
    (dict(dtype='bf17'), ValueError, "'bf17' is no floating-point type"),
    (dict(device_map={'mlp1': 'cpu', 'vision_model': 'cpu'}), ValueError, 'on one device'),
    (dict(quantization_config={}), TypeError, "no option 'quantization_config': leave it out"),
    (dict(load_in_4bit=True), TypeError, "no option 'load_in_4bit': only load_in_4bit=False"),
    (dict(attn_implementation='flash_attention_2'), TypeError, "no option 'attn_impl.*only attn_implementation='sdpa'"),
])
def test_options_that_it_does_not_have_are_refused(folder, options, error, message):
    with pytest.raises(error, match=message):
        Sa2VAChatModel.from_pretrained(folder, **options)


@pytest.fixture
def damaged(folder, tmp_path):
    """Change the tensors of a copy of the folder."""

    def make(change):
        model = Sa2VAChatModel.from_pretrained(folder)
        model.save_pretrained(tmp_path)
        tensors = load_file(tmp_path / 'model.safetensors')
        change(tensors)
        save_file(tensors, tmp_path / 'model.safetensors')
        return tmp_path

    return make


QKV = 'vision_model.encoder.layers.0.attn.qkv.weight'


@pytest.mark.parametrize('change, message', [
    (lambda tensors: tensors.pop(QKV), f'1 tensors are missing: {QKV}'),
    (lambda tensors: tensors.update({'mlp1.9.weight': torch.zeros(2)}), '1 tensors are not expected: mlp1.9.weight'),
    (lambda tensors: tensors.update({QKV: tensors[QKV].T.contiguous()}), f'1 tensors have another shape: {QKV}'),
    (lambda tensors: tensors.update({'grounding_encoder.sam2_model.no_obj_ptr': torch.zeros(1, 32)}), 'are missing'),
])
def test_other_tensors_than_expected_are_refused(damaged, change, message):
    with pytest.raises(CheckpointError, match=message):
        Sa2VAChatModel.from_pretrained(damaged(change))


def test_tied_embedding_and_head(network_sizes, tmp_path):
    sizes = copy.deepcopy(network_sizes)
    sizes['llm_config']['tie_word_embeddings'] = True
    tied = Sa2VAChatModel(Sa2VAConfig(**sizes))
    tied.save_pretrained(tmp_path)
    file, head = tmp_path / 'model.safetensors', 'language_model.lm_head.weight'
    tensors = load_file(file)
    assert head not in tensors  # one matrix, written once
    tensors[head] = tensors[head.replace('lm_head', 'model.embed_tokens')].clone()  # as others may write it
    for stored in (tensors, {name: tensor for name, tensor in tensors.items() if name != head}):
        save_file(stored, file)
        model = Sa2VAChatModel.from_pretrained(tmp_path).language_model
        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert torch.equal(model.lm_head.weight, tied.language_model.lm_head.weight)
    save_file(tensors | {head: tensors[head] + 1}, file)
    with pytest.raises(CheckpointError, match='tie_word_embeddings, but lm_head and embed_tokens differ'):
        Sa2VAChatModel.from_pretrained(tmp_path)


def test_a_released_folder_reads_twelve_tiles(model, folder, tmp_path, network_sizes):
    """Its config.json has the publisher's names and no sizes of SAM 2, so they are stated."""
    found = json.loads((folder / 'config.json').read_text())
    released = {name: found[name] for name in ('vision_config', 'llm_config')} | dict(
        architectures=['Sa2VAChatModel'], model_type='sa2va_chat', template='phi3_chat', ps_version='v2')
    (tmp_path / 'config.json').write_text(json.dumps(released))
    config = config_of_folder(tmp_path, dict(grounding_config=network_sizes['grounding_config'],
                                             mask_selection='single'))
    assert config.max_num_tiles == 12
    assert_equal(Sa2VAChatModel.from_pretrained(folder, config=config), model)


def test_unmerged_lora_is_not_left_out_silently(network_sizes, tmp_path):
    model = Sa2VAChatModel(Sa2VAConfig(**network_sizes))
    get_peft_model(model.language_model, LoraConfig(target_modules=['q_proj']))
    with pytest.raises(ValueError, match='lora_A.* is not merged'):
        model.save_pretrained(tmp_path)


def test_transformers_finds_all_files(folder):
    """It copies what the file of the class imports itself, and nothing that only those import."""
    direct = {name + '.py' for name in get_relative_imports(folder / 'chat.py')}
    assert direct | {'chat.py'} == {path.name for path in modelling_files()}
    assert set(get_relative_imports(folder / 'configuration.py')) == {'published', 'templates'}
    assert get_relative_imports(folder / 'published.py') == ['templates']
    assert get_relative_imports(folder / 'templates.py') == []
    for path in modelling_files():
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (['import'], ['from']):
                assert words[1].split('.')[0] in ('', *_ALLOWED), f'{path.name}: {line}'
    assert AutoConfig.from_pretrained(folder, trust_remote_code=True).max_num_tiles == 4


_ALLOWED = {
    'ast', 'collections', 'contextlib', 'copy', 'dataclasses', 'functools', 'inspect', 'json', 'os', 'pathlib', 're',
    'shutil', 'typing', 'weakref', 'zipfile', 'pickle', 'numpy', 'torch', 'PIL', 'transformers', 'huggingface_hub',
    'safetensors', 'threading',
}
