"""Static decoding says what plain decoding says, token for token, in fp32."""

import copy

import pytest
import torch

from llava_sam2.portable.generation import Transcript, greedy_decode
from llava_sam2.portable.rows import caption_row, chat_row
from llava_sam2.portable.shared_prefixes import shared_prefixes
from llava_sam2.portable.static_decoding import StaticDecoder, obstacle


@pytest.fixture(scope='module', params=['LoRA', 'no LoRA'])
def model(request, build_base):
    return build_base(lora=dict(r=2, alpha=4) if request.param == 'LoRA' else None).eval()


@pytest.fixture(scope='module')
def features(model, make_batch):
    batch = make_batch(dict(key=1), dict(key=2))
    with torch.no_grad():
        return model.project(model.encode(batch['pixel_values'], batch['g_pixel_values']))


@pytest.fixture(scope='module')
def rows(model):
    """Prompts of very different lengths: captions of regions, and mere text."""
    draw, vocabulary = torch.Generator().manual_seed(3), model.vocabulary
    made = []
    for number in range(12):
        region = torch.rand(16, generator=draw) < (number + 1) / 13
        made.append(caption_row(vocabulary, 16, number % 2, region, []) if number % 3 else
                    chat_row(vocabulary, 'What is it, please? ' * (number + 1)))
    return made


def both(model, rows, features, length, decoder=None, **options):
    plain = greedy_decode(model.network, model.pad(rows, 'left'), features, model.vocabulary, length, **options)
    decoder = decoder or StaticDecoder(model.network, model.vocabulary)
    return plain, decoder.decode(model.pad(rows), features, length, **options)


def said(decoded):
    return [(one.ids, one.ended, one.said) for one in decoded]


@pytest.mark.parametrize('length', [1, 9, 24])
@pytest.mark.parametrize('count', [1, 3, 12])
def test_equals_plain_decoding(model, rows, features, count, length):
    vocabulary = model.vocabulary
    for options in (dict(), dict(forbidden=vocabulary.cannot_continue, forbidden_first=vocabulary.cannot_begin)):
        plain, static = both(model, rows[-count:], features, length, **options)
        assert said(static) == said(plain)
    assert count == 1 or len({tuple(one.ids) for one in static}) > 1


def test_a_used_and_poisoned_cache_changes_nothing(model, rows, features):
    decoder = StaticDecoder(model.network, model.vocabulary)
    both(model, rows, features, 20, decoder)
    for poison in (1e4, float('nan')):  # nothing times NaN is NaN
        decoder.store.fill_(poison)
        for count, length in ((5, 12), (1, 3), (12, 20)):
            plain, static = both(model, rows[:count], features, length, decoder)
            assert said(static) == said(plain)


@pytest.fixture(scope='module')
def alike(model):
    """Questions about two pictures, one of them of three tiles, with regions and without, in any order."""
    block, rows = '<img>' + '<IMG_CONTEXT>' * 16 + '</img>', []
    for number, text in enumerate(['What is it?', 'And this, please, which is far longer?', 'Why?', 'Red.'] * 2):
        image, tiles, region = (0, 1, None) if number % 2 else (0, 3, torch.arange(16).view(1, 4, 4) < 4 * number - 3)
        said = '<IMG_CONTEXT>' * int(region.sum()) if region is not None else ''
        rows.append(chat_row(model.vocabulary, f'<|user|>\n{block * tiles}{said}{text}<|end|>\n<|assistant|>\n',
                             range(image, image + tiles), region))
    return rows


@pytest.mark.parametrize('length', [1, 15])
def test_what_rows_have_in_common_is_read_once(model, alike, make_batch, length, monkeypatch):
    batch = make_batch(dict(key=1), dict(key=2), dict(key=3))
    features = model.project(model.encode(batch['pixel_values'], batch['g_pixel_values']))
    decoder, read = StaticDecoder(model.network, model.vocabulary), []
    own = decoder._read_beginnings
    monkeypatch.setattr(decoder, '_read_beginnings', lambda room, x, group: read.append(len(x)) or own(room, x, group))
    for rows in (alike, alike[::-1], alike[:1], alike):
        plain, static = both(model, rows, features, length, decoder)
        assert said(static) == said(plain)
        assert len(rows) == 1 or len({tuple(one.ids) for one in static}) > 1
    assert read == [2, 2, 1, 2]  # pictures, and not eight rows


def test_padding_that_would_lie_beyond_the_room(model, monkeypatch):
    """A long beginning of one picture, and a long rest of another: together longer than any prompt."""
    monkeypatch.setattr('llava_sam2.portable.static_decoding.LENGTH_STEP', 1)
    block, rows = '<img>' + '<IMG_CONTEXT>' * 16 + '</img>', []
    for number in range(32):
        images, text = (range(9), 'Who?') if number % 2 else (range(9, 10), f'{number} ' + 'and ' * 30)
        rows.append(chat_row(model.vocabulary, f'<|user|>\n{block * len(images)}{text}', images))
    features = torch.randn(10, 16, 32, generator=torch.Generator().manual_seed(2))
    decoder = StaticDecoder(model.network, model.vocabulary)
    plain, static = both(model, rows, features, 2, decoder)
    found = shared_prefixes(rows, model.vocabulary.image_id, 16)
    rests = [len(row.input_ids) - found.lengths[group] for row, group in zip(rows, found.group)]
    assert max(found.lengths) + max(rests) > len(decoder.room.said) and said(static) == said(plain)


