from collections import Counter

import numpy as np
import pytest

from dual_loop.datasets.index import Table
from dual_loop.datasets.row_checks import describe, may_name, repeated_rows, require_values, unusable_rows


def test_rows_without_a_value_or_words():
    samples = Table.of(file=['a', 'b', None, 'd', 'e', 'f'], caption=['A cat.', ' \n', 'x', '\u200b', 7, '猫'],
                       width=[1, 2, 3, 4, 5, 2**70])
    assert unusable_rows(samples) == {
        1: 'the caption is empty', 2: 'it has no valid file', 3: 'the caption is empty', 4: 'it has no valid caption',
        5: 'it has no valid width'}
    assert unusable_rows(Table.of(object=[])) == unusable_rows(Table.of(file=['', ' '])) == {}
    assert describe(samples, 1) == 'row 1 (b)' and describe(Table.of(number=[1]), 0) == 'row 0'


def test_other_tables_must_be_whole():
    require_values(dict(files=Table.of(name=['a'])))
    with pytest.raises(ValueError, match='row 1 of the table files of an index has no valid name'):
        require_values(dict(files=Table.of(name=['a', None])))


def test_repeated_names_point_to_the_first():
    rng = np.random.default_rng(0)
    for count in (0, 1, 2, 1000):
        names = [f'name {number}' for number in rng.integers(0, max(1, count // 2), count)]
        found = repeated_rows(names, count)
        assert found == {row: names.index(name) for row, name in enumerate(names) if names.index(name) != row}
        assert len(found) == count - len(Counter(names))


def test_texts_are_searched_in_all_tables():
    tables = [Table.of(number=[1]), Table.of(name=['a', 'x1y'])]
    assert may_name(tables, '[0-9]') and not may_name(tables, '[0-9]{2}') and not may_name(tables[:1], '[0-9]')
