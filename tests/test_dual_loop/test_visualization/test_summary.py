"""Summaries against numbers worked out by hand."""

import io
import math
import re
from dataclasses import replace

import pytest
from rich.console import Console

from dual_loop.visualization.summary import SummaryRow, collect_series, print_table, summarise_scalars


def test_first_and_last_tenth_by_hand():
    # 25 values: a tenth is 2. First (0 + 1) / 2, last (23 + 24) / 2.
    row, = summarise_scalars(dict(step=i, loss=float(i)) for i in range(25))
    assert row == SummaryRow('loss', 0.5, 23.5)
    short, = summarise_scalars(dict(iter=i, loss=value) for i, value in enumerate((3, 1, 2)))
    assert short == SummaryRow('loss', 3.0, 2.0)


def test_each_quantity_has_its_own_records():
    records = [dict(step=10, loss=1.0, epoch=1, note='x', flag=True), dict(step=10, mask_iou=0.25),
               dict(step=20, loss=0.5, iter=7)]
    assert collect_series(records) == dict(loss=([10, 20], [1.0, 0.5]), mask_iou=([10], [0.25]))
    assert [row.name for row in summarise_scalars(records)] == ['loss', 'mask_iou']
    assert summarise_scalars([]) == []


def test_a_nan_is_not_hidden():
    first, = summarise_scalars([dict(step=0, loss=math.nan), dict(step=1, loss=1.0)])
    assert math.isnan(first.first) and first.last == 1


def test_change_in_words():
    assert SummaryRow('x', 2.0, 0.5).change == '-1.5 (-75 %)'
    assert SummaryRow('x', 0.25, 0.5).change == '+0.25 (+100 %)'
    # A share would say nothing across zero.
    assert [SummaryRow('x', *ends).change for ends in ((0.0, 1.0), (-1.0, 1.0), (0.5, -0.5))] == ['+1', '+2', '-1']


def test_a_record_without_a_step_is_an_error():
    with pytest.raises(ValueError, match=r"needs 'step' or 'iter', got the keys \['loss'\]"):
        collect_series([dict(loss=1.0)])


def test_printed_table_holds_every_row_and_no_markup():
    stream = io.StringIO()
    rows = [SummaryRow('loss1/[mask]', 2.0, 0.5), SummaryRow('held-out mask IoU', 0.1234567, 0.5)]
    print_table(rows, title='run [a]', console=Console(file=stream, width=100))
    lines = stream.getvalue().splitlines()
    assert lines[0].strip() == 'run [a]'
    cells = [re.split(' {2,}', line.strip()) for line in lines[2:] if line.strip()]
    assert cells[0] == ['quantity', 'first', 'last', 'change'] and cells[2:] == [
        ['loss1/[mask]', '2', '0.5', '-1.5 (-75 %)'], ['held-out mask IoU', '0.1235', '0.5', '+0.377 (+305 %)']]


def test_names_stay_whole_in_80_columns_beside_another_run():
    stream = io.StringIO()
    row = SummaryRow('held-out ciou_attribute_new', 0.2786, 0.3429, recorded=0.3214)
    print_table([row, replace(row, recorded=None)], console=Console(file=stream, width=80), recorded='one of [May]')
    first, second = [re.split(' {2,}', line.strip()) for line in stream.getvalue().splitlines() if 'ciou' in line]
    assert first == ['held-out ciou_attribute_new', '0.2786', '0.3429', '+0.0643 (+23 %)', '0.3214']
    assert second == first[:-1] and 'other run: one of [May]' in stream.getvalue()
