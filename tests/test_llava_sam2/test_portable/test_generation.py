"""Greedy decoding against a plain loop without cache, one row at a time."""

import pytest
import torch

from llava_sam2.portable.generation import greedy_decode
from llava_sam2.portable.rows import caption_row
from llava_sam2.portable.templates import ChatTemplate
from llava_sam2.portable.vocabulary import Vocabulary


@pytest.fixture(scope='module')
def model(build_base):
    return build_base().eval()


@pytest.fixture(scope='module')
def features(model, make_batch):
    batch = make_batch(dict(key=1), dict(key=2))
    images = model.encode(batch['pixel_values'], batch['g_pixel_values'])
    with torch.no_grad():
        return model.network.mlp1(images.vision)


@pytest.fixture(scope='module')
def rows(vocabulary):
    regions = torch.zeros(4, 16, dtype=torch.bool)
    for index, count in enumerate((1, 9, 4, 16)):
        regions[index, :count] = True
    return [caption_row(vocabulary, 16, index % 2, region, []) for index, region in enumerate(regions)]


def decode(model, rows, features, length=8, side='left', **options):
    return greedy_decode(model.network, model.pad(rows, side), features, model.vocabulary, length, **options)


@torch.no_grad()
def plain_greedy(model, row, features, length, forbidden):
    ids = []
    for _ in range(length):
        grown = caption_row(model.vocabulary, 16, row.image, row.region, ids)
        logits = model.network.logits(model.network.hidden_states(model.pad([grown]), features)[0, -1])
        logits[forbidden] = float('-inf')
        ids.append(int(logits.argmax()))
    return ids


def test_batch_equals_a_plain_loop_without_cache(model, rows, features):
    forbidden = model.vocabulary.special | model.vocabulary.cannot_begin  # no terminator comes up
    decoded = decode(model, rows, features, forbidden=forbidden)
    expected = [plain_greedy(model, row, features, 8, forbidden) for row in rows]
    assert [one.ids for one in decoded] == expected
    assert len({tuple(ids) for ids in expected}) > 1 and not any(one.ended for one in decoded)


def test_batch_equals_one_at_a_time(model, rows, features):
    assert decode(model, rows, features) == [decode(model, [row], features)[0] for row in rows]


def test_dynamic_rope_decodes_over_its_limit_as_transformers_does(build_base, network_sizes, rows, features):
    """The released class generates from the same embeddings."""
    length = len(rows[0].input_ids)
    llm = network_sizes['llm_config'] | dict(max_position_embeddings=length + 3,
                                             rope_scaling=dict(type='dynamic', factor=8.0))
    model = build_base(network=network_sizes | dict(llm_config=llm)).eval()
    forbidden = model.vocabulary.special | model.vocabulary.cannot_begin
    (decoded,) = decode(model, rows[:1], features, length=12, forbidden=forbidden)
    batch = model.pad(rows[:1], 'left')
    with torch.no_grad():
        expected = model.network.language_model.generate(
            inputs_embeds=model.network.embed(batch, features), attention_mask=batch.attention_mask, do_sample=False,
            max_new_tokens=12, suppress_tokens=forbidden.nonzero()[:, 0].tolist(), eos_token_id=None, pad_token_id=0)
    assert decoded.ids == expected[0].tolist()


def test_right_padded_prompts_are_refused(model, rows, features):
    with pytest.raises(ValueError, match='padded on the left'):
        decode(model, rows, features, side='right')


class Script:
    """Makes the head say given tokens, one list per row, whatever it reads."""

    def __init__(self, monkeypatch, network, *scripts):
        self.scripts, self.step, self.runner_up = scripts, 0, 64
        monkeypatch.setattr(network, 'logits', self.logits)

    def logits(self, hidden_states):
        logits = torch.zeros(len(self.scripts), 640)
        logits[:, self.runner_up] = 1
        for row, script in enumerate(self.scripts):
            if self.step < len(script):
                logits[row, script[self.step]] = 2
        self.step += 1
        return logits


def test_stops_at_the_terminator_and_says_nothing_after_it(model, rows, features, monkeypatch):
    encode = model.vocabulary.encode
    short, long = encode('a dog.<|end|>') + encode('junk'), encode('a very big red dog.<|end|>')
    script = Script(monkeypatch, model.network, short, long)
    first, second = decode(model, rows[:2], features, length=20)
    assert model.vocabulary.decode(first.ids) == 'a dog' and first.ended
    assert model.vocabulary.decode(second.ids) == 'a very big red dog' and second.ended
    assert script.step == len(long)  # and not 20


