"""Several objects of an image in loop 1: rows of their own, for one pass of the encoders."""

from types import SimpleNamespace

import pytest
import torch
from loop_probes import gradients, ragged, spy

from dual_loop.datasets import RefCOCODataset, SA1BDataset, collate_samples
from dual_loop.engine.hooks.picture_hook import PictureHook, read_pictures
from llava_sam2 import model as base_model
from llava_sam2 import text_rows
from llava_sam2.randomness import generator_for, seed_for

OPTIONS = dict(denoise_weight=0.5, distill_weight=0.5, reward_weight=0.3)
#: Captions of a sample's own object and of its companions, and whether it is a frame pair.
SAMPLES = {'masks': ((None, None, None), False), 'pairs': ((None, None), True), 'mixed': (('a cat', None, 'it'), False)}


def in_one_sample(make_sample, key, captions, pair=False) -> dict:
    return make_sample(key, caption=captions[0], pair=pair, others=tuple(captions[1:]))


def each_alone(make_sample, key, captions, pair=False) -> list[dict]:
    """The same objects in samples of one object each, under the names that their rows have."""
    together = in_one_sample(make_sample, key, captions, pair)
    per_object = [name for name in together if name.startswith(('prompt_masks', 'masks'))]
    return [together | {name: together[name][number] for name in per_object}
            | dict(caption=caption, sample_id=f'{together["sample_id"]}#{number}')
            for number, caption in enumerate(captions)]


@pytest.fixture
def run(build_loops, monkeypatch):
    """Loss, figures and gradient of samples in a batch, without dropout."""

    def run(samples, step=3):
        model = build_loops(**OPTIONS).eval()
        ragged(monkeypatch, model)
        generator = generator_for('teacher')
        model.teacher.set_values({name: p.detach() + 0.2 * torch.randn(p.shape, generator=generator)
                                  for name, p in model.base.trainables().items()})
        seen = {name: spy(monkeypatch, model.base.network, name, lambda args, _: len(args[0]))
                for name in ('encode_vision', 'encode_grounding')}
        out = model.loops['loop1'].forward(model, collate_samples(samples), step, preview=True)
        assert out['distill'] > 1e-3 and out['denoise'] > 0
        return out, gradients(model, out['loss']), seen

    return run


def assert_same(one, other):
    for name in ('loss', 'mask', 'dice', 'answer', 'denoise', 'distill', 'score'):
        torch.testing.assert_close(one[0][name].detach(), other[0][name].detach(), rtol=1e-5, atol=1e-5, msg=name)
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize('kind', SAMPLES)
def test_objects_of_one_sample_equal_samples_of_one_object(run, make_sample, kind):
    captions, pair = SAMPLES[kind]
    together = run([in_one_sample(make_sample, 1, captions, pair)])
    alone = run(each_alone(make_sample, 1, captions, pair))
    assert_same(together, alone)
    assert together[0]['preview']['captions'] == alone[0]['preview']['captions']
    assert torch.equal(together[0]['preview']['predicted'], alone[0]['preview']['predicted'])
    # Encoded once, whatever the number of objects.
    assert together[2] == dict(encode_vision=[1 + pair], encode_grounding=[1])


def test_every_object_is_described_and_found_by_itself(run, build_loops, make_sample, monkeypatch):
    model = build_loops()
    asked = spy(monkeypatch, model.teacher, 'describe', lambda args, _: (args[1], args[2]))
    data = collate_samples([in_one_sample(make_sample, 1, (None, None)), in_one_sample(make_sample, 2, (None, 'it'))])
    reads = spy(monkeypatch, model.base, 'read_rows', lambda args, _: args[0])
    model.loops['loop1'].forward(model, data, 0)
    [(images, regions)] = asked
    assert images == [0, 0, 1] and all(map(torch.equal, regions, data['prompt_masks'][:3]))
    assert not torch.equal(regions[0], regions[1])
    assert [row.image for row in reads[0]] == [0, 0, 1] and [row.image for row in reads[1]] == [0, 0, 1, 1]


def test_a_batch_is_the_mean_over_samples_of_the_mean_over_their_objects(run, make_sample):
    samples = [in_one_sample(make_sample, 1, (None, 'a cat', None)), make_sample(2),
               in_one_sample(make_sample, 4, (None, None), True)]
    together, single = run(samples), [run([sample]) for sample in samples]
    assert together[0]['score'] != 0
    mean = ({name: sum(out[name].detach() for out, *_ in single) / 3 for name in
             ('loss', 'mask', 'dice', 'answer', 'denoise', 'distill', 'score')},
            {name: sum(grads[name] for _, grads, _ in single) / 3 for name in together[1]})
    assert_same(together, mean)


def test_draws_of_an_object_depend_on_seed_step_sample_and_its_number(build_loops, make_sample, monkeypatch):
    """Not on its companions, nor on their number."""
    found = []
    for captions in ((None, None), (None, None, None), (None, 'a cat')):
        model, draws = build_loops(), []
        for module in (base_model, text_rows):
            monkeypatch.setattr(module, 'seed_for', lambda *key, draws=draws: draws.append(key) or seed_for(*key))
        model.loops['loop1'].forward(model, collate_samples([in_one_sample(make_sample, 1, captions)]), 5)
        found.append({key for key in draws if key[-1] == 'sample1#0'})
    assert found[0] == found[1] == found[2] and len(found[0]) == 4


def test_data_sets_give_them_to_loop1(build_loops, sa1b_root, refcoco_root):
    sizes = dict(image_size=112, grounding_size=128, region_grid=4, num_objects=3)
    masks = SA1BDataset(sa1b_root, **sizes)
    sentences = RefCOCODataset(refcoco_root, split='train', **sizes)
    data = collate_samples([masks[0], sentences[0]])
    count = len(masks[0]['caption'])
    assert count > 1 and len(sentences[0]['caption']) > 1
    model = build_loops(**OPTIONS)
    images = model.base.encode(data['pixel_values'], data['g_pixel_values'])
    assert len(images.vision) == 2 < len(data['captions'])
    out = model.loops['loop1'].forward(model, data, 0, preview=True)
    assert out['loss'].isfinite() and len(out['preview']['captions']) == len(data['captions'])
    assert out['preview']['captions'][count:] == sentences[0]['caption']


def test_pictures_show_every_object(run, make_sample, vocabulary, tmp_path):
    samples = [in_one_sample(make_sample, 1, (None, 'a cat')), make_sample(2, pair=True)]
    preview = run(samples)[0]['preview'] | dict(data=collate_samples(samples))
    PictureHook(rows=4).after_train_iter(
        SimpleNamespace(work_dir=tmp_path, train_loop=SimpleNamespace(preview=preview),
                        model=SimpleNamespace(base=SimpleNamespace(vocabulary=vocabulary))), 0)
    panels = read_pictures(tmp_path)
    assert [panel.sample_id for panel in panels] == ['sample1#0', 'sample1#1', 'sample2']
    assert panels[1].caption == 'a cat' and [len(panel.pictures) for panel in panels] == [4, 4, 5]
    assert [len(panel.texts) for panel in panels] == [3, 1, 3], 'those of the teacher, the corruption and the student'
