"""A damaged row of a table costs itself and is named; pandas or the standard library say what the others hold."""

import csv

import pytest

from dual_loop.datasets.csv_tables import read_csv

HEAD = b'id,other,x,name\n'


def read(path, texts=('id', 'name'), numbers=('x', )):
    bad = []
    parts = list(read_csv(path, texts, numbers, lambda row, reason: bad.append((row, reason))))
    assert len(parts[0]) == 0
    rows = [tuple(row.values()) for part in parts for row in part.to_pylist()]
    return rows, bad


def test_columns_in_any_order(tmp_path):
    file = tmp_path / 'a.csv'
    with open(file, 'w', newline='') as stream:
        csv.writer(stream).writerows([['x', 'name', 'more', 'id'], ['0.5', 'a "quoted", one', '', '7'],
                                      ['', 'b', '', '8']])
    assert read(file) == ([('7', 'a "quoted", one', 0.5), ('8', 'b', None)], [])
    assert read(file, numbers=('y', ))[0][0] == ('7', 'a "quoted", one', None)


@pytest.mark.parametrize('line, reason', [
    (b'1,,0.5\n', 'the row has 3 columns, the table 4'), (b'1,,0.5,a,b\n', 'the row has 5 columns, the table 4'),
    (b',,0.5,a\n', 'the row has no valid id'), (b'1,,0.5,\n', 'the row has no valid name'),
    (b'1,,0.5,caf\xe9\n', 'the row has no valid name'), (b',,,\n', 'the row has no valid id, name')])
def test_a_damaged_row_costs_itself(tmp_path, line, reason):
    file = tmp_path / 'a.csv'
    file.write_bytes(HEAD + b'0,,0.1,zero\n' + line + b'2,,0.3,two\n')
    rows, bad = read(file)
    assert rows == [('0', 'zero', 0.1), ('2', 'two', 0.3)] and [each[1] for each in bad] == [reason]


def test_a_number_that_is_none_is_missing(tmp_path):
    file = tmp_path / 'a.csv'
    file.write_bytes(HEAD + b'0,,wide,zero\n1,,0.25,one\n2,,\xff,two\n')
    rows, bad = read(file)
    assert rows == [('0', 'zero', None), ('1', 'one', 0.25), ('2', 'two', None)] and not bad


@pytest.mark.parametrize('content, message', [
    (b'', 'is not a table'), (HEAD.replace(b'id', b'Id'), 'has no column id'), (b'\x00\x01\x02', 'is not a table')])
def test_files_that_make_no_sense_are_refused(tmp_path, content, message):
    file = tmp_path / 'a.csv'
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf'a\.csv.*{message}.*ownload'):
        read(file)
