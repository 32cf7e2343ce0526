import pytest
import torch

from dual_loop.datasets import RefCOCODataset, SAVPairDataset
from dual_loop.evaluation import examples
from dual_loop.evaluation.captions import ReferredObjects
from dual_loop.evaluation.cycle import evaluate_cycle
from dual_loop.evaluation.loading import load_model
from dual_loop.evaluation.referring import evaluate_referring


@pytest.fixture(scope='module')
def tiny(checkout):
    return load_model(checkout / 'assets/tiny')


@pytest.fixture
def drawn(monkeypatch):
    """Title and mask of every panel, in place of pictures."""
    panels = []
    monkeypatch.setattr(examples, '_panel', lambda title, image, mask, colour: panels.append(
        (title, torch.as_tensor(mask))) or (title, None))
    return panels


def test_masks_of_sentences_are_those_that_were_scored(tiny, demo_root, drawn):
    dataset = RefCOCODataset(demo_root, split='val')
    results = evaluate_referring(tiny, dataset, 'forced', batch_size=4, max_images=3, num_workers=0)
    chosen = examples.referring_examples(tiny, dataset, results, 2)
    assert [each.group for each in chosen] == ['best', 'best', 'worst', 'worst', 'random', 'random']
    samples = {each['sample_id']: each for each in results['samples']}
    for each, (_, predicted), (_, target) in zip(chosen, drawn[::2], drawn[1::2], strict=True):
        assert [title for title, _ in each.panels] == ['picture', 'found', 'to find']
        sample = samples[each.sample_id]
        assert abs((predicted & target).sum() - sample['intersection']) <= 2
        assert abs((predicted | target).sum() - sample['union']) <= 2


def test_the_region_of_a_caption_is_its_object(tiny, demo_root, drawn):
    dataset = RefCOCODataset(demo_root, split='val')
    objects = ReferredObjects(dataset)
    samples = [dict(image='x', sample_id=objects.sample_id(row), cider=float(row)) for row in range(3)]
    (best, worst, random) = examples.caption_examples(tiny, dataset, dict(samples=samples), 1)
    assert (best.sample_id, worst.sample_id) == (objects.sample_id(2), objects.sample_id(0))
    for row, (title, mask) in zip((2, 0, 1), drawn):
        image = objects.read_image(row)
        assert title == 'region' and torch.equal(mask, torch.as_tensor(objects.read_mask(row, *image.shape[1:])))


def test_a_cycle_shows_both_frames(tiny, sav_root, drawn):
    sources = dict(sav=SAVPairDataset(sav_root))
    results = evaluate_cycle(tiny, sources, 'pairs', 'forced', batch_size=2, max_new_tokens=8, num_workers=0)
    chosen = examples.cycle_examples(tiny, sources, results, 1)
    assert [title for title, _ in chosen[0].panels] == [
        'picture', 'described', 'found in the same frame', 'to find', 'paired frame', 'found in the paired frame',
        'to find']
    for number, each in enumerate(chosen):
        found = drawn[5 * number:5 * number + 5]
        for place, frame in ((1, 'same'), (3, 'paired')):
            wanted = each.sample_id, 'generated', frame
            sample, = [sample for sample in results['samples']
                       if (sample['sample_id'], sample['condition'], sample['frame']) == wanted]
            overlap = (found[place][1] & found[place + 1][1]).sum()
            assert abs(overlap - sample['intersection']) <= 2
