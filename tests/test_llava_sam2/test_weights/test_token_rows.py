"""Rows of the added tokens that are trained beside LoRA: they are used, learn, are saved and come back."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_release import released_state, save_weights

from llava_sam2.portable.network import Sa2VANetwork
from llava_sam2.portable.prompts import ADDED_TOKENS
from llava_sam2.portable.templates import PHI3_CHAT
from llava_sam2.portable.vocabulary import Vocabulary
from llava_sam2.tokenizer import load_tokenizer
from llava_sam2.weights.loading import CheckpointError, load_pretrained
from llava_sam2.weights.token_rows import added_token_ids

EMBED, HEAD = 'language_model.model.embed_tokens.weight', 'language_model.lm_head.weight'
ROWS = [f'network.language_model.{name}.token_adapter.trainable_tokens_delta.default'
        for name in ('model.embed_tokens', 'lm_head')]


@pytest.fixture
def start(build_base, internvl, sizes):
    """Build a model from InternVL and SAM 2, as a config would."""

    def start(**options):
        network = dict(grounding_config=sizes['grounding_config'], mask_selection='single')
        pretrained = {key: str(path) for key, path in internvl.items()}
        return build_base(**dict(random_weights=False, network=network, pretrained=pretrained) | options)

    return start


@pytest.fixture
def model(start):
    return start(train_token_rows=True)


@pytest.fixture
def batch(make_batch):
    return make_batch(dict(key=1, caption='a red dog'), dict(key=2, caption='A big cat. It sits.', describes=True))


def test_internvl_without_training_of_rows_is_refused(start, build_base):
    for options in (dict(), dict(train_token_rows=True, trainable=('mlp1', 'mask_decoder'))):
        with pytest.raises(ValueError, match='model.train_token_rows=True and "text_hidden_fcs" in model.trainable'):
            start(**options)
    with pytest.raises(ValueError, match='set model.lora'):
        build_base(lora=None, train_token_rows=True)
    whole = start(lora=None, trainable=('language_model', 'text_hidden_fcs'))
    assert whole.network.token_embeddings().requires_grad


def test_rows_are_trained_in_fp32_and_the_matrices_are_not(model):
    names = model.trainables()
    assert set(ROWS) < set(names)
    assert all(names[name].shape == (5, 32) and names[name].dtype == torch.float32 for name in ROWS)
    frozen = ('embed_tokens.weight', 'lm_head.weight', 'base_layer.weight')
    assert [name for name in names if name.endswith(frozen)] == []


def test_head_of_seg_is_drawn_as_large_as_the_decoders_tokens(model):
    assert model.network.text_hidden_fcs[0].weight.std() > 0.15  # (2 / 32) ** 0.5; torch's own is 0.1


def test_both_sides_learn_and_are_used(model, batch):
    model.train()
    losses = model.supervised_losses(batch, 0)
    rows = [model.trainables()[name] for name in ROWS]
    grads = torch.autograd.grad(sum(losses.values()), rows)
    ids = model.vocabulary.tokenizer.convert_tokens_to_ids(list(ADDED_TOKENS))
    seg, region = ids.index(model.vocabulary.seg_id), ids.index(model.vocabulary.id_of('<vp>'))
    assert grads[0][seg].abs().sum() > 0 and grads[0][region].abs().sum() > 0 and grads[1].abs().sum() > 0
    with torch.no_grad():
        rows[0][seg] += 1.0
        rows[1][seg] += 1.0
    assert torch.equal(model.network.token_embeddings()[ids[seg]], rows[0][seg])
    embedded = model.network.language_model.get_input_embeddings()(torch.tensor([ids[seg]]))
    assert torch.equal(embedded[0], rows[0][seg])
    hidden = torch.randn(1, 32)
    torch.testing.assert_close(model.network.logits(hidden)[0, ids[seg]], hidden[0] @ rows[1][seg])


def test_rows_are_exported(model, token_ids):
    with torch.no_grad():
        for name in ROWS:
            model.trainables()[name].copy_(torch.arange(5.0)[:, None].expand(-1, 32))
    state, ids = released_state(model.network), sorted(token_ids.values())
    for name in (EMBED, HEAD):
        assert torch.equal(state[name][ids], torch.arange(5.0)[:, None].expand(-1, 32))
    assert not any('token_adapter' in name for name in state)


def move_and_save(model, folder) -> None:
    """Change all that is trained, and write it as a checkpoint folder does."""
    with torch.no_grad():
        for parameter in model.trainables().values():
            parameter += 0.01 * torch.randn_like(parameter)
    save_file({f'base.{name}': p.detach() for name, p in model.trainables().items()},
              folder / 'trainables.safetensors')
    run = dict(weights=model.fingerprint, config='base = dict(lora=dict(r=2, alpha=4))')
    (folder / 'state.json').write_text(json.dumps(dict(run=run)))


def test_rows_come_back_on_their_base(model, internvl, token_ids, tmp_path):
    move_and_save(model, tmp_path)
    other = Sa2VANetwork(model.config)
    report = load_pretrained(other, dict(internvl, trained=tmp_path), token_ids=token_ids)
    assert report.drawn == []
    expected, actual = released_state(model.network), released_state(other)
    assert [name for name in expected if not torch.equal(expected[name], actual[name])] == []


@pytest.fixture
def tied(build_base, sizes):
    """Build a model whose head is the embedding."""
    network = sizes | dict(llm_config=sizes['llm_config'] | dict(tie_word_embeddings=True), template='qwen_chat')

    def tied(**options):
        return build_base(**dict(network=network) | options)

    return tied


def test_rows_of_a_tied_head_are_those_of_the_embedding(tied, batch, token_ids):
    model = tied(train_token_rows=True).train()
    assert [name for name in ROWS if name in model.trainables()] == ROWS[:1]
    [rows] = [model.trainables()[name] for name in ROWS[:1]]
    seg = sorted(token_ids.values()).index(model.vocabulary.seg_id)
    losses = model.supervised_losses(batch, 0)
    assert all(torch.autograd.grad(losses[name], rows, retain_graph=True)[0].abs().sum() > 0
               for name in ('loss_mask', 'loss_answer'))  # as it is read, and as it is said
    with torch.no_grad():
        rows[seg] += 1.0
    assert torch.equal(model.network.token_embeddings()[model.vocabulary.seg_id], rows[seg])
    hidden = torch.randn(1, 32)
    torch.testing.assert_close(model.network.logits(hidden)[0, model.vocabulary.seg_id], hidden[0] @ rows[seg])
    state = released_state(model.network)
    assert HEAD not in state and torch.equal(state[EMBED][model.vocabulary.seg_id], rows[seg])


@pytest.mark.parametrize('options', [dict(train_token_rows=True), dict(trainable=('language_model', 'mlp1'))])
@pytest.mark.parametrize('both', [True, False])
def test_what_a_tied_model_learned_comes_back_on_its_base(tied, token_ids, tmp_path, options, both):
    """Of a base that stores the matrix once, or twice."""
    base = tmp_path / 'base'
    save_weights(tied(lora=None).network, base)
    stored = load_file(base / 'model.safetensors')
    assert HEAD not in stored
    if both:
        save_file(stored | {HEAD: stored[EMBED].clone()}, base / 'model.safetensors')
    model = tied(network=None, pretrained=str(base), random_weights=False, **options)
    move_and_save(model, tmp_path)
    other = Sa2VANetwork(model.config)
    load_pretrained(other, dict(base=base, trained=tmp_path), token_ids=token_ids)
    assert other.language_model.lm_head.weight is other.token_embeddings()
    expected, actual = released_state(model.network), released_state(other)
    assert not torch.equal(expected[EMBED], stored[EMBED])
    assert [name for name in expected if not torch.equal(expected[name], actual[name])] == []


def test_a_tied_model_starts_from_internvl(tied, internvl, sizes):
    """One matrix has its rows drawn anew, and they are both read and said."""
    config = json.loads((internvl['mllm'] / 'config.json').read_text())
    config['llm_config']['tie_word_embeddings'] = True
    (internvl['mllm'] / 'config.json').write_text(json.dumps(config))
    file = internvl['mllm'] / 'model.safetensors'
    stored = load_file(file)
    del stored[HEAD]
    save_file(stored, file)
    network = dict(grounding_config=sizes['grounding_config'], mask_selection='single', template='qwen_chat')
    model = tied(network=network, pretrained={key: str(path) for key, path in internvl.items()}, random_weights=False,
                 train_token_rows=True)
    assert model.vocabulary.template.name == 'qwen_chat'
    torch.testing.assert_close(model.network.token_embeddings()[model.vocabulary.seg_id], stored[EMBED].mean(dim=0))


def test_two_matrices_of_a_tied_model_that_differ_are_refused(tied, tmp_path):
    model = tied(lora=None)
    save_weights(model.network, tmp_path)
    stored = load_file(tmp_path / 'model.safetensors')
    save_file(stored | {HEAD: stored[EMBED] + 1}, tmp_path / 'model.safetensors')
    with pytest.raises(CheckpointError, match='two matrices, .*embed_tokens.weight and .*lm_head.weight, where tie_wo'):
        tied(network=None, pretrained=str(tmp_path), random_weights=False)


def test_both_loops_train_the_rows(build_loops, make_batch):
    """The caption bridge reads the rows through the one accessor."""
    loops = build_loops(base=dict(train_token_rows=True)).train()
    rows = [loops.trainables()[f'base.{name}'] for name in ROWS]
    batches = dict(loop1=make_batch(dict(key=1), dict(key=2)),
                   loop2=make_batch(dict(key=3, caption='a dog', describes=True)))
    for name, batch in batches.items():
        grads = torch.autograd.grad(loops(batch, dict(step=0), mode=name)['loss'], rows)
        assert all(grad.isfinite().all() and grad.abs().sum() > 0 for grad in grads)


def test_tokenizer_of_internvl_gets_the_tokens(vocabulary, tmp_path):
    """Stored without them, in the order of the released ids behind InternVL's own."""
    file = tmp_path / 'tokenizer.json'
    vocabulary.tokenizer.save_pretrained(tmp_path)
    content = json.loads(file.read_text())
    content['added_tokens'] = [entry for entry in content['added_tokens'] if entry['content'] not in ADDED_TOKENS]
    file.write_text(json.dumps(content))
    config = json.loads((tmp_path / 'tokenizer_config.json').read_text())
    config['added_tokens_decoder'] = {
        index: entry for index, entry in config['added_tokens_decoder'].items() if entry['content'] not in ADDED_TOKENS}
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r'add the tokens of llava_sam2\.portable\.prompts\.ADDED_TOKENS'):
        Vocabulary(load_tokenizer(tmp_path), 640, PHI3_CHAT)
    tokenizer = load_tokenizer(tmp_path)
    tokenizer.add_tokens(list(ADDED_TOKENS), special_tokens=True)  # as the refusal says
    assert added_token_ids(tokenizer) == added_token_ids(vocabulary.tokenizer)
    assert tokenizer.encode('[SEG]') == [added_token_ids(tokenizer)['[SEG]']]


def test_tokenizer_without_seg_is_refused(build_base, folder, vocabulary, tmp_path):
    vocabulary.tokenizer.save_pretrained(tmp_path)
    for name in ('tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json'):
        if (tmp_path / name).is_file():
            (tmp_path / name).write_text((tmp_path / name).read_text().replace('[SEG]', '[MASK]'))
    with pytest.raises(ValueError, match=r'does not know \[SEG\] as one token; use the tokenizer of a Sa2VA model'):
        build_base(random_weights=False, network=None, pretrained=str(folder), tokenizer=str(tmp_path))


# -- what a checkpoint holds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize('trainable, held', [
    (('mlp1', 'text_hidden_fcs', 'mask_decoder'), False), (('mlp1', 'language_model'), True)
])
def test_matrices_are_in_a_checkpoint_only_when_trained(build_loops, folder, trainable, held):
    base = dict(random_weights=False, network=None, pretrained=str(folder), trainable=trainable)
    state = build_loops(base=base).state_dict()
    assert any('lora_' in name for name in state)
    for name in ('embed_tokens.weight', 'lm_head.weight'):
        assert any(own.endswith(name) for own in state) == held, name
    assert any('vision_model' in name for name in state) is False
