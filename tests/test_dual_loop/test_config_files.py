"""Config files and settings on the command line: what is read, and slips in one sentence."""

import pytest

from dual_loop.config_files import read_config
from dual_loop.refusals import refusal


def test_settings_are_merged(tmp_path):
    (tmp_path / 'config.py').write_text('model = dict(tau=1.0, parts=[dict(x=1), dict(x=2)])\n')
    options = ['model.tau=0.5', 'model.parts.1.x=7', 'model.name=a=b', 'model.more=[1,2]']
    cfg = read_config(tmp_path / 'config.py', options)
    assert cfg.model == dict(tau=0.5, parts=[dict(x=1), dict(x=7)], name='a=b', more=[1, 2])


@pytest.mark.parametrize(('option', 'says'), [
    ('model.tau.x=5', 'tau'), ('model.parts.9=1', '9'), ('model.parts=[1,2', 'Imbalanced brackets')])
def test_settings_that_do_not_fit(tmp_path, option, says):
    (tmp_path / 'config.py').write_text('model = dict(tau=1.0, parts=[1, 2])\n')
    with pytest.raises(ValueError, match='^--cfg-options ') as caught:
        read_config(tmp_path / 'config.py', ['model.tau=0.5', option])
    said = str(caught.value)
    assert said.startswith(f'--cfg-options {option}: ') and says in said and '\n' not in said


def test_what_is_no_config(tmp_path, checkout):
    (tmp_path / 'broken.py').write_text('model = dict(\n')
    (tmp_path / 'binary.py').write_bytes(bytes(range(256)))
    for path, says in ((checkout / 'README.md', 'README.md is no config: configs are Python files'),
                       (tmp_path, 'is a folder, not a config file'), (tmp_path / 'none.py', 'does not exist'),
                       (tmp_path / 'broken.py', 'broken.py is no config: '),
                       (tmp_path / 'binary.py', 'binary.py is no config: ')):
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            read_config(path)
        assert says in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize(('text', 'says'), [
    ('a = 1\nb = 1 / 0\n', 'ZeroDivisionError in {}, line 2: division by zero'),
    ('a = modle\n', "NameError in {}, line 1: name 'modle' is not defined"),
    ('raise RuntimeError("one\\ntwo")\n', 'RuntimeError in {}, line 1: one two'),
])
def test_a_config_that_fails_names_its_line(tmp_path, text, says):
    path = tmp_path / 'config.py'
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        read_config(path)
    assert str(caught.value) == f'{path} cannot be read: {says.format(path)}'
    assert str(caught.value) == refusal(caught.value)


def test_what_a_config_refuses_is_said_as_it_is(tmp_path):
    (tmp_path / 'config.py').write_text('_base_ = "nowhere.py"\n')
    with pytest.raises(FileNotFoundError) as caught:
        read_config(tmp_path / 'config.py')
    assert refusal(caught.value).endswith('nowhere.py: No such file or directory')
