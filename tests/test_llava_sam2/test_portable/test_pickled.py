"""Pickled checkpoints: what training frameworks leave in them is passed over, and nothing that they say is run."""

import os
import pickle

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from llava_sam2.portable.pickled import CheckpointError, read_pickled


class Call:
    """Pickles as a call of ``function``, which plain unpickling would make."""

    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced

    def __call__(self):
        """So that it may stand where pickle wants a function."""


def leave_mark(path):
    with open(path, 'w') as file:
        file.write('run')


@pytest.fixture
def stock_history(monkeypatch):
    """HistoryBuffer pickled as mmengine 0.10 does: with its methods, through builtins.getattr."""

    def state(history):
        return history.__dict__ | dict(statistics_methods=history._statistics_methods)

    monkeypatch.setattr(HistoryBuffer, '__getstate__', state)


@pytest.fixture
def stock_file(stock_history, tmp_path):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    assert {'min', 'max', 'current', 'mean'} == set(history._statistics_methods)
    torch.save(dict(
        state_dict=dict(weight=torch.arange(6.0).view(2, 3)),
        message_hub=dict(log_scalars={'train/loss': history}, runtime_info=dict(iter=3, lr=np.float64(0.1))),
        ds_config=ConfigDict(zero=dict(stage=2)),
        meta=dict(iter=3, cfg='model = dict()', values=np.arange(3)),
    ), tmp_path / 'iter_3.pth')
    return tmp_path / 'iter_3.pth'


def test_stock_mmengine_file_is_read(stock_file):
    assert 'builtins.getattr' in torch.serialization.get_unsafe_globals_in_checkpoint(stock_file)
    content = read_pickled(stock_file)
    assert torch.equal(content['state_dict']['weight'], torch.arange(6.0).view(2, 3))
    assert (content['meta']['iter'], content['meta']['cfg']) == (3, 'model = dict()')
    assert not isinstance(content['message_hub']['log_scalars']['train/loss'], HistoryBuffer)


@pytest.mark.parametrize('owner, name', [
    (HistoryBuffer, '__init__'), (HistoryBuffer, 'register_statistics'), (torch.Tensor, 'min'), (np.ndarray, 'mean')
])
def test_getattr_is_for_statistics_only(owner, name, tmp_path):
    torch.save(dict(a=Call(getattr, owner, name)), tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=r'x\.pth wants \S+ to be called'):
        read_pickled(tmp_path / 'x.pth')


def test_what_getattr_gives_cannot_be_called(tmp_path):
    torch.save(dict(a=Call(Call(getattr, HistoryBuffer, 'min'), HistoryBuffer)), tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=r'x\.pth is no checkpoint of torch'):
        read_pickled(tmp_path / 'x.pth')


@pytest.mark.parametrize('function, named', [
    (os.system, r'(posix|nt)\.system'), (eval, 'eval'), (leave_mark, 'leave_mark')
])
@pytest.mark.parametrize('zipped', [True, False])
def test_a_call_is_refused_by_name_and_not_made(function, named, zipped, tmp_path):
    mark = tmp_path / 'mark'
    argument = {os.system: f'touch {mark}', eval: f'open({str(mark)!r}, "w")', leave_mark: str(mark)}[function]
    content = dict(state_dict=dict(a=torch.ones(2)), meta=Call(function, argument))
    torch.save(content, tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=rf'x\.pth wants \S*{named} .*nothing was run'):
        read_pickled(tmp_path / 'x.pth')
    assert not mark.exists()
    torch.load(tmp_path / 'x.pth', weights_only=False)  # plain unpickling does make it
    assert mark.exists()


def test_what_others_allow_is_refused_all_the_same(tmp_path):
    torch.save(dict(a=Call(leave_mark, str(tmp_path / 'mark'))), tmp_path / 'x.pth')
    with torch.serialization.safe_globals([leave_mark]):
        before = set(torch.serialization.get_safe_globals())
        with pytest.raises(CheckpointError, match='leave_mark'):
            read_pickled(tmp_path / 'x.pth')
        assert leave_mark in before and set(torch.serialization.get_safe_globals()) == before
    assert not (tmp_path / 'mark').exists()


def test_damaged_files_are_named(stock_file, tmp_path):
    data = stock_file.read_bytes()
    for name, content in dict(
        cut=data[: len(data) // 2], text=b'<html>404</html>', empty=b'', number=pickle.dumps(3, protocol=4)[:-2]
    ).items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=f'{name} is no checkpoint of torch, or it is damaged'):
            read_pickled(tmp_path / name)
    with pytest.raises(CheckpointError, match='nowhere is missing'):
        read_pickled(tmp_path / 'nowhere')


def test_files_from_before_zip_are_read(tmp_path):
    torch.save(dict(a=torch.ones(2)), tmp_path / 'x.pth', _use_new_zipfile_serialization=False)
    assert torch.equal(read_pickled(tmp_path / 'x.pth')['a'], torch.ones(2))
