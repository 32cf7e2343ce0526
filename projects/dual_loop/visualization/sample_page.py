"""Samples of data sets on one HTML page: pictures, caption, and tokens as chips."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from pathlib import Path

from . import html_page
from .html_page import address, pictures, write_page
from .palette import CHIPS, legend
from .sample_view import LEGEND, SUPERVISED, SampleView, shown_text
from .token_view import Chip, TokenView

STYLE = """
.pictures { --tile: 320px; }
.caption { font-size: 22px; line-height: 1.35; margin: 4px 0 18px; }
h4 { font-size: 14px; margin: 18px 0 2px; font-weight: 600; } h4 span { color: var(--faint); font-weight: 400; }
.tokens { display: flex; flex-wrap: wrap; gap: 7px 3px; margin: 8px 0 6px; font-size: 13px; line-height: 20px; }
.tok { border-radius: 5px; padding: 0 5px; border-bottom: 3px solid transparent; background-clip: padding-box;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.supervised { border-bottom-color: var(--supervised); border-radius: 5px 5px 0 0; }
.note { color: var(--warn); margin: 4px 0; overflow-wrap: anywhere; }
""" + ''.join(f'.{kind} {{ background-color: var(--{kind}-bg); color: var(--{kind}); }}\n' for kind in CHIPS)


@dataclass(frozen=True)
class PageSample:
    """One view on the page.

    Attributes:
        view: what to show.
        picture: path of its picture file, linked relative to the page.
        note: what is special about it, such as that it replaces another one.
    """

    view: SampleView
    picture: Path
    note: str = ''


@dataclass
class PageSource:
    """The samples of one data set.

    Attributes:
        loader: that the data set belongs to.
        source: its name.
        length: its number of samples, repeats included.
        samples: some of them.
        problems: a line for each.
    """

    loader: str
    source: str
    length: int
    samples: list[PageSample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def write_sample_page(path: str | Path, title: str, sources: Sequence[PageSource], problems: Sequence[str] = ()
                      ) -> Path:
    """Write the page, atomically; the pictures on it are embedded.

    Args:
        path: of the HTML file.
        title: of the page.
        sources: in order; those of one loader follow each other.
        problems: a line for each data set that is not there.
    """
    path = Path(path)
    body = [f'<h1>{html_page.breakable(title)}</h1>', _legend(), *_notes(problems)]
    for loader, group in groupby(sources, key=lambda source: source.loader):
        body.append(f'<h2>{escape(loader)}</h2>')
        for source in group:
            body.append(f'<h3>{html_page.breakable(source.source)} · {source.length} samples</h3>')
            body += _notes(source.problems)
            body += (_sample(sample, path.parent) for sample in source.samples)
    return write_page(path, title, body, STYLE)


def _legend() -> str:
    chips = [Chip(text, (), False, kind) for kind, text in LEGEND.items()] + [Chip(SUPERVISED, (), True, 'text')]
    return (f'<div class="tokens">{"".join(map(_chip, chips))}</div><p class="name">· is a space, \\n a line break. '
            'A supervised token is one that the model has to predict. Ids are shown under the pointer.</p>' + legend())


def _notes(lines: Iterable[str]) -> Iterator[str]:
    return (f'<p class="note">{escape(line)}</p>' for line in lines)


def _sample(sample: PageSample, folder: Path) -> str:
    view = sample.view
    link = f'<a href="{address(sample.picture, folder)}">{html_page.breakable(sample.picture.name)}</a>'
    caption = '<span class="none">no caption</span>' if view.caption is None else escape(view.caption)
    notes = ''.join(_notes([sample.note] if sample.note else []))
    return (f'<div class="card sample"><div class="name">{html_page.breakable(view.sample_id)} · {link}</div>{notes}'
            f'{pictures(view.panels)}<p class="caption">{caption}</p>{"".join(map(_sequence, view.sequences))}</div>')


def _sequence(sequence: TokenView) -> str:
    note = f'<div class="name">{escape(sequence.note)}</div>' if sequence.note else ''
    return (f'<h4>{escape(sequence.title)} <span>· {sequence.length}</span></h4>{note}'
            f'<div class="tokens">{"".join(map(_chip, sequence.chips))}</div>')


def _chip(chip: Chip) -> str:
    is_run = chip.ids and chip.kind in ('image', 'region')
    ids = f'{chip.ids[0]} x {len(chip.ids)}' if is_run else ' '.join(map(str, chip.ids))
    hint = f' title="{ids}"' if chip.ids and chip.kind != 'slot' else ''
    return f'<span class="tok {chip.kind}{" supervised" * chip.supervised}"{hint}>{escape(shown_text(chip))}</span>'
