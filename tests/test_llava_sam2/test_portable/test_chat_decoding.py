"""predict_forward decodes statically what it decodes plainly, whatever becomes of the model between two questions."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image

from llava_sam2.portable.chat import Sa2VAChatModel
from llava_sam2.portable.configuration import Sa2VAConfig
from llava_sam2.portable.templates import PHI3_CHAT

FIND = '<image>\nPlease segment the dog in this image.'


@pytest.fixture
def model(network_sizes, vocabulary):
    """Says several [SEG] in many answers; reads up to four tiles and a thumbnail."""
    llm = network_sizes['llm_config'] | dict(max_position_embeddings=1024)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Sa2VAChatModel(Sa2VAConfig(**network_sizes | dict(llm_config=llm), max_num_tiles=4)).eval()
    with torch.no_grad():
        head = model.language_model.lm_head.weight
        head[vocabulary.seg_id] = head[[5, 37, 411, 88]].sum(dim=0)
    return model


@pytest.fixture(scope='module')
def image():
    noise = np.random.default_rng(0).integers(0, 256, (10, 20, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((240, 120), Image.Resampling.BICUBIC)


@pytest.fixture(scope='module')
def tokenizer(vocabulary):
    return vocabulary.tokenizer


def both_ways(model, **question):
    """The answer, decoded statically and plainly; it must be the same."""
    found, kept, decode_masks = [], model.decoder, model.decode_masks
    for decoder in (kept, None):
        logits = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model, 'decoder', decoder)
            patch.setattr(model, 'decode_masks',
                          lambda *given, logits=logits: logits.append(decode_masks(*given)) or logits[-1])
            if decoder:
                patch.setattr('llava_sam2.portable.answers.greedy_decode', None)
            found.append((model.predict_forward(**question), logits))
    (static, logits), (plain, expected) = found
    assert static['prediction'] == plain['prediction']
    assert len(logits) == len(expected) and len(static['prediction_masks']) == len(plain['prediction_masks'])
    for each, other in zip(logits, expected):
        torch.testing.assert_close(each, other, rtol=1e-4, atol=1e-4)
    for each, other in zip(static['prediction_masks'], plain['prediction_masks']):
        assert each.shape == other.shape and (each != other).mean() < 1e-3
    return static


def test_pictures_tiles_regions_frames_and_dialogues(model, image, tokenizer):
    region = np.zeros((1, 120, 240), dtype=bool)
    region[0, 20:60, 30:200] = True
    video = [image.rotate(angle).resize((64, 48)) for angle in range(7)]
    masks = []
    for limit in (1, 17):
        for question in (dict(image=image, text=FIND), dict(image=image.resize((60, 60)), text=FIND),
                         dict(image=image, text='<image>What is region1?', mask_prompts=[region]),
                         dict(video=video, text=FIND), dict(text='And you?', past_text='Hello. '),
                         dict(image=image, text='And the cat?', past_text=PHI3_CHAT.turn(FIND, 'It is [SEG].'))):
            answer = both_ways(model, tokenizer=tokenizer, max_new_tokens=limit, **question)
            masks.append(len(answer['prediction_masks']))
    assert max(masks) > 1
    assert both_ways(model, text='Hi', max_new_tokens=300)['prediction']


def test_the_decoder_is_no_part_of_the_model(model, image, tokenizer, tmp_path):
    names, modules = list(model.state_dict()), len(list(model.modules()))
    question = dict(image=image, text=FIND, tokenizer=tokenizer, max_new_tokens=5)
    said = model.predict_forward(**question)['prediction']
    decoder = model.decoder._decoder
    assert decoder is not None
    assert list(model.state_dict()) == names and len(list(model.modules())) == modules
    torch.save(model, tmp_path / 'model.pt')
    for other in (copy.deepcopy(model), torch.load(tmp_path / 'model.pt', weights_only=False)):
        assert other.decoder._decoder is None and other.predict_forward(**question)['prediction'] == said
        assert other.decoder._decoder.layers[0].layer is other.language_model.model.layers[0]
    assert model.predict_forward(**question)['prediction'] == said
    assert model.decoder._decoder is decoder  # the same for all questions


def test_a_model_that_has_changed_answers_as_what_it_is(model, image, tokenizer):
    question = dict(image=image, text=FIND, max_new_tokens=9)
    before = both_ways(model, tokenizer=tokenizer, **question)['prediction']
    with torch.no_grad():
        model.load_state_dict({name: 0.7 * tensor for name, tensor in model.state_dict().items()})
    after = both_ways(model, **question)['prediction']
    assert after != before
    model.double()
    assert model.decoder._decoder is None, 'its memory would stay on the device that the model has left'
    assert both_ways(model, **question)['prediction'] == after
    model.float().resize_token_embeddings(650, mean_resizing=False)
    assert both_ways(model, tokenizer=tokenizer, **question)['prediction']


def test_lora_beside_the_weights(model, image, tokenizer):
    question = dict(image=image, text=FIND, tokenizer=tokenizer, max_new_tokens=9)
    said = [both_ways(model, **question)['prediction']]
    peft = get_peft_model(model.language_model, LoraConfig(r=2, lora_dropout=0.5, target_modules=['q_proj', 'up_proj']))
    model.eval()
    for step in range(2):  # as it stands at each question
        with torch.random.fork_rng():
            torch.manual_seed(step)
            for name, parameter in peft.named_parameters():
                if 'lora_B' in name:
                    torch.nn.init.normal_(parameter)
        said.append(both_ways(model, **question)['prediction'])
    assert len(set(said)) == 3
    model.train()  # with dropout, which static decoding has not
    model.predict_forward(**question)
    assert model.decoder._decoder is None


def test_in_inference_mode_and_outside(model, image, tokenizer):
    question = dict(image=image, text=FIND, tokenizer=tokenizer, max_new_tokens=3)
    said = []
    for inside in (True, False, True):
        with torch.inference_mode(inside):
            said.append(model.predict_forward(**question)['prediction'])
    assert len(set(said)) == 1


def test_threads_that_share_a_model(model, image, tokenizer):
    """As the workers of a server do."""
    questions = [dict(image=image, text=FIND + ' Now.' * number, tokenizer=tokenizer, max_new_tokens=14)
                 for number in range(4)]
    alone = [model.predict_forward(**question) for question in questions]
    assert len({each['prediction'] for each in alone}) > 1
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda question: model.predict_forward(**question), questions * 4))
    for one, other in zip(together, alone * 4):
        assert one['prediction'] == other['prediction']
        for mask, expected in zip(one['prediction_masks'], other['prediction_masks'], strict=True):
            assert np.array_equal(mask, expected)
