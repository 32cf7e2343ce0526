"""Several ranks equal one process: the real runners, DeepSpeed and the real loop on two and more against one.

The cases of one kind of launch run one after the other in the same processes, see ``tests/ranks/run_cases.py``.
"""

import hashlib
import itertools
import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

pytest.importorskip('xtuner')
pytest.importorskip('deepspeed')

#: Largest |p - p_ref| of a tensor, as a share of the largest |p_ref - p_start|.
BOUND = 1e-4
#: Of the logged cosine, absolute; of losses, relative.
LOG_BOUND = 1e-5
#: Of gradient norms, relative: rounding has moved the weights that those of later steps are of. 1.4e-5 was seen.
NORM_BOUND = 5e-5
NORMS = ('grad_norm1', 'grad_norm2', 'grad_norm')
LOSSES = ('loop1/loss', 'loop1/mask', 'loop1/dice', 'loop1/answer', 'loop2/loss', 'loop2/caption', 'loop2/answer')
WORLD_SIZE, BATCH_SIZE, STEPS = 2, 2, 6

FACTORS = dict(
    mode=('ddp', 'zero1', 'zero2'), accumulation=(1, 3), clip=(None, 1.0), checkpointing=(False, True), seed=(0, 1),
    beta=(0.5, 1.0), rule=('orthogonal', 'pcgrad', 'sum'))


def case_of(*values, **options) -> dict:
    case = dict(zip(FACTORS, values))
    words = [case['mode'], f'accumulate{case["accumulation"]}', 'clip' if case['clip'] else 'noclip',
             'checkpointing' if case['checkpointing'] else 'plain', f'seed{case["seed"]}', f'beta{case["beta"]}',
             case['rule']]
    return dict(name='-'.join(words)) | case | options


#: Every two values of two factors meet in a case.
COVERING = [case_of(*values) for values in (
    ('ddp', 1, None, False, 0, 0.5, 'sum'),
    ('ddp', 3, 1.0, False, 1, 0.5, 'pcgrad'),
    ('ddp', 3, 1.0, True, 0, 1.0, 'orthogonal'),
    ('zero1', 1, None, True, 1, 0.5, 'orthogonal'),
    ('zero1', 1, 1.0, False, 0, 1.0, 'pcgrad'),
    ('zero1', 3, 1.0, True, 0, 1.0, 'sum'),
    ('zero2', 1, None, False, 1, 1.0, 'orthogonal'),
    ('zero2', 1, 1.0, True, 1, 0.5, 'sum'),
    ('zero2', 3, None, True, 0, 0.5, 'pcgrad'),
)]
UNAVERAGED = dict(name='unaveraged', mode='ddp', averaging=False)
#: Rank 1 reads the samples at odd places, in order.
UNUSABLE = [
    dict(name='unusable-loop1', mode='ddp', shuffle=False, samples=('loop1_odd_empty', 'loop2')),
    dict(name='unusable-both', mode='zero2', accumulation=3, shuffle=False,
         samples=('loop1_odd_empty', 'loop2_odd_empty')),
]
THREE_LOOPS = [
    dict(name='three-loops-joined', mode='zero2', clip=1.0, supervised='joined'),
    dict(name='three-loops-own', mode='ddp', accumulation=3, supervised='own'),
]
#: Options of loop 1 that ask teacher and listener for masks, and samples with several objects.
OF_LOOP1 = [
    dict(name='loop1-options', mode='ddp', accumulation=3, clip=1.0,
         loop1=dict(distill_weight=0.5, reward_weight=0.5)),
    dict(name='loop1-objects', mode='zero2', clip=1.0, samples=('loop1_objects', 'loop2')),
]
#: The teacher's words in the slot, a bounded bridge, and rows that the teacher does not find left out.
OPTIONS = dict(name='options-of-loop1', mode='ddp', accumulation=3, clip=1.0, loop1=dict(
    slot='teacher', bridge_gradient=0.5, bridge_max_norm=0.005, min_cycle_iou=0.02))
