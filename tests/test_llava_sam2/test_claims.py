"""Who works in a place: one process, also after others have died, and where several start at once."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from llava_sam2 import claims
from llava_sam2.claims import STALE, Claim, Claimed, LostClaim, alone

#: Take a claim in another process and tell; it is kept until the process ends.
HOLD = 'import sys, time; from llava_sam2.claims import Claim; Claim(sys.argv[1]).take(); print("held", flush=True); '


def hold(path, then: str = 'time.sleep(60)') -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, '-c', HOLD + then, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'held\n'
    return process


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'owner.json'


@pytest.fixture
def other(path):
    """A live process that has the claim."""
    process = hold(path)
    yield process
    process.kill()
    process.wait()


def age(path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def record(path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_live_owner_is_named_and_keeps_the_claim(path, other):
    with pytest.raises(Claimed, match=rf'process {other.pid} on host {os.uname().nodename} \(last sign of life \d s'):
        Claim(path).take()
    assert json.loads(path.read_text())['pid'] == other.pid


@pytest.mark.parametrize('reaped', [True, False])
def test_a_dead_owner_on_this_host_is_followed_at_once(path, other, reaped):
    other.send_signal(signal.SIGKILL)
    if reaped:
        other.wait()
    else:  # as the children of a container's first process often stay
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    claim = Claim(path)
    claim.take()
    claim.check()
    claim.release()
    assert not list(path.parent.iterdir())


def test_a_number_that_was_given_to_another_process_is_no_sign_of_life(path, other):
    record(path, started='1')
    Claim(path).take()
    assert json.loads(path.read_text())['pid'] == os.getpid()


@pytest.mark.parametrize('place', ['another kernel pid:[4026531836]', ''])
def test_a_number_of_another_machine_or_container_means_nothing(path, other, place):
    """Also where its host has the same name: only silence counts."""
    other.kill()
    other.wait()
    record(path, place=place)
    with pytest.raises(Claimed):
        Claim(path).take()
    age(path, STALE - 10)
    with pytest.raises(Claimed, match=r'last sign of life 29\d s ago'):
        Claim(path).take()
    age(path, STALE + 10)
    Claim(path).take()


def test_an_owner_that_slept_learns_of_it(path, other):
    age(path, STALE + 10)
    mine = Claim(path)
    mine.take()
    mine.check()
    record(path, token='of a third')
    with pytest.raises(LostClaim, match=f'taken over by process {os.getpid()}'):
        mine.check()
    mine.release()
    assert path.exists()  # what another one holds is not given back


def test_a_claim_that_was_deleted_is_made_again(path):
    mine = Claim(path)
    mine.take()
    path.unlink()
    mine.check()
    assert json.loads(path.read_text())['token'] == mine.owner.token
    path.unlink()
    other = hold(path)
    with pytest.raises(LostClaim, match=f'taken over by process {other.pid}'):
        mine.check()
    other.kill()
    other.wait()


def test_the_owner_gives_signs_of_life_until_it_gives_back(path, monkeypatch):
    monkeypatch.setattr(claims, 'BEAT', 0.05)
    claim = Claim(path)
    claim.take()
    age(path, 1000)
    limit = time.monotonic() + 20
    while path.stat().st_mtime < time.time() - 500:
        assert time.monotonic() < limit, 'no sign of life'
        time.sleep(0.02)
    claim.release()
    time.sleep(0.2)
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize('end', ['pass', 'sys.exit(143)', 'raise RuntimeError'])
def test_it_is_given_back_when_the_process_ends(path, end):
    process = hold(path, end)
    process.wait()
    assert not list(path.parent.iterdir())


def test_a_half_written_claim_is_respected_until_it_is_old(path):
    path.write_text('{"host": "no')
    with pytest.raises(Claimed, match='has not given its name'):
        Claim(path).take()
    age(path, STALE + 10)
    Claim(path).take()
    assert json.loads(path.read_text())['pid'] == os.getpid()


RACE = '''
import sys, time
from pathlib import Path
from llava_sam2.claims import Claim, Claimed
path, go = map(Path, sys.argv[1:])
print('ready', flush=True)
while not go.exists():
    time.sleep(0.001)
claim = Claim(path)
try:
    claim.take()
    print('taken', flush=True)
    sys.stdin.read()
    claim.check()
except Claimed:
    print('refused', flush=True)
'''


def test_of_several_that_take_over_at_once_one_does(path):
    for attempt in range(3):
        dead = hold(path)
        dead.kill()
        dead.wait()
        go = path.with_name(f'go{attempt}')
        racers = [subprocess.Popen([sys.executable, '-c', RACE, str(path), str(go)], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True) for _ in range(4)]
        assert all(racer.stdout.readline() == 'ready\n' for racer in racers)
        go.touch()
        said = [racer.stdout.readline().strip() for racer in racers]
        assert sorted(said) == ['refused'] * 3 + ['taken']
        for racer in racers:
            racer.communicate(timeout=30)
            assert racer.returncode == 0
    assert {file.name for file in path.parent.iterdir()} == {'go0', 'go1', 'go2'}


def test_a_take_over_that_was_cut_off_does_not_block_the_next(path, other):
    other.kill()
    other.wait()
    turn = path.with_name(f'{path.name}.{json.loads(path.read_text())["token"]}')
    turn.touch()
    age(turn, STALE + 10)
    Claim(path).take()
    assert not turn.exists()


COUNT = '''
import sys, time
from pathlib import Path
from llava_sam2.claims import alone
counter = Path(sys.argv[1])
for _ in range(20):
    with alone(counter.with_suffix('.lock')):
        count = int(counter.read_text())
        time.sleep(0.002)
        counter.write_text(str(count + 1))
'''


def test_one_at_a_time(tmp_path):
    counter = tmp_path / 'counter'
    counter.write_text('0')
    workers = [subprocess.Popen([sys.executable, '-c', COUNT, str(counter)]) for _ in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert counter.read_text() == '60' and list(tmp_path.iterdir()) == [counter]


def test_who_waits_says_for_whom(path, other):
    told = []

    def tell(owner):
        told.append(owner.pid)
        other.kill()
        other.wait()

    with alone(path, tell):
        assert told == [other.pid]
