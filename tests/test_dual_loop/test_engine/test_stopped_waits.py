"""Whatever a run waits for, it ends in time when it is asked to or when nothing comes, and keeps its state."""

import re
from pathlib import Path

import pytest

from dual_loop.checkpoints.files import read_trained
from dual_loop.engine.resume import latest_checkpoint

pytest.importorskip('xtuner')

RUN = dict(steps=6, batch_size=2, checkpoint_interval=2, shuffle=False)
#: The fourth step of one process reads this sample.
ALONE = 6
#: Of two, in which rank r reads every second sample from the r-th on: rank 1 alone reads this one, in the second step.
SECOND = 7


def case(name: str, kept: set[int], status: int, says: str, **options) -> dict:
    return dict(name=name, kept=kept, status=status, says=says) | options


def bad(sample: int, action: str | None = None, ask: str | None = None, loader: str = 'train') -> dict:
    return dict(loader=loader, sample=sample, action=action, ask=ask)


LOADER = r'loader of loop 1 \(train_dataloader\)'
ASKED = 'asked to stop: the state after step {kept} is saved'
#: In each of them the main process waits for a sample that never comes.
ONE_PROCESS = [
    # Workers read ahead: on a slow machine the signal comes a step before the wait.
    case('asked-worker', {1, 2, 3}, 143, ASKED, workers=1, bad=bad(ALONE, 'sleep', 'TERM')),
    case('asked-here', {3}, 143, ASKED, workers=0, bad=bad(ALONE, 'sleep', 'INT')),
    case('asked-validation', {2}, 143, ASKED, workers=1, validate_every=2, bad=bad(3, 'sleep', 'TERM', 'val')),
    # Batches that a worker had ready are lost with it.
    case('stopped', {1, 2, 3}, 1, f'no batch came from the {LOADER} within 1 s', workers=2, loader_timeout=1,
         bad=bad(ALONE, 'stop')),
    case('killed', {1, 2, 3}, 1, f'a worker of the {LOADER} was killed by SIGKILL', workers=2, bad=bad(ALONE, 'kill')),
    case('lost', {3}, 1, f'a worker of the {LOADER} could not hand its batch over .*--ipc=host', workers=1,
         bad=bad(ALONE, 'lose')),
]
TWO_PROCESSES = [
    case('two-asked', {0, 1}, 143, ASKED, workers=1, bad=bad(SECOND, 'sleep', 'TERM')),
    case('two-sleeping', {1}, 1, f'no batch came from the {LOADER} within 1 s', workers=1, loader_timeout=1,
         bad=bad(SECOND, 'sleep')),
    case('two-asked-validation', {2}, 143, ASKED, workers=0, validate_every=2, bad=bad(2, 'sleep', 'TERM', 'val')),
]
CASES = [*((each, 1) for each in ONE_PROCESS), *((each, 2) for each in TWO_PROCESSES)]


@pytest.fixture(scope='module')
def runs(launch_cases, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('waits')
    own = ('kept', 'says', 'status')
    launch_cases(out, *(
        ([RUN | dict(mode=mode) | {key: value for key, value in each.items() if key not in own} for each in cases],
         processes) for cases, processes, mode in ((ONE_PROCESS, 1, 'plain'), (TWO_PROCESSES, 2, 'ddp'))))
    return out


@pytest.mark.parametrize(('each', 'processes'), CASES, ids=[each['name'] for each, _ in CASES])
def test_the_state_before_the_wait_is_kept(runs, each, processes):
    folder = runs / each['name']
    for rank in range(processes):
        assert (folder / f'rank{rank}' / 'status').read_text() == str(each['status'])
    kept = read_trained(latest_checkpoint(folder)).step
    assert kept in each['kept'] and latest_checkpoint(folder).name == f'iter_{kept}.pth'
    assert not list(folder.glob('*.partial'))
    said = output(runs, each['name'])
    assert re.search(each['says'].format(kept=kept), said), said
    assert 'Traceback' not in said, said


def output(out: Path, name: str) -> str:
    """What a case said. The launches say name and seconds of each case behind it."""
    for log in out.glob('*.log'):
        said = re.split(r'^([\w-]+): [\d.]+ s$', log.read_text(errors='replace'), flags=re.MULTILINE)
        for text, case_name in zip(said[::2], said[1::2]):
            if case_name == name:
                return text
    raise AssertionError(f'no log of {name}')