#: One loss of one rank is not a number in the third of six steps.
NAN_STEP = 2
NAN = [dict(name=f'nan-loop{loop}-{mode}', mode=mode, accumulation=accumulation, clip=1.0, snapshots=True,
            nan=dict(loop=loop, step=NAN_STEP, rank=rank))
       for loop, mode, accumulation, rank in ((1, 'ddp', 3, 1), (2, 'zero1', 1, 0), (1, 'zero2', 1, 1),
                                              (2, 'zero2', 3, 1))]
#: As many rows in a step in all of them.
MORE_RANKS = [
    dict(name='four-ranks', ranks=4, mode='zero2', accumulation=3, clip=1.0),
    dict(name='eight-ranks', ranks=8, batch_size=1, mode='zero2', clip=1.0, samples=('loop1_of_8', 'loop2')),
]
FULL = [case_of(*values, 'orthogonal') for values in itertools.product(*list(FACTORS.values())[:-1])]


def reference_of(case: dict) -> dict:
    """The same in one process on batches as large as those of all ranks together, without checkpointing."""
    rows = case.get('ranks', WORLD_SIZE) * case.get('batch_size', BATCH_SIZE)
    reference = dict(case, mode='plain', ranks=1, batch_size=rows, averaging=True, checkpointing=False)
    if nan := case.get('nan'):
        reference['nan'] = dict(nan, rank=0)
    settings = {key: value for key, value in reference.items() if key not in ('name', 'mode', 'snapshots')}
    return dict(reference, name=f'reference-{hashlib.sha1(json.dumps(settings, sort_keys=True).encode()).hexdigest()}')


@pytest.fixture(scope='module')
def run_cases(launch_cases, tmp_path_factory):
    """Train cases in their processes and the references in one; gives the folder of the records."""

    def run(cases: list[dict]) -> Path:
        out = tmp_path_factory.mktemp('runs')
        references = {reference['name']: reference for reference in map(reference_of, cases)}
        by_ranks: dict[int, list[dict]] = {1: [*references.values()]}
        for case in cases:
            by_ranks.setdefault(case.get('ranks', WORLD_SIZE), []).append(case)
        launch_cases(out, *((those, ranks) for ranks, those in by_ranks.items()))
        return out

    return run


def records(out: Path, case: dict) -> list[dict]:
    """What each rank recorded."""
    files = sorted((out / case['name']).glob('rank*/record.pt'))
    return [torch.load(file, weights_only=True) for file in files]


@dataclass
class Difference:
    """How far the ranks end from one process; ratios as in :data:`BOUND`, of the worst tensor."""

    weights: float
    ema: float
    moments: float
    cosine: float
    losses: float
    norms: float
    moved: float  # of the tensor that moved least
    worst: str

    @property
    def within(self) -> bool:
        return (self.moved > 0 and max(self.weights, self.ema) <= BOUND and self.moments <= 1e-3
                and max(self.cosine, self.losses) <= LOG_BOUND and self.norms <= NORM_BOUND)


def compare(out: Path, case: dict) -> Difference:
    """Compare a case with its reference; that the ranks equal each other to the bit is asserted on the way."""
    ranks, [reference] = records(out, case), records(out, reference_of(case))
    assert len(ranks) == case.get('ranks', WORLD_SIZE)
    first = ranks[0]
    for tensors in ('start', 'final', 'ema') if case.get('averaging', True) else ('start', ):
        for name, value in first[tensors].items():
            assert all(torch.equal(value, other[tensors][name]) for other in ranks), f'{tensors} of {name}'
            assert tensors != 'start' or torch.equal(value, reference['start'][name]), name
    assert all(record['num_updates'] == reference['num_updates'] for record in ranks)
    start = reference['start']
    moved = {name: largest(reference['final'][name] - start[name]) for name in start}
    assert min(moved.values()) > 0, f'{min(moved, key=moved.get)} did not move'
    weights = {name: largest(first['final'][name] - reference['final'][name]) / moved[name] for name in start}
    ema = {name: largest(first['ema'][name] - value) / largest(value - start[name])
           for name, value in reference['ema'].items()}
    # A key bias has no gradient but rounding, below 1e-9.
    moments = {name: largest(first['exp_avg'][name] - value) / largest(value)
               for name, value in reference['exp_avg'].items() if largest(value) > 1e-9}
    assert len(moments) > 0.8 * len(start)
    cosine, losses, norms = 0.0, 0.0, 0.0
    for step, expected in enumerate(reference['scalars']):
        logs = [record['scalars'][step] for record in ranks]
        assert all(('cosine' in one) == ('cosine' in expected) for one in logs)
        if 'cosine' in expected:
            cosine = max(cosine, *(abs(one['cosine'] - expected['cosine']) for one in logs))
            # Each rank logs the losses of its own rows.
            far = {name: abs(sum(one[name] for one in logs) / len(logs) - expected[name]) / abs(expected[name])
                   for name in (*NORMS, *LOSSES)}
            losses, norms = max(losses, *map(far.get, LOSSES)), max(norms, *map(far.get, NORMS))
    return Difference(max(weights.values()), max(ema.values()), max(moments.values()), cosine, losses, norms,
                      min(moved.values()), max(weights, key=weights.get))


