"""A run in three parts equals one in a single part, to the bit; so does one that a signal cut off."""

import sys
from pathlib import Path

import pytest
import torch

from dual_loop.checkpoints.files import check_whole, read_state, read_trained
from dual_loop.engine.resume import latest_checkpoint

pytest.importorskip('xtuner')
pytest.importorskip('deepspeed')

STEPS = 6
#: Six steps of two samples are two and three epochs in one process, four and six in two.
RUN = dict(steps=STEPS, batch_size=2, clip=1.0, dropout=0.2, accumulation=1, checkpoint_interval=2)


def setting(mode: str, processes: int, workers: int) -> dict:
    return dict(name=f'{mode}-{processes}-workers{workers}', processes=processes, mode=mode, workers=workers)


#: The module is cast to bf16, trained values have fp32 masters in DeepSpeed.
BF16 = setting('zero2_bf16', 1, 0)
#: The same with a teacher that speaks with the weights of the start, or with the student's.
FROZEN, LIVE = (dict(BF16, name=f'{teacher}-teacher', teacher=teacher) for teacher in ('frozen', 'live'))
#: Loop 1 asks the teacher and a frozen listener for masks, of samples with several objects.
OPTIONS = dict(setting('plain', 1, 0), name='loop1-options', samples=('loop1_objects', 'loop2'),
               loop1=dict(distill_weight=0.5, reward_weight=0.5))
#: Decoder layers are compiled, and inductor draws their dropout.
COMPILED = dict(setting('plain', 1, 0), name='compiled', compile=True)
SETTINGS = [setting('plain', 1, 2), setting('zero2', 1, 0), setting('ddp', 2, 0), setting('zero2', 2, 2)]
FURTHER = [setting('plain', 1, 0), setting('zero2', 1, 2), setting('ddp', 2, 2), setting('zero2', 2, 0),
           setting('zero1', 2, 2), setting('zero2_bf16', 2, 2)]


def case(setting: dict, part: str, **options) -> dict:
    named = dict(name=f'{setting["name"]}-{part}', mode=setting['mode'], workers=setting['workers'],
                 teacher=setting.get('teacher', 'ema'), compile=setting.get('compile', False))
    named |= {key: setting[key] for key in ('samples', 'loop1') if key in setting}
    return RUN | named | options


def parts(setting: dict) -> list[dict]:
    """The whole run, and the same in three parts."""
    return [case(setting, 'whole'),
            case(setting, 'first', stop_after=2),
            case(setting, 'second', resume=f'{setting["name"]}-first/iter_2.pth', stop_after=4),
            case(setting, 'third', resume=f'{setting["name"]}-second/iter_4.pth')]


#: Where SIGTERM arrives, and the steps that are then on the disk. With two processes only one gets it.
PLACES = dict(passes=(3, 3), decoding=(3, 3), update=(3, 4), validation=(4, 4), writing=(4, 4))


def interrupted(setting: dict) -> list[dict]:
    """Runs that are asked to stop at each place, and their continuations."""
    cases = []
    for place, (step, kept) in PLACES.items():
        # The last process gets it; the first one publishes checkpoints.
        rank = 0 if place == 'writing' else setting['processes'] - 1
        fault = dict(name='TERM', place=place, step=step, rank=rank)
        cases += [case(setting, place, fault=fault, validate_every=4),
                  case(setting, f'{place}-rest', resume=f'{setting["name"]}-{place}/iter_{kept}.pth',
                       validate_every=4)]
    return cases


@pytest.fixture(scope='module')
def run_settings(launch_cases, tmp_path_factory):
    """Train all parts of some settings, those of one process side by side with those of two."""

    def run(settings: list[dict], stops: list[dict]) -> Path:
        out = tmp_path_factory.mktemp('parts')
        launches = []
        for processes in (1, 2):
            cases = [one for each in settings if each['processes'] == processes for one in parts(each)]
            cases += [one for each in stops if each['processes'] == processes for one in interrupted(each)]
            if cases:
                launches.append((cases, processes))
        launch_cases(out, *launches)
        return out

    return run


@pytest.fixture(scope='module')
def covering(run_settings) -> Path:
    return run_settings([*SETTINGS, BF16, FROZEN, LIVE, OPTIONS], [SETTINGS[0], SETTINGS[3]])


def records(out: Path, name: str, processes: int) -> list[dict]:
    return [torch.load(out / name / f'rank{rank}' / 'record.pt', weights_only=True) for rank in range(processes)]


def assert_same_end(record: dict, whole: dict) -> None:
    """Weights, EMA, optimizer and the log's history at the end."""
    for state in ('final', 'ema', 'exp_avg'):
        assert record[state].keys() == whole[state].keys()
        assert all(torch.equal(value, whole[state][name]) for name, value in record[state].items()), state
    assert record['num_updates'] == whole['num_updates']
    assert torch.equal(record['history'], whole['history']) and len(whole['history']) == STEPS


def assert_parts_equal_whole(out: Path, setting: dict) -> None:
    for rank, whole in enumerate(records(out, f'{setting["name"]}-whole', setting['processes'])):
        joined = dict(scalars=[], order=[])
        for part in ('first', 'second', 'third'):
            record = records(out, f'{setting["name"]}-{part}', setting['processes'])[rank]
            assert len(record['scalars']) == 2
            joined = {key: values + record[key] for key, values in joined.items()}
        assert joined == {key: whole[key] for key in joined}
        assert_same_end(record, whole)
        assert any(not torch.equal(value, whole['start'][name]) for name, value in whole['final'].items())


@pytest.mark.parametrize('setting', [*SETTINGS, BF16, FROZEN, LIVE, OPTIONS], ids=lambda setting: setting['name'])
def test_three_parts_equal_the_whole(covering, setting):
    assert_parts_equal_whole(covering, setting)


