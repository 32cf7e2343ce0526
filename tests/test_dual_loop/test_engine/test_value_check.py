"""Values of another kind than their reader takes."""

import inspect
from typing import Literal, Optional, Union

import pytest
import torch

from dual_loop.engine.config_check import check_config_keys
from dual_loop.engine.value_check import check_value


@pytest.mark.parametrize(('value', 'annotation'), [
    (1, int), (1, float), (0.5, float), (True, bool), ('a', str), (None, int), (None, float | None), (8.0, int),
    (3, Optional[int]), ('auto', Union[int, str]), ('a', Literal['a', 'b']),  # noqa: UP007, UP045
    ('abc', torch.Tensor | float),
    ('abc', dict), ([1], list[int]), (dict(type='Anything'), float), ('abc', inspect.Parameter.empty), ('a', None)])
def test_values_that_fit_or_cannot_be_judged(value, annotation):
    check_value(value, annotation, None, 'model.key')


@pytest.mark.parametrize(('value', 'annotation', 'stated', 'says'), [
    ('abc', float, None, 'a number is taken'), ('abc', float | None, None, 'a number or None'),
    ('yes', bool, None, 'True or False'), (16, str, None, 'a text'), (2.5, int, None, 'a whole number'),
    ([1], int, None, 'a whole number'), (dict(x=1), int | None, None, 'a whole number or None'),
    ('two', None, 4, 'a number is taken'), ('yes', None, True, 'True or False')])
def test_values_that_do_not(value, annotation, stated, says):
    with pytest.raises(ValueError, match='^model.key=') as caught:
        check_value(value, annotation, stated, 'model.key')
    assert repr(value) in str(caught.value) and says in str(caught.value)


@pytest.mark.parametrize('setting', [
    'model.tau=abc', 'model.base.random_weights=yes', 'train_dataloader.num_workers=two', 'randomness.seed=x',
    'train_cfg.max_steps=many', 'optim_wrapper.optimizer.lr=fast', 'train_cfg.loop2_dataloader.batch_size=x',
    'model.base.dtype=16'])
def test_settings_of_the_tiny_config(checkout, setting):
    from dual_loop.config_files import read_config

    file = checkout / 'configs/dual_loop_tiny.py'
    check_config_keys(read_config(file))
    with pytest.raises(ValueError, match=f'^{setting.partition("=")[0]}='):
        check_config_keys(read_config(file, [setting]))
