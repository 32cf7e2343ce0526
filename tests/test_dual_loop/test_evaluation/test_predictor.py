import pytest
import torch
from PIL import Image

from dual_loop.evaluation.predictor import Predictor
from llava_sam2.portable import prompts
from llava_sam2.portable.chat import Sa2VAChatModel
from llava_sam2.portable.network import binary_masks
from llava_sam2.portable.released import plan_release, write_tensors
from llava_sam2.portable.static_decoding import KeptDecoder


@pytest.fixture(scope='module')
def base(build_base):
    """A model that says [SEG] now and then, beside the other tokens that its random weights make it say."""
    model = build_base().eval()
    with torch.no_grad():
        head = model.network.language_model.lm_head.weight
        head[model.vocabulary.seg_id] = head[[5, 37, 411]].sum(dim=0)
    return model


@pytest.fixture
def predictor(base):
    return Predictor(base.network, base.vocabulary)


@pytest.fixture
def pictures(predictor):
    generator = torch.Generator().manual_seed(0)
    sizes = ((90, 120), (128, 128), (70, 200))
    return [predictor.prepare(torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8))
            for size in sizes]


TEXTS = [['Red cup.', 'the long blue pencil on the left side of the table', 'cat'], [], ['dog', 'a tree']]


@pytest.mark.parametrize('count', [1, 3, 16])
def test_static_decoding_changes_nothing(base, predictor, pictures, count, monkeypatch):
    """Also of a smaller batch after a larger one, whose pictures are other ones, and of descriptions."""
    static = Predictor(base.network, base.vocabulary, decoder=KeptDecoder(rows=4))
    words = ['Red cup.', 'the long blue pencil on the left side of the table', 'cat', '', 'a tree']
    texts = [[words[number % 5] for number in range(count) if number % 3 == picture] for picture in range(3)]
    seen = 0
    for limit, order in ((12, [0, 1, 2]), (1, [2, 0, 1]), (7, [1, 2])):
        asked = [pictures[index] for index in order], [texts[index] for index in order], limit
        plain = predictor.segment(*asked)
        with monkeypatch.context() as patch:
            patch.setattr('llava_sam2.portable.answers.greedy_decode', None)
            found = static.segment(*asked)
        for one, other in zip(sum(found, []), sum(plain, []), strict=True):
            assert (one.text, one.ended, one.has_seg) == (other.text, other.ended, other.has_seg)
            assert one.mask.shape == other.mask.shape and (one.mask != other.mask).float().mean() < 1e-3
            if one.has_seg:
                torch.testing.assert_close(one.logits, other.logits, atol=1e-4, rtol=0)
                seen += 1
        assert [len(each) for each in found] == [len(each) for each in asked[1]]
    assert seen or count == 1
    regions = [torch.rand(2, *picture.size, generator=torch.Generator().manual_seed(0)) > 0.999 for picture in pictures]
    described = [[(one.text, one.ended) for each in way.caption_regions(pictures, regions, 10) for one in each]
                 for way in (static, predictor)]
    assert described[0] == described[1] and len(set(described[0])) > 1


def test_the_host_waits_once_for_the_masks_of_a_batch(base, predictor, pictures, monkeypatch):
    """They are decoded in one pass and come in one piece, each at the size of its picture."""
    passes, decode_masks = [], base.network.decode_masks
    monkeypatch.setattr(base.network, 'decode_masks', lambda *given: passes.append(given) or decode_masks(*given))
    found = predictor.segment(pictures, TEXTS, 12, 'forced')
    assert len(passes) == 1 and len(passes[0][1]) == 5 and len(passes[0][0][0]) == 2
    maps = base.network.encode_grounding(torch.stack([pictures[0].grounding, pictures[2].grounding]))
    for index, picture, each in ((0, pictures[0], found[0]), (1, pictures[2], found[2])):
        for number, one in enumerate(each):
            row = number + 3 * index
            logits = decode_masks([fmap[index : index + 1] for fmap in maps], passes[0][1][None, row])
            torch.testing.assert_close(one.logits, logits[0, 0], atol=1e-4, rtol=0)
            mask = binary_masks(one.logits[None, None], (128, 128), picture.size)[0, 0]
            assert torch.equal(one.mask, mask)


