import pickle

import numpy as np
import pytest

from dual_loop.datasets.index import TableBuilder


def test_rows_come_back_as_they_went_in():
    rows = [dict(name='blåbær', number=2**40, share=0.5), dict(name='', number=-1, share=float('nan')),
            dict(name='z' * 300, number=0, share=-2.0)]
    builder = TableBuilder(name=str, number=int, share=float)
    for row in rows:
        builder.append(**row)
    table = pickle.loads(pickle.dumps(builder.build()))
    for count in (3, 2, 9):
        part = table.head(count)
        assert len(part) == min(count, 3) and len(part['name']) == len(part)
        for position, row in enumerate(rows[:count]):
            assert (part['name'][position], part['number'][position]) == (row['name'], row['number'])
            np.testing.assert_equal(float(part['share'][position]), row['share'])
    assert 'name' in table and 'caption' not in table


def test_empty_and_wrong_rows():
    builder = TableBuilder(name=str, number=int)
    assert len(builder.build()) == 0 and len(builder.build().head(3)['name']) == 0
    with pytest.raises(ValueError, match='name'):
        builder.append(number=1)
