import numpy as np
import pytest
from scipy import stats

from dual_loop.evaluation import bootstrap
from dual_loop.evaluation.bootstrap import fraction, resample
from dual_loop.evaluation.results import ResultsError
from dual_loop.evaluation.scores import MaskScores, mask_metrics

NAMES = ('ciou', 'giou', 'precision@0.5', 'no_seg_rate', 'cider')


def make_samples(images: int = 40, per_image: int = 3, seed: int = 0) -> list[dict]:
    random = np.random.default_rng(seed)
    samples = []
    for image in range(images):
        easy = random.uniform(0.2, 1)  # the sentences of an image resemble each other
        for number in range(per_image):
            union = int(random.integers(50, 5000))
            samples.append(dict(image=f'{image:04}', sample_id=f'{image}_{number}', union=union,
                                intersection=int(union * easy * random.uniform(0.5, 1)),
                                seg=bool(random.random() < 0.8), cider=random.gamma(2)))
    return samples


def value_and_spread(samples, name, **arguments):
    figures = resample(samples, [name], **arguments)[name]
    return figures.value, np.std(figures.draws), figures.estimate


def test_the_values_are_those_of_the_evaluation():
    samples = make_samples() + [dict(image='empty', union=0, intersection=0, seg=False, cider=0.0)]
    metrics = mask_metrics(samples) | dict(cider=sum(sample['cider'] for sample in samples) / 121)
    figures = resample(samples, list(metrics), resamples=2)
    assert {name: figure.value for name, figure in figures.items()} == pytest.approx(metrics, abs=1e-12)


def test_precision_counts_the_threshold_itself_and_two_empty_masks():
    samples = [dict(image=0, intersection=i, union=u) for i, u in ((5, 10), (4, 10), (7, 10), (0, 0))]
    values, weights = fraction(samples, 'precision@0.5')
    assert values.tolist() == [1, 0, 1, 1] and weights.tolist() == [1, 1, 1, 1]


def test_a_mean_over_single_sentences_has_the_interval_of_the_central_limit_theorem():
    samples = make_samples(images=400, per_image=1)
    values = np.array([sample['cider'] for sample in samples])
    value, spread, interval = value_and_spread(samples, 'cider', resamples=4000)
    error = values.std() / 20
    assert value == pytest.approx(values.mean())
    assert spread == pytest.approx(error, rel=0.05)
    assert interval.low == pytest.approx(value - 1.96 * error, abs=0.15 * error)
    assert interval.high == pytest.approx(value + 1.96 * error, abs=0.15 * error)


def test_a_mean_has_the_interval_of_scipy():
    samples = make_samples(images=60, per_image=1)
    theirs = stats.bootstrap([[sample['cider'] for sample in samples]], np.mean, n_resamples=20000,
                             method='percentile', rng=np.random.default_rng(1)).confidence_interval
    ours = value_and_spread(samples, 'cider', resamples=20000)[2]
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.02 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.02 * width)


@pytest.mark.parametrize('name', ['ciou', 'giou'])
def test_the_spread_of_a_ratio_over_images_is_that_of_its_linearisation(name):
    samples = make_samples(images=400)
    numerators, denominators = (column.reshape(400, 3).sum(axis=1) for column in fraction(samples, name))
    value, spread, _ = value_and_spread(samples, name, resamples=4000)
    residuals = numerators - value * denominators
    assert spread == pytest.approx(np.sqrt(np.sum(residuals**2)) / denominators.sum(), rel=0.05)


def test_images_are_drawn_and_not_sentences():
    samples = make_samples(images=30, per_image=1)
    repeated = [dict(sample, sample_id=f'{sample["sample_id"]}_{n}') for sample in samples for n in range(10)]
    assert resample(repeated, ['giou'])['giou'].draws == pytest.approx(resample(samples, ['giou'])['giou'].draws)


def test_draws_equal_a_plain_loop_over_them():
    samples = make_samples(images=6)
    ours = resample(samples, ['ciou', 'giou'], resamples=5, seed=3)
    counts = np.random.default_rng(3).multinomial(6, [1 / 6] * 6, size=5)
    for number, row in enumerate(counts):
        chosen = [sample for image, times in enumerate(row) for _ in range(times)
                  for sample in samples if sample['image'] == f'{image:04}']
        scores = MaskScores([each['intersection'] for each in chosen], [each['union'] for each in chosen])
        assert ours['ciou'].draws[number] == pytest.approx(scores.ciou)
        assert ours['giou'].draws[number] == pytest.approx(scores.giou)


def test_the_order_of_samples_and_the_size_of_chunks_do_not_matter(monkeypatch):
    samples = make_samples()
    whole = resample(samples, NAMES, resamples=50)
    monkeypatch.setattr(bootstrap, 'CHUNK', 100)
    pieces = resample(samples[::-1], NAMES, resamples=50)
    for name in NAMES:
        np.testing.assert_allclose(pieces[name].draws, whole[name].draws)


def test_the_difference_of_equal_results_is_exactly_zero():
    one, other = (resample(make_samples(), NAMES) for _ in range(2))
    for name in NAMES:
        delta = (other[name] - one[name]).estimate
        assert (delta.value, delta.low, delta.high) == (0, 0, 0)


def test_a_difference_is_paired():
    """A constant gain on every sentence is certain, however much the images differ."""
    base = make_samples()
    better = [dict(sample, cider=sample['cider'] + 0.125) for sample in base]
    delta = (resample(better, ['cider'])['cider'] - resample(base, ['cider'])['cider']).estimate
    assert [delta.value, delta.low, delta.high] == pytest.approx([0.125] * 3, abs=1e-12)


def test_one_image_leaves_no_room():
    samples = make_samples(images=1)
    for figures in resample(samples, NAMES).values():
        interval = figures.estimate
        assert interval.low == interval.high == pytest.approx(interval.value)


def test_other_seeds_draw_otherwise():
    samples = make_samples()
    first, again, other = (resample(samples, ['ciou'], seed=seed)['ciou'].draws for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_a_condition_counts_its_own_samples_only():
    samples = [dict(sample, condition=condition, frame=frame, cider=len(condition) * len(frame))
               for sample in make_samples(images=5) for condition in ('human', 'own') for frame in ('same', 'paired')]
    names = ['cider', 'cider/human', 'cider/human/paired', 'cider/own/same']
    assert [figure.value for figure in resample(samples, names).values()] == [20, 25, 30, 12]


def test_a_resample_without_the_condition_is_left_out():
    samples = [dict(image=0, condition='rare', cider=1.0), *[dict(image=n, condition='usual', cider=0.0)
                                                            for n in range(1, 4)]]
    figures = resample(samples, ['cider/rare'])['cider/rare']
    assert np.isnan(figures.draws).mean() == pytest.approx(0.75**4, abs=0.05)
    assert (figures.estimate.low, figures.estimate.high) == (1, 1)


@pytest.mark.parametrize('name, message', [
    ('meteor', "the metric 'meteor' needs: 'meteor'"),
    ('precision@half', 'could not convert'),
    ('giou/nowhere', "'giou/nowhere' counts none"),
    ('sample_id', "'sample_id' is no number"),
])
def test_a_metric_that_the_samples_do_not_have_is_refused(name, message):
    with pytest.raises(ResultsError, match=message):
        resample(make_samples(images=2), [name])


def test_no_samples_are_refused():
    with pytest.raises(ResultsError, match='no samples'):
        resample([], ['ciou'])
