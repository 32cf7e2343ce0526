"""A training run on one page: what the numbers did and mean, and what the loops wrote and drew over the steps."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from pathlib import Path

from PIL import Image

from llava_sam2.paths import write_whole

from .curves import Series, curve
from .html_page import address, breakable, facts, pictures, write_page
from .marked_text import Marked, as_html
from .palette import legend
from .quantities import LESS, MORE, explain
from .summary import SummaryRow

#: Evaluations add links to their pages between these, see :func:`link_evaluation`.
_LINKS, _END = '<!-- evaluations -->', '<!-- end of evaluations -->'
#: Headings of figures that are no losses, and what their names match; loops' own have the loop's name.
_REST = {'Gradients': r'grad_norm|agreement|cosine|coefficient|w\d', 'Seconds of a step': r'seconds/|(data_)?time$',
         'Held-out masks': 'held_out', 'Cycle': 'cycle'}


@dataclass(frozen=True)
class ReportPanel:
    """Pictures of one row of a batch, and its texts.

    Attributes:
        step: optimizer step at which they were made.
        pictures: labels with PIL pictures, which go into the page itself, or paths of written ones, which are linked.
        caption: what the slot held, or the human sentence.
        sample_id: of the row.
        source: name of the data set.
        iou: of the predicted against the true mask.
        texts: labels with the texts on the way to the caption; what changed is marked.
    """

    step: int
    pictures: Sequence[tuple[str, Image.Image | Path | str]]
    caption: str
    sample_id: str = ''
    source: str = ''
    iou: float | None = None
    texts: Sequence[tuple[str, Marked]] = ()


@dataclass(frozen=True)
class Report:
    """What stands on the page.

    Attributes:
        title: of the run.
        scalars: name -> (steps, values) of the curves.
        losses: names of those that stand large, of each loop by its title; the others are folded.
        panels: pictures, in any order.
        highlights: the few figures that stand first, before -> after, such as the held-out mask IoU.
        recorded: what the run is whose figures stand beside the highlights.
        facts: names and values about the run.
        config: of the run.
        status: how far the run is.
    """

    title: str
    scalars: Mapping[str, Series] = field(default_factory=dict)
    losses: Mapping[str, Sequence[str]] = field(default_factory=dict)
    panels: Sequence[ReportPanel] = ()
    highlights: Sequence[SummaryRow] = ()
    recorded: str = ''
    facts: Sequence[tuple[str, str]] = ()
    config: str = ''
    status: str = ''


def write_report(path: str | Path, report: Report) -> Path:
    """Write the page, atomically; links that evaluations have added to an earlier one stay.

    Args:
        path: of the HTML file; its folder is made if it does not exist.
        report: what stands on it.

    Returns:
        The path written.
    """
    path = Path(path)
    body = [f'<h1>{breakable(report.title)}</h1>', f'<p class="name">{escape(report.status)}</p>',
            f'{_LINKS}{_links_of(path)}{_END}']
    if report.highlights:
        body.append(f'<div class="grid">{"".join(_tile(row, report.recorded) for row in report.highlights)}</div>')
    if not report.scalars:
        body.append('<p class="none">No numbers were logged yet.</p>')
    shown: set[str] = set()
    for title, names in report.losses.items():
        if there := [name for name in names if name in report.scalars]:
            shown.update(there)
            body += [f'<h2>Losses of {escape(title)}</h2>', _cards(report.scalars, there, 'large')]
    body += _rest(report.scalars, [name for name in report.scalars if name not in shown], bool(shown))
    body += ['<h2>What the loops see, say and find</h2>', *_gallery(report.panels, path.parent)]
    body += ['<h2>The run</h2>', *_run(report)]
    return write_page(path, report.title, body)


def link_evaluation(report: Path, page: Path, title: str) -> None:
    """Add a link to the page of an evaluation to a report that is there, once.

    Raises:
        CannotWrite: the report cannot be written.
    """
    text = report.read_text(encoding='utf-8')
    before, found, rest = text.partition(_END)
    link = f'<p>Evaluation: <a href="{address(page, report.parent)}">{breakable(title)}</a></p>'
    if found and link not in before:
        write_whole(report, before + link + found + rest, 'the report')


def _links_of(path: Path) -> str:
    if not path.is_file():
        return ''
    found = re.search(f'{_LINKS}(.*?){_END}', path.read_text(encoding='utf-8'), re.S)
    return found[1] if found else ''


def _tile(row: SummaryRow, recorded: str) -> str:
    about = explain(row.name).meaning
    if row.recorded is not None:
        about += f' Beside it, {recorded}: {row.recorded:.3g}.'
    return (f'<div class="card"><div class="name">{breakable(row.title)}</div><div class="big">'
            f'<span>{row.first:.3g} →</span> {"…" if row.last is None else format(row.last, ".3g")}</div>'
            f'<p class="about">{escape(about)}</p></div>')


def _cards(scalars: Mapping[str, Series], names: Iterable[str], size: str = '') -> str:
    return f'<div class="grid {size}">{"".join(_card(name, scalars[name]) for name in names)}</div>'


def _card(name: str, series: Series) -> str:
    row = SummaryRow.of(name, series[1])
    return card(name, series, f'<span>{row.first:.4g} →</span> {row.last:.4g} <span>{escape(row.change)}</span>')


def card(name: str, series: Series | Mapping[str, Series], figures: str) -> str:
    """A curve, see :func:`.curves.curve`, with its name, what it means, and ``figures`` as HTML."""
    quantity = explain(name)
    better = {LESS: ' Less is better.', MORE: ' More is better.', None: ''}[quantity.better]
    return (f'<div class="card"><div class="name">{breakable(name)}</div>'
            f'<p class="about">{escape(quantity.meaning + better)}</p><div class="figures">{figures}</div>'
            f'{curve(name, series)}</div>')


def _rest(scalars: Mapping[str, Series], names: Sequence[str], folded: bool) -> Iterator[str]:
    """The other curves by what they are about, each heading folded."""
    def heading(name: str) -> str:
        about = (title for title, pattern in _REST.items() if re.match(pattern, name))
        return next(about, f'Other figures of {name.partition("/")[0]}' if '/' in name else 'Others')

    for title, group in groupby(sorted(names, key=heading), key=heading):
        yield (f'<details{"" if folded else " open"}><summary>{escape(title)}</summary>'
               f'{_cards(scalars, group)}</details>')


def _gallery(panels: Sequence[ReportPanel], folder: Path) -> Iterator[str]:
    """The latest pictures, and folded those before them."""
    if not panels:
        yield '<p class="none">No pictures were taken.</p>'
        return
    yield legend()
    if any(changed for panel in panels for _, text in panel.texts for _, changed in text):
        yield '<p class="legend">Marked words differ from the teacher\'s: <mark>like this</mark>.</p>'
    latest_first = sorted(panels, key=lambda panel: -panel.step)
    for number, (step, group) in enumerate(groupby(latest_first, key=lambda panel: panel.step)):
        rows = ''.join(_figure(panel, folder) for panel in group)
        yield f'<h3>Step {step}</h3>{rows}' if not number else \
            f'<details><summary>Step {step}</summary>{rows}</details>'


def _figure(panel: ReportPanel, folder: Path) -> str:
    chips = [] if panel.iou is None else [f'IoU {panel.iou:.2f}']
    chips += filter(None, (panel.source, panel.sample_id))
    labels = ''.join(f'<span class="chip">{breakable(chip)}</span>' for chip in chips)
    shown = [(label, each if isinstance(each, Image.Image) else address(each, folder))
             for label, each in panel.pictures]
    texts = panel.texts or [('', [(panel.caption, False)])]
    return (f'<div class="card sample">{pictures(shown)}<div class="figures">{labels}</div>'
            + facts((label, as_html(text) or '(no words)') for label, text in texts) + '</div>')


def _run(report: Report) -> Iterator[str]:
    if report.facts:
        yield f'<div class="card">{facts((name, breakable(value)) for name, value in report.facts)}</div>'
    if report.config:
        yield f'<details><summary>Config</summary><pre class="card">{escape(report.config)}</pre></details>'