@pytest.mark.parametrize('other', ['a', 'a very long sentence about a dog, a cat and a red mat'])
def test_what_a_row_says_does_not_depend_on_the_others(model, rows, features, monkeypatch, other):
    """Also the end: a terminator that comes after the limit counts for no row, however long the others go on."""
    encode = model.vocabulary.encode
    full = encode('a dog<|end|>')
    length = model.vocabulary.caption_length(full)
    for limit, text, ended in ((length, full, True), (length - 1, full, False), (length - 2, full, False)):
        Script(monkeypatch, model.network, text, encode(other + ' <'))
        first = decode(model, rows[:2], features, length=limit)[0]
        assert (first.ids, first.ended) == (full[:limit], ended)


def test_a_caption_that_never_ends_is_cut(model, rows, features, monkeypatch):
    script = Script(monkeypatch, model.network, [64] * 99)
    (cut,) = decode(model, rows[:1], features, length=5)
    assert cut.ids == [64] * 5 and not cut.ended and script.step <= 10


def test_a_beginning_of_the_terminator_that_goes_on_otherwise_is_text(model, rows, features, monkeypatch):
    ids = [model.vocabulary.pieces.index(piece) for piece in (b'a', b'<|', b'e', b'a')]
    Script(monkeypatch, model.network, ids + model.vocabulary.encode('<|end|>'))
    (one,) = decode(model, rows[:1], features, length=20)
    assert one.ids == ids and one.ended


def test_forbidden_tokens_never_come(model, rows, features, monkeypatch):
    image, terminator = model.vocabulary.image_id, model.vocabulary.encode('<|end|>')
    Script(monkeypatch, model.network, terminator[:1] + [image, 70] + terminator)
    (one,) = decode(model, rows[:1], features, length=20, forbidden=model.vocabulary.special,
                    forbidden_first=model.vocabulary.cannot_begin)
    assert one.ids == [64, 64, 70] and one.ended  # the runner-up in place of what is forbidden


def test_a_stop_token_ends_a_row_as_the_terminator_does(model, rows, features, monkeypatch):
    a, stop = model.vocabulary.encode('a dog')[0], model.vocabulary.tokenizer.eos_token_id
    Script(monkeypatch, model.network, [a, a, stop, a], [a] * 9)
    first, second = decode(model, rows[:2], features, length=4, stop_ids=(stop,))
    assert (first.ids, first.ended, first.said) == ([a, a], True, [a, a, stop])
    assert (second.ids, second.ended, second.said) == ([a] * 4, False, [a] * 4)


def test_a_terminator_that_is_a_token_ends_a_row(model, rows, features, monkeypatch):
    template = ChatTemplate('turns', '{input}<|im_end|>', '<|im_end|>', terminator_is_token=True)
    vocabulary = Vocabulary(model.vocabulary.tokenizer, model.vocabulary.size, template)
    a, end = vocabulary.encode('a dog')[0], vocabulary.encode('<|im_end|>')[0]
    banned = dict(forbidden=vocabulary.cannot_continue, forbidden_first=vocabulary.cannot_begin)
    monkeypatch.setattr(model, 'vocabulary', vocabulary)
    for limit, said, ended in ((3, [64, a, a, end], True), (2, [64, a], False)):
        script = Script(monkeypatch, model.network, [end, a, a, end, a], [a] * 9)  # may not begin with it: 64 comes
        first, second = decode(model, rows[:2], features, length=limit, **banned)
        assert (first.ids, first.ended, first.said) == ([64, a, a][:limit], ended, said)
        assert (second.ids, second.ended) == ([a] * limit, False)
        assert script.step == limit + 1


def test_what_was_said_includes_the_terminator(model, rows, features, monkeypatch):
    ids = model.vocabulary.encode('a dog.<|end|>')
    Script(monkeypatch, model.network, ids + ids)
    (one,) = decode(model, rows[:1], features, length=20)
    assert one.said == ids and len(one.ids) < len(ids)


def test_decoding_leaves_out_the_attention_that_does_not_repeat(model, rows, features):
    seen = []
    layer = model.network.language_model.model.layers[0]
    handle = layer.register_forward_hook(lambda *_: seen.append(torch.backends.cuda.cudnn_sdp_enabled()))
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)  # as without this project's shims
    try:
        decode(model, rows, features)
        assert torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        handle.remove()
        torch.backends.cuda.enable_cudnn_sdp(before)
    assert len(seen) > 1 and not any(seen)


def test_compiled_layers_are_not_compiled_once_more_for_each_cache(model, rows, features, monkeypatch):
    """A layer finds its cache by its number, so that the compilation of one would not do for the next."""
    expected = decode(model, rows, features)
    compiled = []
    for layer in model.network.language_model.model.layers:
        monkeypatch.setattr(layer, '_compiled_call_impl', torch.compile(
            layer._call_impl, backend=lambda graph, inputs: compiled.append(graph) or graph.forward))
    assert decode(model, rows, features) == expected
    assert not compiled
    with torch.no_grad():
        model.network.hidden_states(model.pad(rows), features)
    assert compiled  # elsewhere it is
