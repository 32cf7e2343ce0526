"""Writing, publishing and finding checkpoints."""

import json

import pytest
import torch

from dual_loop.checkpoints.files import LATEST, Trained, publish, read_trained, write_plain_parts


def folder(path, text: str):
    path.mkdir()
    (path / 'part').write_text(text)
    return path


def test_a_folder_is_read_as_it_was_written(tmp_path):
    trained = Trained(7, dict(a=torch.randn(2, 3).t()), dict(a=torch.randn(3, 2)), 6, dict(seed=1, config='x = 1\n'))
    write_plain_parts(tmp_path, trained)
    again = read_trained(tmp_path)
    assert torch.equal(again.trainables['a'], trained.trainables['a'])
    assert torch.equal(again.ema['a'], trained.ema['a'])
    assert (again.step, again.ema_updates, again.run) == (7, 6, trained.run)
    assert json.loads((tmp_path / 'state.json').read_text())['step'] == 7


def test_what_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='no checkpoint .*iter_1.pth'):
        read_trained(tmp_path / 'iter_1.pth')
    with pytest.raises(FileNotFoundError, match='has no trainables.safetensors'):
        read_trained(tmp_path)
    write_plain_parts(tmp_path, Trained(1, {}, {}, 1, {}))
    torch.save(torch.randn(100), tmp_path / 'mp_rank_00_model_states.pt')
    torch.save(dict(weights=1), tmp_path / 'other.pth')
    for name in ('mp_rank_00_model_states.pt', 'other.pth'):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=f'{name} is not whole'):
            read_trained(tmp_path if name.startswith('mp') else tmp_path / name)
        (tmp_path / name).write_bytes(whole)
    with pytest.raises(ValueError, match='other.pth is no checkpoint of a training run'):
        read_trained(tmp_path / 'other.pth')


def test_publishing_replaces_files_and_folders(tmp_path):
    final = tmp_path / 'iter_2.pth'
    publish(folder(tmp_path / 'new.partial', 'first'), final)
    publish(folder(tmp_path / 'new.partial', 'second'), final)
    assert (final / 'part').read_text() == 'second'
    file = tmp_path / 'iter_4.pth'
    for text in ('third', 'fourth'):
        (tmp_path / 'new.partial').write_text(text)
        publish(tmp_path / 'new.partial', file)
    assert file.read_text() == 'fourth'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['iter_2.pth', 'iter_4.pth', LATEST]
