"""Curves, settings and values of runs, against pandas and TensorBoard, which read the same logs on their own."""

import io
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from mmengine.config import Config
from mmengine.visualization import LocalVisBackend, TensorboardVisBackend
from PIL import Image
from rich.console import Console

from dual_loop.visualization.curves import HEIGHT, LEFT, WIDTH
from dual_loop.visualization.run_comparison import (
    differing,
    draw,
    flat_settings,
    main_figures,
    print_runs,
    read_runs,
    write_comparison,
)


def train(work_dir, name, steps, seed=0, config=None):
    """Log as mmengine does, for both backends; the figures are random numbers."""
    random = np.random.default_rng(seed)
    folder = work_dir / name / 'vis_data'
    backends = LocalVisBackend(str(folder)), TensorboardVisBackend(str(folder))
    if config:
        backends[0].add_config(Config(config))
    for step in steps:
        figures = {'loop1/loss': random.uniform(1, 2), 'held_out/giou': random.uniform(), 'cosine': random.normal(),
                   'seconds/data': random.uniform(), 'loop2/empty_mask': 0.0}
        for backend in backends:
            backend.add_scalars(figures, step=step)
    backends[1].close()


CONFIG = dict(model=dict(tau=0.7, loops=[dict(type='A', w=1), dict(type='B')]), seed=[0, 1], work_dir='x')


@pytest.fixture
def runs(tmp_path):
    """One that was stopped after step 25 and resumed at 15, and another one with other settings."""
    train(tmp_path / 'a', '20260101_000000', range(5, 30, 5), 0, CONFIG)
    train(tmp_path / 'a', '20260102_000000', range(20, 45, 5), 1, CONFIG)
    other = dict(CONFIG, model=dict(tau=0.5, loops=[dict(type='A', w=2), dict(type='B')], more=True), work_dir='y')
    train(tmp_path / 'b', '20260101_000000', range(4, 60, 4), 2, other)
    return read_runs([tmp_path / 'a', tmp_path / 'b'], [])


def by_pandas(work_dir, name) -> pd.Series:
    """Of each step the value that stands latest."""
    tables = [pd.read_json(file, lines=True) for file in sorted(work_dir.glob('*/vis_data/scalars.json'))]
    return pd.concat(tables).groupby('step')[name].last()


@pytest.mark.parametrize('number', [0, 1])
def test_values_are_those_that_pandas_reads(runs, number):
    for name in ('loop1/loss', 'held_out/giou', 'cosine'):
        wanted = by_pandas(runs[number].folder, name)
        steps, values = runs[number].series[name]
        assert steps == wanted.index.tolist() and values == pytest.approx(wanted.tolist())
    loss, giou = (by_pandas(runs[number].folder, name) for name in ('loop1/loss', 'held_out/giou'))
    assert runs[number].best('loop1/loss') == (pytest.approx(loss.min()), loss.idxmin())
    assert runs[number].best('held_out/giou') == (pytest.approx(giou.max()), giou.idxmax())
    assert runs[number].best('cosine') is None


def test_tensorboard_shows_the_same_of_a_run_of_one_start(runs):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    [events] = runs[1].folder.glob('*/vis_data/events*')
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    scalars = accumulator.Scalars('loop1/loss')
    steps, values = runs[1].series['loop1/loss']
    assert [event.step for event in scalars] == steps
    assert [event.value for event in scalars] == pytest.approx(values, rel=1e-6)  # float32


