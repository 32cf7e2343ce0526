"""``dual-loop estimate`` on the tiny config."""

import re

import pytest

from dual_loop_command import estimate as command
from dual_loop_command.main import main


def test_says_what_a_run_costs(capsys, checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    from dual_loop.estimate import cost
    monkeypatch.setattr(cost.Estimate, 'largest_batch', lambda self, capacity: int(capacity == 24 * 10**9) * 17)
    with pytest.raises(SystemExit) as ended:
        main(['estimate', 'configs/dual_loop_tiny.py', '--cards', '24', '--gpus', '64', '--network', '25',
              '--cfg-options', 'model.max_caption_len=8', 'train_dataloader.batch_size=2',
              'train_cfg.loop2_dataloader.batch_size=2'])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert '  24 GB: 17' in said
    sent, seconds = map(float, re.search(r'each rank sends (\S+) GB, (\S+) s at 25 GB/s', said).groups())
    assert seconds == pytest.approx(sent / 25, rel=0.01)
    for line in ('lora ', 'sam2 ', 'frozen weights', 'EMA averages', "decoder's cache", 'decoder layers', 'peak',
                 'TFLOP/s', '24 GB: '):
        assert line in said, said


def test_speeds_and_shares_are_checked():
    assert command.share('0.5') == 0.5 and command.speed('1e3') == 1000
    for text in ('0', '1.5', 'nan', 'x'):
        with pytest.raises(Exception, match='share'):
            command.share(text)
    for text in ('0', 'inf', '-1', 'x'):
        with pytest.raises(Exception, match='number above 0'):
            command.speed(text)


@pytest.mark.parametrize(('options', 'says'), [
    (['empty.py'], 'empty.py trains no loops'),
    (['tiny', '--deepspeed', 'empty.py'], '--deepspeed empty.py is no JSON: '),
    (['tiny', '--deepspeed', 'list.json'], '--deepspeed list.json holds no settings of DeepSpeed'),
    (['tiny', '--cfg-options', 'train_dataloader.batch_size=0'], 'batch_size=0 of the loader of loop1: a whole number'),
    (['tiny', '--cfg-options', 'train_cfg.loop2_dataloader.batch_size=[1,2]'], 'batch_size=[1, 2] of the loader of'),
    (['tiny', '--cfg-options', 'model=5'], 'trains no loops'),
])
def test_slips_are_one_line(options, says, checkout, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty.py').write_text('')
    (tmp_path / 'list.json').write_text('[]')
    tiny = str(checkout / 'configs/dual_loop_tiny.py')
    with pytest.raises(SystemExit) as ended:
        main(['estimate', *(tiny if each == 'tiny' else each for each in options)])
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith('dual-loop estimate: ')]
    assert ended.value.code == 1 and len(said) == 1 and says in said[0]