def test_states_are_those_of_a_pass_over_prompt_and_answer(model, rows, alike, features):
    decoder = StaticDecoder(model.network, model.vocabulary, states=True)
    for asked in (rows, [row for row in alike if len(row.image) == 1]):
        decoded = decoder.decode(model.pad(asked), features, 9)
        for number, (row, one) in enumerate(zip(asked, decoded)):
            whole = copy.copy(row)
            whole.input_ids, whole.labels = row.input_ids + one.ids, row.labels + one.ids
            with torch.no_grad():
                expected = model.network.hidden_states(model.pad([whole]), features)[0, len(row.input_ids):]
            found = decoder.states_at([number] * len(one.ids), range(len(one.ids)))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_an_answer_is_a_function_of_its_batch(model, rows, features):
    """Not of what was decoded before: else the processes of an evaluation would find other last bits than one does."""
    used, fresh = (StaticDecoder(model.network, model.vocabulary, states=True) for _ in range(2))
    used.decode(model.pad(rows), features, 300)
    found = []
    for decoder in (used, fresh):
        decoder.decode(model.pad(rows[:3]), features, 20)
        found.append(decoder.states_at([0, 1, 2] * 20, [place for place in range(20) for _ in range(3)]))
    assert torch.equal(*found) and used.length > fresh.length
    assert used.room.said.shape == fresh.room.said.shape  # how far attention goes in a graph


def test_it_can_be_made_and_used_in_inference_mode_and_outside(model, rows, features):
    decoder = None
    for inside in (True, False, True):
        with torch.inference_mode(inside):
            decoder = decoder or StaticDecoder(model.network, model.vocabulary)
            plain, static = both(model, rows[:3], features, 4, decoder)
            assert said(static) == said(plain)


def test_early_ends_stop_tokens_and_limits(model, rows, features, monkeypatch):
    """What is said by rote: the terminator in several tokens, one that begins it and goes on, a stop token."""
    vocabulary, pieces = model.vocabulary, model.vocabulary.pieces
    encode, stop = vocabulary.encode, vocabulary.tokenizer.eos_token_id
    scripts = [encode('a dog.<|end|>') + encode('junk'), [pieces.index(b'a'), pieces.index(b'<|'), pieces.index(b'a')],
               [*encode('red'), stop, 70], [64] * 50]
    for length in (1, 2, 3, 5, 20):
        expected = Transcript(4, vocabulary, length, (stop, ))
        for step in range(length + vocabulary.num_terminator_tokens):
            if not expected.finished:
                expected.add([script[step] if step < len(script) else 64 for script in scripts])
        decoder = StaticDecoder(model.network, vocabulary)
        turns = iter([[script[step] if step < len(script) else 64 for script in scripts] for step in range(100)])
        monkeypatch.setattr(decoder, '_next', lambda states, banned, turns=turns: torch.tensor(next(turns)))
        decoded = decoder.decode(model.pad(rows[:4]), features, length, stop_ids=(stop, ))
        assert said(decoded) == said(expected.decoded())


def test_what_may_not_come_never_comes(model, rows, features):
    free, _ = both(model, rows, features, 6)
    forbidden = torch.zeros(640, dtype=torch.bool)
    forbidden[sorted({index for one in free for index in one.ids})] = True
    plain, static = both(model, rows, features, 6, forbidden=forbidden)
    assert said(static) == said(plain) != said(free)
    assert not any(forbidden[index] for one in static for index in one.ids)


def test_given_values_are_merged_in_place(build_base, rows, features):
    model = build_base(lora=dict(r=2, alpha=4)).eval()
    decoder = StaticDecoder(model.network, model.vocabulary)
    addresses = [copy.data_ptr() for layer in decoder.layers for copy in layer.copies]
    before = said(decoder.decode(model.pad(rows), features, 9))
    draw = torch.Generator().manual_seed(0)
    values = {p: p.detach() + 0.3 * torch.randn(p.shape, generator=draw) for name, p in model.trainables().items()
              if '.lora_' in name}
    decoder.merge(values)
    after = said(decoder.decode(model.pad(rows), features, 9))
    assert [copy.data_ptr() for layer in decoder.layers for copy in layer.copies] == addresses
    with torch.no_grad():
        for parameter, value in values.items():
            parameter.copy_(value)
    assert after == said(greedy_decode(model.network, model.pad(rows, 'left'), features, model.vocabulary, 9)) != before


def test_a_stop_is_heard_between_pieces(model, rows, features):
    polls = []

    def poll():
        polls.append(None)
        if len(polls) > 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        StaticDecoder(model.network, model.vocabulary).decode(model.pad(rows), features, 20, poll=poll)
    assert len(polls) == 4


def test_what_cannot_be_decoded_is_refused(build_base, model, rows, features):
    trained = build_base(lora=dict(r=2, alpha=4), train_token_rows=True)
    assert 'rows of the embedding' in obstacle(trained.network)
    with pytest.raises(ValueError, match='rows of the embedding'):
        StaticDecoder(trained.network, trained.vocabulary)
    decoder = StaticDecoder(model.network, model.vocabulary)
    with pytest.raises(ValueError, match='padded on the right'):
        decoder.decode(model.pad(rows, 'left'), features, 5)
    with pytest.raises(ValueError, match='has 512 positions'):
        decoder.decode(model.pad(rows), features, 500)