class Tables(HTMLParser):
    """Rows of cells of each table by its class, and the charts."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.rows, self.cell = {}, None, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == 'table':
            self.rows = self.tables.setdefault(dict(attributes).get('class'), [])
        elif tag == 'tr':
            self.rows.append([])
        elif tag in ('td', 'th'):
            self.rows[-1].append('')
            self.cell = True

    def handle_endtag(self, tag):
        if tag in ('td', 'th'):
            self.cell = None

    def handle_data(self, data):
        if self.cell:
            self.rows[-1][-1] += data


def test_the_page_has_settings_values_and_curves(runs, tmp_path):
    page, picture = write_comparison(runs, tmp_path / 'out', 'a · b')
    text = page.read_text()
    tables = Tables(text).tables
    assert tables['settings'] == [['setting', 'a', 'b'], ['model.loops.0.w', '1', '2'],
                                  ['model.more', '—', 'True'], ['model.tau', '0.7', '0.5']]
    rows = {(row[0], row[1]): row[2:] for row in tables['values'][1:]}
    assert set(rows) == {(name, run) for name in ('loop1/loss', 'held_out/giou') for run in 'ab'}
    loss = by_pandas(runs[1].folder, 'loop1/loss')
    assert rows['loop1/loss', 'b'] == [f'{loss.iloc[0]:.4g}', f'{loss.iloc[-1]:.4g}',
                                       f'{loss.min():.4g} (step {loss.idxmin()})']
    assert 'a: 40 steps in 2 starts' in re.sub('<[^>]+>', '', text) and '<script' not in text
    [chart] = [ElementTree.fromstring(svg) for svg in re.findall('<svg.*?</svg>', text)
               if '<title>loop1/loss</title>' in svg]
    every = pd.concat([by_pandas(run.folder, 'loop1/loss') for run in runs])
    low, high, last, first = every.min(), every.max(), every.index.max(), every.index.min()
    for run, group in zip(runs, chart.findall('g'), strict=True):
        points = [tuple(map(float, point.split(','))) for point in group.find('polyline').get('points').split()]
        for (x, y), (step, value) in zip(points, by_pandas(run.folder, 'loop1/loss').items(), strict=True):
            assert first + (x - LEFT) / (WIDTH - LEFT) * (last - first) == pytest.approx(step, abs=0.05)
            assert high - (y - 6) / (HEIGHT - 24) * (high - low) == pytest.approx(value, abs=0.01)
    with Image.open(picture) as drawn:
        assert drawn.format == 'PNG' and drawn.size[0] > 600


def test_the_figure_has_a_field_for_each_name_and_a_line_for_each_run(runs):
    names, others = main_figures(runs)
    assert names == ['loop1/loss', 'held_out/giou'], 'losses first; what never moved is no main figure'
    assert others == ['cosine', 'seconds/data', 'loop2/empty_mask']
    axes = draw(runs, names).axes
    assert [each.get_title() for each in axes] == names
    for run, line in zip(runs, axes[0].lines[::2], strict=True):
        wanted = by_pandas(run.folder, 'loop1/loss')
        assert line.get_xdata().tolist() == wanted.index.tolist()
        assert line.get_ydata().tolist() == pytest.approx(wanted.tolist())


def test_more_runs_than_colours_and_a_run_without_a_figure(tmp_path, runs):
    for number in range(8):
        folder = tmp_path / f'r{number}' / 'd/vis_data'
        folder.mkdir(parents=True)
        (folder / 'scalars.json').write_text(json.dumps({f'loop{number % 2}/loss': 1.0 + number, 'step': 1}) + '\n')
    many = read_runs([tmp_path / f'r{number}' for number in range(8)], notes := [])
    assert len(notes) == 8 and 'the settings of this run are not compared' in notes[0]
    text = write_comparison(many, tmp_path / 'out', 'many')[0].read_text()
    assert '<g class="curve5">' in text and '<g class="curve1 again">' in text and 'Not known.' in text


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    for parent in 'xy':
        train(tmp_path / parent / 'run', 'd', [1])
    runs = read_runs([tmp_path / 'x/run', tmp_path / 'y/run'], [])
    assert [run.name for run in runs] == [str(tmp_path / 'x/run'), str(tmp_path / 'y/run')]


def test_the_terminal_has_both_tables(runs):
    stream = io.StringIO()
    print_runs(runs, Console(file=stream, width=120))
    rows = [re.split(' {2,}', line.strip()) for line in stream.getvalue().splitlines()]
    assert ['model.tau', '0.7', '0.5'] in rows and differing(runs[:1]) == {}
    giou = by_pandas(runs[0].folder, 'held_out/giou')
    assert ['held_out/giou', 'a', f'{giou.iloc[0]:.4g}', f'{giou.iloc[-1]:.4g}', f'{giou.max():.4g}',
            str(giou.idxmax())] in rows


def test_nested_settings_have_the_keys_of_cfg_options():
    assert dict(flat_settings(CONFIG)) == {
        'model.tau': '0.7', 'model.loops.0.type': 'A', 'model.loops.0.w': '1', 'model.loops.1.type': 'B',
        'seed': '[0, 1]', 'work_dir': 'x'}
