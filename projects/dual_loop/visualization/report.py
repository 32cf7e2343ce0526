"""A training run on one page: what the numbers did, and what the loops wrote and drew over the steps.

The page is one HTML file with inline style and inline SVG, no script and nothing from the network.
"""

import base64
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from llava_sam2.paths import write_whole

from .curves import Series, curve
from .summary import SummaryRow

STYLE = """
:root { color-scheme: light dark; --paper: #f6f7f9; --card: #fff; --ink: #1c2026; --faint: #68717d; --line: #e1e5ea;
  --accent: #1769e0; }
@media (prefers-color-scheme: dark) { :root { --paper: #111418; --card: #1a1e24; --ink: #e7eaee; --faint: #98a1ad;
  --line: #2b313a; --accent: #6aa8ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 20px 80px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 28px; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 44px 0 14px; }
h3 { font-size: 14px; margin: 26px 0 10px; font-weight: 600; overflow-wrap: anywhere; }
.grid { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(min(250px, 100%), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px 16px; margin: 0; }
.name { color: var(--faint); font-size: 13px; overflow-wrap: anywhere; }
.big { font-size: 24px; font-weight: 600; font-variant-numeric: tabular-nums; }
.big span { color: var(--faint); font-weight: 400; }
.scroll { overflow-x: auto; padding: 4px 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 16px; text-align: right; border-top: 1px solid var(--line); white-space: nowrap; }
tr:first-child th { border-top: 0; color: var(--faint); font-size: 13px; font-weight: 500; }
th:first-child { text-align: left; font-weight: 500; white-space: normal; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; margin-top: 8px; overflow: visible; }
svg text { fill: var(--faint); font-size: 11px; font-variant-numeric: tabular-nums; }
svg .raw { stroke: var(--accent); stroke-opacity: .28; fill: none; }
svg .smooth { stroke: var(--accent); stroke-width: 2; fill: none; stroke-linejoin: round; }
svg .frame { stroke: var(--line); } svg .zero { stroke: var(--faint); stroke-dasharray: 3 4; stroke-opacity: .7; }
figure { margin: 0 0 14px !important; }
figure img { display: block; width: 100%; height: auto; border-radius: 8px; }
figcaption { margin-top: 10px; overflow-wrap: anywhere; }
.chip { display: inline-block; border: 1px solid var(--line); border-radius: 99px; padding: 0 9px; margin-right: 6px;
  font-size: 12.5px; color: var(--faint); font-variant-numeric: tabular-nums; }
.none { color: var(--faint); }
"""


@dataclass(frozen=True)
class ReportPanel:
    """One picture of the report.

    Attributes:
        step: optimizer step at which it was made.
        image: a PIL picture, which goes into the page itself, or the path of a written one, which is linked relative to
            the page.
        caption: what the model said, or the human sentence.
        sample_id: pictures of the same sample stand together, in the order of their steps.
        source: name of the data set.
        iou: of the predicted against the true mask.
    """

    step: int
    image: Image.Image | Path | str
    caption: str
    sample_id: str = ''
    source: str = ''
    iou: float | None = None


def write_report(path: str | Path, title: str, panels: Sequence[ReportPanel], summary_table: Sequence[SummaryRow],
                 scalars: Mapping[str, Series], highlights: Sequence[SummaryRow] = ()) -> Path:
    """Write the page, atomically.

    Args:
        path: of the HTML file; its folder is made if it does not exist.
        title: of the run.
        panels: pictures, in any order.
        summary_table: rows of the table, for example ``summarise_scalars(records)``.
        scalars: name -> (steps, values) of the curves to draw, for example some of ``collect_series(records)``.
        highlights: the few numbers that stand first and large, before -> after, such as the held-out mask IoU.

    Returns:
        The path written.
    """
    path = Path(path)
    body = [f'<h1>{escape(title)}</h1>']
    if highlights:
        body.append(f'<div class="grid">{"".join(map(_tile, highlights))}</div>')
    body += ['<h2>First and last</h2>', _table(summary_table)]
    if scalars:
        curves = (f'<div class="card"><div class="name">{escape(name)}</div>{curve(name, series)}</div>'
                  for name, series in scalars.items())
        body += ['<h2>Over the steps</h2>', f'<div class="grid">{"".join(curves)}</div>']
    body += ['<h2>What the loops see, say and find</h2>', *_gallery(panels, path.parent)]
    return write_page(path, title, body)


def write_page(path: Path, title: str, body: Iterable[str], style: str = '') -> Path:
    """Write an HTML page with the look of the report, atomically; ``style`` is added to ``STYLE``."""
    page = (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<style>{STYLE}{style}</style></head>\n<body><main>\n' + '\n'.join(body) + '\n</main></body></html>\n')
    write_whole(path, page, 'the page')
    return path


def _tile(row: SummaryRow) -> str:
    return (f'<div class="card"><div class="name">{escape(row.name)}</div><div class="big">'
            f'<span>{row.first:.3g} →</span> {row.last:.3g}</div></div>')


def _table(rows: Sequence[SummaryRow]) -> str:
    if not rows:
        return '<p class="none">No numbers were logged.</p>'
    lines = [f'<tr><th>{escape(row.name)}</th><td>{row.first:.4g}</td><td>{row.last:.4g}</td>'
             f'<td>{escape(row.change)}</td></tr>' for row in rows]
    head = '<tr><th>quantity</th><th>first</th><th>last</th><th>change</th></tr>'
    return f'<div class="card scroll"><table>{head}{"".join(lines)}</table></div>'


def _gallery(panels: Sequence[ReportPanel], folder: Path) -> Iterable[str]:
    if not panels:
        yield '<p class="none">No pictures were taken.</p>'
    samples: dict[tuple[str, str], list[ReportPanel]] = {}
    for item in panels:
        samples.setdefault((item.source, item.sample_id), []).append(item)
    for names, items in samples.items():
        yield f'<h3>{escape(" · ".join(filter(None, names)))}</h3>' if any(names) else ''
        yield from (_figure(item, folder) for item in sorted(items, key=lambda item: item.step))


def _figure(item: ReportPanel, folder: Path) -> str:
    chips = [f'step {item.step}'] + ([] if item.iou is None else [f'IoU {item.iou:.2f}'])
    caption = escape(item.caption) or '<span class="none">(no caption)</span>'
    labels = ''.join(f'<span class="chip">{chip}</span>' for chip in chips)
    image = f'<img src="{_address(item.image, folder)}" alt="{escape(item.caption)}" loading="lazy">'
    return f'<figure class="card">{image}<figcaption>{labels}{caption}</figcaption></figure>'


def _address(image: Image.Image | Path | str, folder: Path) -> str:
    if isinstance(image, Image.Image):
        stream = io.BytesIO()
        image.save(stream, 'PNG', optimize=True)
        return f'data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}'
    if not Path(image).is_file():
        raise FileNotFoundError(f'{image}: the report should link this picture, but it does not exist')
    return quote(os.path.relpath(image, folder).replace(os.sep, '/'))
