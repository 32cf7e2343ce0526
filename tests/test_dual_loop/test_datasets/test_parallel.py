import os

import pytest

from dual_loop.datasets.parallel import map_in_order


def square_and_process(number):
    if number == 77:
        raise ValueError('77 is not liked')
    return number ** 2, os.getpid()


@pytest.mark.parametrize('workers', [1, 3])
def test_results_come_in_order(workers):
    squares, processes = zip(*map_in_order(square_and_process, range(70), 'squares', workers))
    assert list(squares) == [number ** 2 for number in range(70)]
    assert (os.getpid() in processes) == (workers == 1)


def test_the_caller_may_stop_early():
    results = map_in_order(square_and_process, range(77), 'squares', 2)
    assert next(results)[0] == 0
    results.close()


def test_an_exception_reaches_the_caller():
    with pytest.raises(ValueError, match='77 is not liked'):
        list(map_in_order(square_and_process, range(100), 'squares', 2))


def test_nothing_to_do():
    assert list(map_in_order(square_and_process, [], 'squares')) == []
