"""Ctrl-C and SIGTERM end every tool with one line, and all that it started."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
#: All but the one that makes the environment, and has nothing to import yet (test_install_packages).
TOOLS = sorted(file.name for file in (CHECKOUT / 'tools').glob('*.py') if file.stem != 'install_packages')
PRELUDE = re.compile(r"\A\"\"\"[^\"]*\"\"\"\n\nimport sys\nfrom pathlib import Path\n\nif __name__ == '__main__':\n"
                     r"    sys\.path\.insert\(0, [^\n]*\n    import dual_loop_command\.script ")


@pytest.mark.parametrize('tool', TOOLS)
def test_every_tool_takes_signals_from_its_first_line_to_its_last(tool):
    text = (CHECKOUT / 'tools' / tool).read_text()
    assert PRELUDE.match(text), 'the imports, which take seconds'
    ending = text[text.rindex("if __name__ == '__main__':"):]
    assert 'run_command(main)' in ending or '.run_script(' in ending or 'with interruptible()' in ending \
        or tool == 'launch.py'


def start(*command) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, *map(str, command)], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env=os.environ | dict(PYTHONPATH=str(CHECKOUT / 'projects')))


def signal_group(process: subprocess.Popen, number: int) -> list[psutil.Process]:
    """What a terminal does: it signals all processes in the foreground. Returns those that the command started."""
    started = psutil.Process(process.pid).children(recursive=True)
    for each in [*started, process]:
        each.send_signal(number)
    return started


@pytest.mark.parametrize(('number', 'status'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_making_demo_data(tmp_path, number, status):
    process = start(CHECKOUT / 'tools/make_demo_data.py', tmp_path / 'demo', '--images', 100_000, '--workers', 2)
    while not list(tmp_path.glob('.demo.partial/*/*')):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    started = signal_group(process, number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == status
    assert said.splitlines()[-1] == f'make_demo_data: interrupted by {signal.Signals(number).name}'
    assert 'Traceback' not in said
    assert started and not psutil.wait_procs(started, timeout=5)[1]
    assert not (tmp_path / 'demo').exists()


def test_making_an_index(tmp_path):
    """One of the files to read is a pipe that nobody writes to, so a process of the pool hangs."""
    folder = tmp_path / 'sa1b'
    folder.mkdir()
    for number in range(4):
        (folder / f'sa_{number}.jpg').write_bytes(b'')
        (folder / f'sa_{number}.json').write_text(json.dumps(dict(image={}, annotations=[])))
    (folder / 'sa_3.json').unlink()
    os.mkfifo(folder / 'sa_3.json')
    (tmp_path / 'config.py').write_text(
        f"train_dataloader = dict(dataset=dict(type='dual_loop.datasets.SA1BDataset', data_root='{folder}'))\n")
    process = start(CHECKOUT / 'tools/check_data.py', tmp_path / 'config.py')
    pipe = None
    while pipe is None:
        assert process.poll() is None, process.communicate()
        try:
            pipe = os.open(folder / 'sa_3.json', os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads it yet
            time.sleep(0.1)
    started = signal_group(process, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    os.close(pipe)
    assert process.returncode == 130 and said.splitlines() == ['check_data: interrupted by SIGINT']
    assert not psutil.wait_procs(started, timeout=5)[1]