def largest(tensor: torch.Tensor) -> float:
    return tensor.abs().max().item()


@pytest.fixture(scope='module')
def covering(run_cases) -> Path:
    cases = [*COVERING, UNAVERAGED, *UNUSABLE, *THREE_LOOPS, OPTIONS, *OF_LOOP1, *NAN]
    out = run_cases(cases)
    write_table(out, cases)
    return out


def write_table(out: Path, cases: list[dict]) -> None:
    """Append the results to the Markdown file that the environment variable RANKS_TABLE names, if it does."""
    if not (path := os.environ.get('RANKS_TABLE')):
        return
    lines = ['', '| case | weights | EMA | first moments | cosine | losses, norms | within |', '|' + '---|' * 7]
    for case in cases:
        found = compare(out, case)
        lines.append(f'| {case["name"]} | {found.weights:.1e} | {found.ema:.1e} | {found.moments:.1e} | '
                     f'{found.cosine:.1e} | {max(found.losses, found.norms):.1e} | {"yes" if found.within else "no"} |')
    with open(path, 'a') as file:
        file.write('\n'.join(lines) + '\n')


def names(cases: list[dict]) -> list[str]:
    return [case['name'] for case in cases]


def test_covering_set_has_every_pair_of_settings():
    for (one, ones), (other, others) in itertools.combinations(FACTORS.items(), 2):
        found = {(case[one], case[other]) for case in COVERING}
        assert found == set(itertools.product(ones, others)), (one, other)


@pytest.mark.parametrize('case', COVERING, ids=names(COVERING))
def test_two_ranks_equal_one_process(covering, case):
    found = compare(covering, case)
    assert found.within, found


@pytest.mark.parametrize('case', COVERING, ids=names(COVERING))
def test_settings_take_effect(covering, case):
    """Else the equality above would say little."""
    record = records(covering, case)[0]
    scalars = record['scalars']
    assert len(scalars) == STEPS
    assert record['checkpointing'] == case['checkpointing']
    assert (record['wrapper'], record['stage']) == dict(
        ddp=('MMDistributedDataParallel', 0), zero1=('MMDeepSpeedEngineWrapper', 1),
        zero2=('MMDeepSpeedEngineWrapper', 2))[case['mode']]
    for step in scalars:
        clipped = step['grad_norm_clipped'] < 0.9 * step['grad_norm']
        assert clipped == bool(case['clip'])
    if case['rule'] == 'pcgrad':
        assert all((step['w1'] > 1) == (step['coefficient'] < 0) for step in scalars)
    if case['rule'] == 'orthogonal':
        assert all(step['w1'] == pytest.approx(1 - case['beta'] * step['coefficient']) for step in scalars)
        assert all(step['w2'] == case['beta'] for step in scalars)


def test_gradients_agree_in_some_steps_and_conflict_in_others(covering):
    steps = [step for case in COVERING if case['rule'] == 'pcgrad'
             for step in records(covering, case)[0]['scalars']]
    assert {step['coefficient'] < 0 for step in steps} == {True, False}


