"""A changed bit is found, by the name of its file, or it changes nothing."""

import json
import random

import pytest
import torch

from dual_loop.checkpoints import integrity
from dual_loop.checkpoints.files import Trained, check_whole, read_state, read_trained, write_plain_parts
from dual_loop.checkpoints.integrity import sums_of_engine_parts

FLIPS = 40


@pytest.fixture
def folder(tmp_path):
    """Checkpoint of two ranks under DeepSpeed, as far as its files go."""
    folder = tmp_path / 'iter_2.pth'
    folder.mkdir()
    torch.manual_seed(0)
    for name in ('mp_rank_00_model_states', 'bf16_zero_pp_rank_0_mp_rank_00_optim_states',
                 'bf16_zero_pp_rank_1_mp_rank_00_optim_states', 'zero_pp_rank_10_mp_rank_00_optim_states'):
        torch.save(dict(state=torch.randn(50)), folder / f'{name}.pt')
    sums = {name: value for rank in range(11) for name, value in sums_of_engine_parts(folder, rank).items()}
    assert len(sums) == 4 and sums_of_engine_parts(folder, 1).keys() == {
        'bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt'}
    run = dict(seed=3, config='x = 1\n', batch_size={'loop 1': 2}, lr=1e-4)
    write_plain_parts(folder, Trained(2, dict(a=torch.randn(20)), dict(a=torch.randn(20)), 2, run), sums)
    return folder


@pytest.fixture
def file(tmp_path):
    """Checkpoint of a run without DeepSpeed."""
    torch.manual_seed(0)
    content = dict(meta=dict(iter=2), state_dict=dict(a=torch.randn(20), b=torch.randn(3, 3)),
                   ema=dict(values=dict(a=torch.randn(20)), num_updates=2),
                   optimizer=dict(state={0: dict(exp_avg=torch.randn(20))}), message_hub=dict(runtime_info={}))
    torch.save(content, tmp_path / 'iter_3.pth')
    return tmp_path / 'iter_3.pth'


def flips(data: bytes):
    draw = random.Random(0)
    for _ in range(FLIPS):
        place, bit = draw.randrange(len(data)), draw.randrange(8)
        yield data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1:]


def same(one, other) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch):
    monkeypatch.setattr(integrity, '_WHOLE', set())


def test_a_flipped_bit_in_any_file_of_a_folder_is_found(folder):
    check_whole(folder)
    for part in sorted(folder.iterdir()):
        whole, state = part.read_bytes(), read_state(folder)
        for damaged in flips(whole):
            part.write_bytes(damaged)
            integrity._WHOLE.clear()
            try:
                check_whole(folder)
            except ValueError as error:
                assert str(part) in str(error) and 'take another' in str(error)
            else:  # white space
                assert part.name == 'state.json' and read_state(folder) == state
        part.write_bytes(whole)
    check_whole(folder)


def test_a_flipped_bit_in_a_file_is_found_or_changes_nothing(file):
    whole, found = file.read_bytes(), 0
    content = torch.load(file, weights_only=True)
    for damaged in flips(whole):
        file.write_bytes(damaged)
        integrity._WHOLE.clear()
        for check in (check_whole, read_trained):
            try:
                check(file)
            except ValueError as error:
                assert str(file) in str(error) and 'take another' in str(error)
                found += 1
            else:  # padding, times, flags
                assert same(torch.load(file, weights_only=True), content)
    assert found > FLIPS  # of twice as many


@pytest.mark.parametrize('name', ['trainables.safetensors', 'ema.safetensors'])
def test_export_and_evaluation_find_a_flipped_bit_of_a_folder(folder, name):
    """They read the trained tensors; the last byte is one of a value."""
    part = folder / name
    data = part.read_bytes()
    part.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match=f'{name}.*take another'):
        read_trained(folder)
    part.write_bytes(data)
    assert read_trained(folder).trainables.keys() == {'a'}


def test_evaluation_reads_its_own_parts_of_a_folder_only(folder):
    engine = folder / 'mp_rank_00_model_states.pt'
    engine.write_bytes(engine.read_bytes().replace(b'state', b'stale'))
    assert read_trained(folder).step == 2
    with pytest.raises(ValueError, match='mp_rank_00_model_states.pt is damaged'):
        check_whole(folder)


def test_a_missing_part_is_named(folder):
    (folder / 'bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt').unlink()
    with pytest.raises(FileNotFoundError, match='has no bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt.*copy it again'):
        check_whole(folder)


def test_a_folder_without_sums_is_read(folder):
    """Of version 0.1.0; the archives in it have theirs all the same."""
    state = json.loads((folder / 'state.json').read_text())
    del state['sums'], state['sum']
    (folder / 'state.json').write_text(json.dumps(state))
    check_whole(folder)
    assert read_trained(folder).step == 2
    engine = folder / 'mp_rank_00_model_states.pt'
    engine.write_bytes(engine.read_bytes().replace(b'state', b'stale'))
    with pytest.raises(ValueError, match='mp_rank_00_model_states.pt is damaged .*CRC'):
        check_whole(folder)


def test_contents_are_read_once_and_by_one_process_of_a_machine(file, folder, monkeypatch):
    read = []

    def note(original):
        return lambda first, *rest: read.append(first) or original(first, *rest)

    monkeypatch.setattr(integrity.zipfile.ZipFile, 'testzip', note(integrity.zipfile.ZipFile.testzip))
    monkeypatch.setattr(integrity.hashlib, 'file_digest', note(integrity.hashlib.file_digest))
    for _ in range(2):
        check_whole(file)
        check_whole(folder)
        read_trained(file), read_trained(folder)
    assert len(read) == 1 + 6
    integrity._WHOLE.clear()
    monkeypatch.setenv('LOCAL_RANK', '1')
    check_whole(file)
    assert len(read) == 7
    check_whole(file, everywhere=True)
    assert len(read) == 8