def test_teachers_say_the_same_at_first_and_then_differ(covering):
    """The student of the first step is the average, and the start."""
    [one], [two], [three] = (records(covering, f'{each["name"]}-whole', 1) for each in (BF16, FROZEN, LIVE))
    losses = [[step['loop1/denoise'] for step in record['scalars']] for record in (one, two, three)]
    assert losses[0][0] == losses[1][0] == losses[2][0]
    assert losses[0] != losses[1] != losses[2] != losses[0]


def test_workers_and_processes_change_no_more_than_they_should(covering):
    """The settings above would be equal without any effect if dropout and order were not used."""
    [whole] = records(covering, 'plain-1-workers2-whole', 1)
    orders = [tuple(sum(step['loop1'], [])) for step in whole['order']]
    assert len(set(orders[:3])) == 3 and set(orders[:3]) != set(orders[3:])  # both epochs have an order of their own
    assert sorted(sum(map(list, orders[:6]), [])) == sorted(f'sample{key}' for key in range(12))


def test_averages_follow_the_fp32_masters_of_bf16_weights(covering):
    [whole] = records(covering, f'{BF16["name"]}-whole', 1)
    name = next(iter(whole['final']))
    masters, average = whole['masters'], whole['masters'][0].clone()
    for updates, master in enumerate(masters[1:]):
        average += (1 - min(0.999, (1 + updates) / (10 + updates))) * (master - average)
    torch.testing.assert_close(whole['ema'][name], average, rtol=1e-6, atol=1e-8)
    # The passes use the rounded values, which do not follow every step.
    assert torch.equal(whole['final'][name], masters[-1].bfloat16().float())
    assert not torch.equal(whole['final'][name], masters[-1])
    saved = read_trained(covering / f'{BF16["name"]}-whole' / f'iter_{STEPS}.pth')
    assert torch.equal(saved.trainables[name], masters[-1]) and torch.equal(saved.ema[name], whole['ema'][name])


def test_every_file_of_a_folder_has_its_sum(covering):
    folder = covering / 'zero2-2-workers2-whole' / f'iter_{STEPS}.pth'
    files = {file.name for file in folder.iterdir()} - {'state.json'}
    assert read_state(folder)[1].keys() == files and len(files) == 2 + 1 + 2
    check_whole(folder)


def assert_stop_is_exact(out: Path, setting: dict, place: str) -> None:
    kept = PLACES[place][1]
    name, folder = setting['name'], out / f'{setting["name"]}-{place}'
    for rank in range(setting['processes']):
        assert (folder / f'rank{rank}' / 'status').read_text() == '143'
    assert latest_checkpoint(folder).name == f'iter_{kept}.pth'
    assert not list(folder.glob('*.partial'))
    assert read_trained(folder / f'iter_{kept}.pth').step == kept
    wholes = records(out, f'{name}-whole', setting['processes'])
    for record, whole in zip(records(out, f'{name}-{place}-rest', setting['processes']), wholes, strict=True):
        assert record['scalars'] == whole['scalars'][kept:]
        assert_same_end(record, whole)


@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('setting', [SETTINGS[0], SETTINGS[3]], ids=lambda setting: setting['name'])
def test_sigterm_leaves_a_state_that_continues_exactly(covering, setting, place):
    assert_stop_is_exact(covering, setting, place)


@pytest.mark.skipif(' ' in sys.prefix, reason='torch.compile on a CPU cannot be in a folder with a space: g++ gets the '
                    'path in two parts')
def test_a_compiled_run_continues_exactly_after_sigterm(launch_cases, tmp_path):
    stopped, rest = interrupted(COMPILED)[:2]
    assert stopped['fault']['place'] == 'passes'
    launch_cases(tmp_path, ([case(COMPILED, 'whole'), stopped, rest], 1))
    assert_stop_is_exact(tmp_path, COMPILED, 'passes')


@pytest.mark.parametrize('mode', ['plain', pytest.param('zero2', marks=pytest.mark.full)])
@pytest.mark.parametrize('place', ['writing', 'deleting'])
def test_sigkill_while_saving_leaves_a_checkpoint(launch_cases, tmp_path, mode, place):
    alone = setting(mode, 1, 0)
    killed = case(alone, 'killed', save_total_limit=1, fault=dict(name='KILL', place=place, step=4))
    launch_cases(tmp_path, ([killed], 1), status=-9)
    folder = tmp_path / killed['name']
    left = latest_checkpoint(folder)
    assert left.name == dict(writing='iter_2.pth', deleting='iter_4.pth')[place]
    rest = case(alone, 'rest', resume=f'{killed["name"]}/{left.name}', save_total_limit=1)
    launch_cases(tmp_path, ([case(alone, 'whole'), rest], 1))
    [record], [whole] = records(tmp_path, rest['name'], 1), records(tmp_path, f'{alone["name"]}-whole', 1)
    assert_same_end(record, whole)
    assert [path.name for path in (tmp_path / rest['name']).glob('iter_*')] == ['iter_6.pth']


@pytest.mark.full
def test_all_settings(run_settings):
    out = run_settings(FURTHER, FURTHER)
    for each in FURTHER:
        assert_parts_equal_whole(out, each)
        for place in PLACES:
            assert_stop_is_exact(out, each, place)


@pytest.mark.full
def test_four_ranks_continue_exactly_after_sigterm(launch_cases, tmp_path):
    four = setting('zero2', 4, 0)
    stopped, rest = interrupted(four)[:2]
    launch_cases(tmp_path, ([case(four, 'whole'), stopped, rest], 4))
    assert_stop_is_exact(tmp_path, four, 'passes')
