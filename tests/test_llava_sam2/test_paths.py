from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llava_sam2.paths import CannotWrite, resolve, write_whole, writing


def test_relative_paths_are_read_against_the_checkout(checkout, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve('assets/tiny') == checkout / 'assets/tiny'
    assert resolve(tmp_path / 'data') == tmp_path / 'data'


WRITERS = {
    'plain': lambda file: file.write_bytes(bytes(200_000)),
    'torch': lambda file: torch.save(torch.zeros(100_000), file),
    'safetensors': lambda file: save_file(dict(a=torch.zeros(100_000)), file),
}


@pytest.mark.parametrize('writer', WRITERS)
def test_a_disk_that_takes_no_more_is_one_sentence(writer, small_files_only, tmp_path):
    with pytest.raises(CannotWrite, match=rf'^the thing cannot be written to {tmp_path}: .*\. Make room') as raised, \
            writing('the thing', tmp_path):
        WRITERS[writer](tmp_path / 'file')
    assert ('as on a full disk' if writer == 'torch' else 'File too large') in str(raised.value)


def test_a_folder_that_takes_no_file_names_the_place_and_not_what_is_made_beside_it():
    with pytest.raises(CannotWrite, match=r'^the page cannot be written to /proc/page\.html: No such file .*'
                       r'Choose another place, or see who may write there$'):
        write_whole(Path('/proc/page.html'), 'text', 'the page')


def test_other_errors_pass(tmp_path):
    (tmp_path / 'file').touch()
    for error in (FileNotFoundError(2, 'No such file', '/elsewhere/data.json'), RuntimeError('shapes'), ValueError()):
        with pytest.raises(type(error)) as raised, writing('the thing', tmp_path / 'out'):
            raise error
        assert raised.value is error
    with pytest.raises(CannotWrite, match='Not a directory'), writing('the thing', tmp_path / 'file/out'):
        (tmp_path / 'file/out').write_text('')


def test_a_text_is_replaced_whole_or_not_at_all(small_files_only, tmp_path):
    file = tmp_path / 'made' / 'page.html'
    write_whole(file, 'old', 'the page')
    with pytest.raises(CannotWrite, match=f'^the page cannot be written to {file}: File too large'):
        write_whole(file, 'x' * 200_000, 'the page')
    assert file.read_text() == 'old' and list(file.parent.iterdir()) == [file]
