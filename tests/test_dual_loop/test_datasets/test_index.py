import pickle
import weakref

import numpy as np
import pytest

from dual_loop.datasets.index import Table, TableBuilder, digest


@pytest.mark.parametrize('stored', [False, True])
def test_rows_come_back_as_they_went_in(stored, tmp_path):
    rows = [dict(name='blåbær', number=2**40, share=0.5), dict(name='', number=-1, share=float('nan')),
            dict(name='z' * 300, number=0, share=-2.0)]
    builder = TableBuilder(name=str, number=int, share=float)
    for row in rows:
        builder.append(**row)
    table = builder.build()
    if stored:
        table.write(tmp_path / 'table.arrow')
        table = Table.open(tmp_path / 'table.arrow')
    table = pickle.loads(pickle.dumps(table))
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


def test_a_stored_table_is_pickled_as_its_file(tmp_path):
    builder = TableBuilder(number=int)
    for number in range(10_000):
        builder.append(number=number)
    builder.build().write(tmp_path / 'table.arrow')
    table = Table.open(tmp_path / 'table.arrow')
    assert len(pickle.dumps(table)) < 1000
    with pytest.raises(ValueError, match='read-only'):
        table['number'][0] = 1


def test_long_list_of_texts():
    names = [f'{number}' * (number % 5) for number in range(25_000)]
    table = Table.of(name=names)
    assert len(table) == 25_000 and [table['name'][row] for row in range(25_000)] == names


def test_concatenated_pieces_are_one_array():
    pieces = [Table.of(name=['a', 'bb'], number=[1, 2]), TableBuilder(name=str, number=int).build(),
              Table.of(name=['ccc'], number=[3])]
    whole = Table.concatenate(pieces)
    assert [whole['name'][row] for row in range(3)] == ['a', 'bb', 'ccc'] and whole['number'].tolist() == [1, 2, 3]


def test_concatenated_pieces_are_let_go_one_by_one():
    alive = weakref.WeakSet()

    def pieces():
        for number in range(20):
            piece = Table.of(name=[f'n{number}'], number=[number])
            alive.add(piece)
            assert len(alive) <= 3
            yield piece

    whole = Table.concatenate(pieces())
    assert [whole['name'][row] for row in range(20)] == [f'n{number}' for number in range(20)]
    assert whole['number'].tolist() == list(range(20))


def test_concatenated_slices_keep_columns_and_kinds():
    table = Table.of(name=['a', 'blå', '', 'dd'], share=[0.5, 1.5, np.nan, 2.5], number=[1, 2, 3, 4])
    slices = [Table(table.values.slice(start, 2)) for start in (2, 0, 1)]
    whole = Table.concatenate(iter(slices))
    assert whole.values.schema == table.values.schema
    assert [whole['name'][row] for row in range(6)] == ['', 'dd', 'a', 'blå', 'blå', '']
    np.testing.assert_array_equal(whole['share'], [np.nan, 2.5, 0.5, 1.5, 1.5, np.nan])
    assert whole['number'].tolist() == [3, 4, 1, 2, 2, 3]


def test_digest_depends_on_the_content_alone(tmp_path):
    whole = Table.of(name=['a', 'bb', 'ccc'], number=[1, 2, 3])
    expected = digest(dict(samples=whole))
    whole.write(tmp_path / 'table.arrow')
    pieces = Table.concatenate([whole.head(1), Table(whole.values.slice(1))])
    for same in (Table.open(tmp_path / 'table.arrow'), pieces, Table.of(number=[1, 2, 3], name=['a', 'bb', 'ccc'])):
        assert digest(dict(samples=same)) == expected
    others = [Table.of(name=['ab', 'b', 'ccc'], number=[1, 2, 3]), Table.of(name=['a', 'bb', 'ccc'], number=[1, 2, 4]),
              Table.of(names=['a', 'bb', 'ccc'], number=[1, 2, 3]), whole.head(2)]
    assert len({expected, *(digest(dict(samples=other)) for other in others)}) == 5
    assert digest(dict(rows=whole)) != expected


def test_what_a_column_cannot_hold_is_missing():
    table = Table.of(text=['a', None, 7, '\ud800', ''], number=[1, 2**63, None, [1], -2**62],
                     share=[0.5, None, 2, [1], 1])
    assert table.values['text'].to_pylist() == ['a', None, None, None, '']
    assert table.values['number'].to_pylist() == [1, None, None, None, -2**62]
    assert table.values['share'].to_pylist() == [0.5, None, 2, None, 1]
    whole = table.without([1, 2, 3])
    assert list(whole['text']) == ['a', ''] and whole['number'].tolist() == [1, -2**62]
    long = Table.of(name=['x', *map(str, range(25_000)), None])
    assert long.values['name'].null_count == 1 and long.without([25_001])['name'][25_000] == '24999'


@pytest.mark.parametrize('row, column', [
    (dict(name='a', number=2**63, share=1), 'number'), (dict(name='a', number='1', share=1), 'number'),
    (dict(name='\ud800', number=1, share=1), 'name'), (dict(name=None, number=1, share=1), 'name'),
    (dict(name='a', number=1, share=10**400), 'share'), (dict(name='a', number=1, share=None), 'share')])
def test_a_row_is_added_whole_or_not_at_all(row, column):
    builder = TableBuilder(name=str, number=int, share=float)
    builder.append(name='first', number=1, share=1)
    with pytest.raises(ValueError, match=f'cannot stand in the column {column} of an index'):
        builder.append(**row)
    builder.append(name='second', number=2, share=2)
    table = builder.build()
    assert list(table['name']) == ['first', 'second'] and table['number'].tolist() == table['share'].tolist() == [1, 2]
