"""The runs of the proof: what an arm changes, and that nothing else differs."""

import pytest

from dual_loop.proof.plan import BEST_SUPERVISED_STEPS, FEW, MAIN, MAIN_STEPS, SHARE_STEPS, Run, arms, stage

SECONDS = {'supervised': 0.1, 'loop2': 0.2, 'both': 0.4, 'discrete': 0.4}


@pytest.fixture(scope='module')
def configs(checkout):
    return {arm: Run(arm).config(checkout) for arm in arms(checkout)}


def loaders(cfg):
    """Loop -> its loader."""
    names = [loop.get('name', loop.type.name) for loop in cfg.model.loops]
    return {names[0]: cfg.train_dataloader} | dict(cfg.train_cfg.loop_dataloaders)


def test_all_arms_of_the_plan_are_there(configs):
    assert set(MAIN) <= configs.keys() and len(configs) == 32


@pytest.mark.parametrize('key', ['train_cfg.max_steps', 'optim_wrapper', 'param_scheduler', 'val_dataloader',
                                 'custom_hooks', 'model.base', 'randomness'])
def test_what_all_arms_share(configs, key):
    found = []
    for cfg in configs.values():
        for part in key.split('.'):
            cfg = cfg[part]
        found.append(cfg)
    assert all(each == found[0] for each in found)


def test_every_arm_but_the_ceiling_has_the_supervised_stream_of_the_captioned_scenes(configs):
    for arm, cfg in configs.items():
        last = loaders(cfg)['supervised']
        assert last.batch_size == 16
        if arm != 'ceiling':
            assert last.dataset.datasets == configs['supervised'].train_dataloader.dataset.datasets, arm


def test_no_two_data_sets_of_a_loader_have_one_name(configs):
    """Which training refuses."""
    for arm, cfg in configs.items():
        for loader in loaders(cfg).values():
            names = [(each.get('name') or each.type.__name__, each.get('split')) for each in loader.dataset.datasets]
            assert len(set(names)) == len(names), (arm, names)


LOOP1 = '.model.loops.0.'


@pytest.mark.parametrize(('arm', 'other', 'changed'), [
    *[(arm, 'both', LOOP1) for arm in ('detached', 'bounded', 'clean_slot', 'uncorrupted', 'undenoised', 'filtered',
                                       'discrete', 'distilled', 'rewarded', 'soft', 'weak')],
    *[(arm, 'both', '.train_cfg.surgery.') for arm in ('sum', 'pcgrad')],
    *[(arm, 'both', '.model.teacher') for arm in ('live', 'frozen')],
    *[(arm, 'both', '.train_dataloader.') for arm in ('several', 'same_frame')],
    *[(f'discrete_{arm}', 'discrete', LOOP1) for arm in ('filtered', 'distilled', 'late')],
    ('discrete_sum', 'discrete', '.train_cfg.surgery.'), ('discrete_live', 'discrete', '.model.teacher'),
    *[(f'discrete_{arm}', 'discrete', '.train_dataloader.') for arm in ('several', 'wide')],
    ('soft_bounded', 'soft', LOOP1), ('soft_sampled', 'soft_bounded', LOOP1),
])
def test_an_arm_differs_in_what_it_is_called_after_alone(configs, arm, other, changed):
    def flat(value, prefix=''):
        if not isinstance(value, (dict, list, tuple)):
            return {prefix: value}
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for name, each in pairs for key, leaf in flat(each, f'{prefix}.{name}').items()}

    parts = ('model', 'train_dataloader', 'train_cfg')
    own, others = (flat({part: configs[name][part] for part in parts}) for name in (arm, other))
    found = {key for key in own.keys() | others.keys() if own.get(key) != others.get(key)}
    assert found and all(key.startswith(changed) for key in found), found


def test_settings_of_a_run_reach_its_config(checkout):
    cfg = Run('both', steps=30, rate=1e-3, percent='20', seed=7, held_out='test').config(checkout)
    assert cfg.train_cfg.max_steps == 30 and cfg.optim_wrapper.optimizer.lr == 1e-3 and cfg.randomness.seed == 7
    assert [(each.begin, each.end) for each in cfg.param_scheduler] == [(0, 15), (15, 30)]
    assert {each.data_root.split('/')[2] for each in cfg.train_cfg.loop_dataloaders.supervised.dataset.datasets} == {
        'captioned_20'}
    assert cfg.val_dataloader.dataset.data_root == 'data/demo_b/test/ref_seg'
    described = [each.data_root for hook in cfg.custom_hooks for each in hook.get('datasets', ())]
    assert described == ['data/demo_b/test/dam']
    ceiling = Run('ceiling', percent='1').config(checkout).train_dataloader.dataset.datasets
    assert {each.data_root.split('/')[2] for each in ceiling} == {'captioned_1', 'captions'}


def test_equal_time_gives_the_faster_arm_more_steps(checkout):
    runs = stage('main', checkout, SECONDS)
    assert {run.held_out for run in runs} == {'test'} and {run.seed for run in runs} == {*range(5)}
    lengths = {arm: {run.steps for run in runs if run.arm == arm} for arm in MAIN}
    assert lengths['supervised'] == {BEST_SUPERVISED_STEPS, MAIN_STEPS, 4 * MAIN_STEPS}
    assert lengths['both'] == {MAIN_STEPS} and lengths['loop2'] == {MAIN_STEPS, 2 * MAIN_STEPS}
    assert lengths['ceiling'] == {MAIN_STEPS, 4 * MAIN_STEPS}
    assert len({run.name for run in runs}) == len(runs)


def test_other_shares_have_the_same_time_and_supervised_several_lengths(checkout):
    runs = stage('shares', checkout, SECONDS)
    assert {(run.percent, run.seed, run.held_out) for run in runs} == {
        (percent, seed, 'test') for percent in ('1', '20') for seed in range(3)}
    lengths = {arm: {run.steps for run in runs if run.arm == arm} for arm in MAIN}
    assert lengths == dict(supervised={*SHARE_STEPS, 4 * MAIN_STEPS}, loop2={2 * MAIN_STEPS}, both={MAIN_STEPS},
                           discrete={MAIN_STEPS}, ceiling=set())
    assert len({run.name for run in runs}) == len(runs)


@pytest.mark.parametrize(('name', 'held_out'), [('arms', 'val'), ('recipe', 'val'), ('speed', 'few')])
def test_the_test_scenes_choose_nothing(checkout, name, held_out):
    assert {run.held_out for run in stage(name, checkout, {})} == {held_out}


def test_a_run_that_measures_seconds_reads_few_scenes(checkout):
    whole, few = (Run('both', held_out=name).config(checkout) for name in ('val', 'few'))
    assert few.val_dataloader.dataset == whole.val_dataloader.dataset | dict(max_samples=FEW)
    numbers = [[hook.num_samples for hook in cfg.custom_hooks if 'num_samples' in hook] for cfg in (whole, few)]
    assert numbers == [[400], [FEW]]


def test_a_loop_that_begins_late_rests_for_the_same_share_and_never_where_seconds_are_measured(checkout):
    first = [Run('discrete_late', steps, held_out=held_out).config(checkout).model.loops[0].first_step
             for steps, held_out in ((600, 'val'), (1000, 'test'), (60, 'few'))]
    assert first == [300, 500, 0]


def test_time_that_was_not_measured_is_not_guessed(checkout):
    with pytest.raises(ValueError, match='loop2.*stage speed first'):
        stage('shares', checkout, {name: value for name, value in SECONDS.items() if name != 'loop2'})
    with pytest.raises(ValueError, match='no stage'):
        stage('everything', checkout, SECONDS)