@pytest.mark.parametrize('protocol', ['generate', 'forced'])
def test_a_batch_says_what_each_question_says_alone(predictor, pictures, protocol):
    together = predictor.segment(pictures, TEXTS, 12, protocol)
    assert [len(each) for each in together] == [3, 0, 2]
    assert any(each.has_seg for part in together for each in part), 'else no mask is compared'
    for picture, texts, predictions in zip(pictures, TEXTS, together):
        for text, prediction in zip(texts, predictions):
            (alone,), = predictor.segment([picture], [[text]], 12, protocol)
            assert (alone.text, alone.ended, alone.has_seg) == (prediction.text, prediction.ended, prediction.has_seg)
            assert prediction.mask.shape == picture.size
            if prediction.has_seg:
                torch.testing.assert_close(prediction.logits, alone.logits, atol=1e-4, rtol=0)
                near = binary_masks(alone.logits[None, None].abs() - 1e-3, (128, 128), picture.size)[0, 0]
                assert torch.equal(prediction.mask[near], alone.mask[near])
            else:
                assert prediction.logits is None and not prediction.mask.any()
    if protocol == 'forced':
        assert all(each.has_seg and each.text == 'It is [SEG].' for part in together for each in part)


def test_the_forced_answer_is_that_of_training(base, predictor, pictures):
    """Against the masks of ``forced_masks``, with the question that it asks."""
    picture = predictor.prepare(torch.randint(0, 256, (3, 128, 128), dtype=torch.uint8,
                                              generator=torch.Generator().manual_seed(3)))
    data = dict(captions=['red cup'], image2=torch.tensor([0]), sample_ids=['x'], pixel_values=picture.tiles[-1:],
                g_pixel_values=picture.grounding[None], masks2=torch.zeros(1, 128, 128, dtype=torch.bool))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompts, 'REFERRING_QUESTION', prompts.EVALUATION_QUESTION)
        (prediction,), = predictor.segment([picture], [['red cup']], 12, 'forced')
    assert torch.equal(prediction.mask, base.forced_masks(data)[0])


def test_several_seg_tokens_show_the_first(base, predictor, pictures, monkeypatch):
    (once, ), = predictor.segment(pictures[:1], [['cup']], 12, 'forced')
    monkeypatch.setattr('dual_loop.evaluation.predictor.FORCED_ANSWER', 'It is [SEG]. It is [SEG] too.')
    (twice, ), = predictor.segment(pictures[:1], [['cup']], 12, 'forced')
    torch.testing.assert_close(once.logits, twice.logits, atol=1e-5, rtol=0)


def test_descriptions_in_a_batch_are_those_alone(predictor, pictures):
    regions = [[torch.zeros(90, 120, dtype=torch.bool), torch.ones(90, 120, dtype=torch.bool)], [],
               [torch.zeros(70, 200, dtype=torch.bool)]]
    regions[0][0][10:30, 5:40] = True
    regions[2][0][60, 190] = True
    together = predictor.caption_regions(pictures, regions, 10)
    for picture, masks, predictions in zip(pictures, regions, together, strict=True):
        for mask, prediction in zip(masks, predictions, strict=True):
            (alone,), = predictor.caption_regions([picture], [[mask]], 10)
            assert (prediction.text, prediction.ended) == (alone.text, alone.ended)
    assert len({each.text for part in together for each in part}) > 1, 'what is said depends on the region'


def test_the_exported_model_says_the_same_through_its_own_interface(build_base, network_sizes, tmp_path, vocabulary):
    """With tiles: two and a thumbnail."""
    model = build_base(lora=None, network=network_sizes | dict(max_num_tiles=4)).eval()
    write_tensors(tmp_path, plan_release(model.network, carried={}), '5GB')
    chat = Sa2VAChatModel.from_pretrained(tmp_path, config=model.network.config)
    pixels = torch.randint(0, 256, (3, 112, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    predictor = Predictor(chat, vocabulary)
    picture = predictor.prepare(pixels)
    assert len(picture.tiles) == 3
    (prediction,), = predictor.segment([picture], [['cup']], 12)
    said = chat.predict_forward(image=image, text='<image>\n Please segment cup in this image.',
                                tokenizer=vocabulary.tokenizer, max_new_tokens=12)
    assert prediction.text == said['prediction'] and prediction.has_seg == bool(said['prediction_masks'])
    mask = torch.zeros(112, 224, dtype=torch.bool)
    mask[20:50, 100:150] = True
    (described,), = predictor.caption_regions([picture], [[mask]], 12)
    said = chat.predict_forward(image=image, text=f'<image>{prompts.CAPTION_QUESTION}', mask_prompts=[mask[None]],
                                max_new_tokens=12)
    assert described.text == said['prediction']


def test_an_unknown_protocol_is_refused(predictor, pictures):
    with pytest.raises(ValueError, match='generate, forced.*teacher'):
        predictor.segment(pictures, TEXTS, 3, 'teacher')
