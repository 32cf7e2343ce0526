"""Words of regions and regions of words, against a plain computation row by row."""

import pytest
import torch

from dual_loop.models.words_loop import SCALE, UNNAMED, WordsLoop

KINDS = [[['red'], ['blue']], [['small', 'little'], ['large', 'big']]]
ROWS = (dict(key=1, caption='A small red dog left of the blue one.'), dict(key=2, caption='Big and blue'),
        dict(key=3, caption='it is redder, and large'))
#: In place of the settings that the fixture gives to the two loops.
ONLY_WORDS = dict(topk=None, max_caption_len=None, loops=[WordsLoop(KINDS)])


def test_of_a_kind_the_first_word_counts():
    loop = WordsLoop(KINDS)
    assert [loop.named(row['caption']) for row in ROWS] == [[0, 0], [1, 1], [UNNAMED, 1]]


def test_its_losses_are_those_of_each_row_alone(build_loops, make_batch):
    model = build_loops(**ONLY_WORDS).eval()
    base, batch = model.base, make_batch(*ROWS)
    out = model(batch, dict(step=3), mode='words')
    embeddings = base.network.token_embeddings()
    words = mask = 0.0
    for row, sample in enumerate(ROWS):
        images = base.encode(batch['pixel_values'], batch['g_pixel_values'])
        cells = batch['prompt_masks'][row].flatten()
        region = base.project(images)[batch['image1'][row]][cells].mean(dim=0)
        asked = torch.zeros_like(region)
        for kind, thing in enumerate(WordsLoop(KINDS).named(sample['caption'])):
            if thing == UNNAMED:
                continue
            of_kind = torch.stack([embeddings[base.vocabulary.encode(' ' + names[0])[0]] for names in KINDS[kind]])
            of_kind = of_kind / of_kind.norm(dim=1, keepdim=True)
            scores = SCALE * of_kind @ region
            words -= scores.log_softmax(0)[thing] / len(ROWS)
            asked += of_kind[thing]
        query = base.network.text_hidden_fcs(asked / 2 * len(region) ** 0.5)
        logits = base.decode_masks(query[None], [int(batch['image2'][row])], images)
        found, overlap = base.mask_losses(logits, batch['masks2'][row : row + 1],
                                          base.keys(3, 'points', batch['sample_ids'][row : row + 1]))
        mask += (found + overlap)[0] / len(ROWS)
    torch.testing.assert_close(out['words'], words)
    torch.testing.assert_close(out['mask'] + out['dice'], mask)
    torch.testing.assert_close(out['loss'], words + mask)


def test_the_share_of_right_words_leaves_out_rows_without_one(build_loops, make_batch):
    model = build_loops(**ONLY_WORDS).eval()
    batch = make_batch(*ROWS)
    shares = []
    for swap in (False, True):  # one of the two orders is right wherever the other is wrong
        kinds = [[['blue'], ['red']]] if swap else [[['red'], ['blue']]]
        shares.append(float(WordsLoop(kinds).forward(model, batch, 0)['right_0']))
    assert shares[0] == pytest.approx(shares[1])
    assert min(abs(shares[0] - share) for share in (0, 0.5, 1)) < 1e-6  # of the two rows that name a colour


def test_it_reaches_what_sees_and_nothing_else(build_loops, make_batch):
    trainable = ('vision_model', 'mlp1', 'text_hidden_fcs', 'image_encoder', 'mask_decoder')
    model = build_loops(base=dict(lora=None, trainable=trainable), **ONLY_WORDS)
    loss = model(make_batch(*ROWS), dict(step=0), mode='words')['loss']
    parameters = model.trainables()
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    lost = [name for name, gradient in zip(parameters, gradients) if gradient is None]
    assert not lost and not any('language_model' in name for name in parameters)


def test_a_row_without_caption_is_refused(build_loops, make_batch):
    with pytest.raises(ValueError, match='no caption'):
        WordsLoop(KINDS).forward(build_loops(), make_batch(dict(key=1)), 0)