def test_without_averaging_the_bound_is_exceeded_a_hundredfold(covering):
    found = compare(covering, UNAVERAGED)
    assert found.weights > 100 * BOUND and found.ema > 100 * BOUND and found.cosine > 100 * LOG_BOUND


@pytest.mark.parametrize('case', THREE_LOOPS, ids=names(THREE_LOOPS))
def test_three_loops_on_two_ranks_equal_one_process(covering, case):
    found = compare(covering, case)
    assert found.within, found
    for step in records(covering, case)[0]['scalars']:
        assert step['supervised/loss'] > 0
        # Joined, it is a part of the first of two gradients; else there is a third one, and a Gramian of the two that
        # reach the mask decoder.
        assert {'w3', 'cosine13', 'w3/1+3'} <= set(step) if case['supervised'] == 'own' else 'w3' not in step


def test_two_ranks_with_the_options_of_loop1_equal_one_process(covering):
    found = compare(covering, OPTIONS)
    assert found.within, found
    kept = [step['loop1/rows_kept'] for record in records(covering, OPTIONS) for step in record['scalars']]
    assert min(kept) < 1 and max(kept) > 0


@pytest.mark.parametrize('case', OF_LOOP1, ids=names(OF_LOOP1))
def test_two_ranks_with_further_terms_and_objects_equal_one_process(covering, case):
    found = compare(covering, case)
    assert found.within, found
    ranks, [reference] = records(covering, case), records(covering, reference_of(case))
    for step, expected in enumerate(reference['scalars']):
        for part in ('distill', 'score') * ('loop1' in case):
            mean = sum(record['scalars'][step][f'loop1/{part}'] for record in ranks) / WORLD_SIZE
            assert mean == pytest.approx(expected[f'loop1/{part}'], rel=1e-4, abs=1e-6) and mean != 0
        if 'samples' in case:  # rows have their own numbers on each rank
            names = [sum(record['order'][step]['loop1'], []) for record in ranks]
            assert sorted(sum(names, [])) == sorted(sum(reference['order'][step]['loop1'], []))
    if 'samples' in case:
        sizes = [[len(sum(step['loop1'], [])) for step in record['order']] for record in ranks]
        assert sizes[0] != sizes[1] and max(map(max, sizes)) > BATCH_SIZE


@pytest.mark.parametrize('case', UNUSABLE, ids=names(UNUSABLE))
def test_a_rank_without_usable_rows_counts_with_value_zero(covering, case):
    found = compare(covering, case)
    assert found.within, found
    scalars = records(covering, case)[1]['scalars']
    for loop in (1, 2):
        losses = [step[f'loop{loop}/loss'] for step in scalars]
        unusable = f'loop{loop}_odd_empty' in case['samples']
        assert all((loss == 0) == unusable for loss in losses)


@pytest.mark.parametrize('case', NAN, ids=names(NAN))
def test_nan_on_one_rank_skips_the_step_on_all(covering, case):
    for record in records(covering, case):
        snapshots = record['snapshots']
        assert snapshots[NAN_STEP] == snapshots[NAN_STEP - 1]  # weights, EMA and optimizer state
        for step in (1, NAN_STEP + 1):
            assert all(snapshots[step][key] != snapshots[step - 1][key] for key in snapshots[step])
        assert record['num_updates'] == STEPS - 1
        assert ['cosine' in step for step in record['scalars']] == [step != NAN_STEP for step in range(STEPS)]
    found = compare(covering, case)
    assert found.within, found


@pytest.mark.full
@pytest.mark.parametrize('case', MORE_RANKS, ids=names(MORE_RANKS))
def test_more_ranks_equal_one_process(run_cases, case):
    out = run_cases([case])
    write_table(out, [case])
    found = compare(out, case)
    assert found.within, found


@pytest.mark.full
def test_full_matrix(run_cases):
    out = run_cases(FULL)
    write_table(out, FULL)
    outside = {case['name']: found for case in FULL if not (found := compare(out, case)).within}
    assert not outside
