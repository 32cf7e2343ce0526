"""What stays off the console, and that nothing else does."""

import io
import logging

import pytest

from dual_loop.engine import console


@pytest.fixture
def logger(tmp_path):
    logger = logging.Logger('run', logging.INFO)
    logger.addHandler(logging.StreamHandler(io.StringIO()))
    logger.addHandler(logging.FileHandler(tmp_path / 'run.log'))
    console.keep_short(logger)
    console.keep_short(logger)
    return logger


@pytest.fixture
def said(logger, tmp_path):
    """(on the console, in the file)"""
    def read():
        return logger.handlers[0].stream.getvalue(), (tmp_path / 'run.log').read_text()

    return read


@pytest.mark.parametrize('message', console.KEPT_IN_FILE)
def test_named_messages_are_in_the_file_only(logger, said, message):
    logger.warning(message + ' and more')
    shown, kept = said()
    assert shown == '' and message in kept


@pytest.mark.parametrize('message', console.ENDS_KEPT_IN_FILE)
def test_so_are_those_that_are_named_by_their_end(logger, said, message):
    logger.warning('mlp1.0.weight' + message)
    shown, kept = said()
    assert shown == '' and message in kept


def test_the_config_is_in_neither(logger, said):
    logger.info('Config:\nmodel = dict()')
    assert said() == ('', '')


@pytest.mark.parametrize('message', ['Failed to search registry with scope "mine" in the "builder" registry tree',
                                     'the Config:\n', 'System environment:', ''])
def test_all_else_is_shown(logger, said, message):
    logger.warning(message)
    assert said() == (f'{message}\n', f'{message}\n')


def test_the_filters_are_there_once(logger):
    assert [len(each.filters) for each in (logger, *logger.handlers)] == [1, 1, 0]


@pytest.mark.parametrize('driver', [True, False])
def test_a_gpu_that_was_overlooked_is_told(monkeypatch, tmp_path, driver):
    monkeypatch.setattr(console, '_DRIVER', tmp_path if driver else tmp_path / 'none')
    deepspeed = logging.getLogger('DeepSpeed')
    console.leave_out_missing_gpu()
    message = 'Setting accelerator to CPU. If you have GPU or other accelerator, we were unable to detect it.'
    told = [deepspeed.filter(deepspeed.makeRecord('', 30, '', 1, text, (), None)) for text in (message, 'another')]
    assert [bool(each) for each in told] == [driver, True]
