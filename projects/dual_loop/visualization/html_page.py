"""The frame and the look of every HTML page: one file, no script, nothing from the network, light and dark, phones."""

import base64
import io
import os
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from llava_sam2.paths import write_whole

from .palette import CURVES, variables

STYLE = variables() + """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 20px 80px; overflow-wrap: break-word; }
@media (max-width: 480px) { main { padding: 20px 12px 60px; } }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 18px; letter-spacing: -.01em; }
h2 { font-size: 18px; margin: 40px 0 12px; }
h3 { font-size: 14px; margin: 26px 0 10px; font-weight: 600; }
a { color: var(--accent); }
.grid { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(min(250px, 100%), 1fr)); }
.grid.large { grid-template-columns: repeat(auto-fill, minmax(min(420px, 100%), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px 16px; margin: 0;
  min-width: 0; }
.name { color: var(--faint); font-size: 13px; }
.grid > .card > .name:first-child { color: var(--ink); font-weight: 600; }
.about { color: var(--faint); font-size: 13px; line-height: 1.4; margin: 2px 0 0; }
.big { font-size: 24px; font-weight: 600; font-variant-numeric: tabular-nums; }
.big span, .figures span { color: var(--faint); font-weight: 400; }
.figures { font-variant-numeric: tabular-nums; margin: 4px 0 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 12px; text-align: right; vertical-align: top; border-top: 1px solid var(--line); }
td { white-space: nowrap; }
tr:first-child th { border-top: 0; color: var(--faint); font-size: 13px; font-weight: 500; }
th:first-child { text-align: left; font-weight: 500; padding-left: 0; min-width: 9em; }
.facts th { color: var(--faint); font-size: inherit !important; }
.facts th:first-child { min-width: clamp(6.5em, 24vw, 16em); }
.facts th, .facts td { text-align: left; } .facts td { white-space: normal; width: 100%; overflow-wrap: anywhere; }
.facts tr:first-child td { border-top: 0; }
.settings th, .settings td { text-align: left; } .settings td { white-space: normal; min-width: 8em; }
code, pre { font: 13px/1.5 ui-monospace, monospace; }
pre { overflow-x: auto; margin: 10px 0 0; }
details { margin: 14px 0 0; } summary { cursor: pointer; font-weight: 600; } details > .grid { margin-top: 12px; }
svg { display: block; width: 100%; height: auto; margin-top: 8px; overflow: visible; }
svg text { fill: var(--faint); font-size: 11px; font-variant-numeric: tabular-nums; }
svg polyline { fill: none; stroke-linejoin: round; stroke-linecap: round; }
svg .raw { stroke-opacity: .32; } svg .smooth { stroke-width: 2; }
svg .frame { stroke: var(--line); } svg .zero { stroke: var(--faint); stroke-dasharray: 3 4; stroke-opacity: .7; }
svg .bar { fill: var(--accent); }
.pictures { display: flex; flex-wrap: wrap; gap: 12px; margin: 10px 0 0; }
.pictures figure { flex: 0 1 var(--tile, 256px); margin: 0; min-width: 0; }
@media (max-width: 640px) { .pictures figure { flex: 0 1 calc(50% - 6px); } }
@media (min-width: 641px) { .pictures:not(:has(> :nth-child(6))) { flex-wrap: nowrap; } }
.pictures img { display: block; width: 100%; height: auto; border-radius: 8px; }
.pictures figcaption { font-size: 12.5px; color: var(--faint); margin-top: 5px; }
.sample { margin-bottom: 14px; }
.chip { display: inline-block; border: 1px solid var(--line); border-radius: 99px; padding: 0 9px; margin: 0 6px 4px 0;
  font-size: 12.5px; color: var(--faint); font-variant-numeric: tabular-nums; max-width: 100%; }
.legend { color: var(--faint); font-size: 13px; }
.swatch { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px; }
mark { background: var(--changed-bg); color: var(--changed); border-radius: 4px; padding: 0 2px;
  text-decoration: underline; text-underline-offset: 2px; }
.none { color: var(--faint); }
""" + ''.join(f'.curve{number} {{ --own: var(--curve{number}); }}\n' for number in range(len(CURVES))) + """
svg [class^=curve] polyline { stroke: var(--own); } svg .again polyline { stroke-dasharray: 5 4; }
i[class^=curve] { background: var(--own); }
"""


def write_page(path: Path, title: str, body: Iterable[str], style: str = '') -> Path:
    """Write an HTML page, atomically; ``style`` is added to ``STYLE``."""
    page = (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<style>{STYLE}{style}</style></head>\n<body><main>\n' + '\n'.join(body) + '\n</main></body></html>\n')
    write_whole(path, page, 'the page')
    return path


def breakable(name: str) -> str:
    """A technical name as HTML, which a narrow page may break behind / _ . and nowhere else."""
    return re.sub(r'([/_.])(?=.)', r'\1<wbr>', escape(name))


def pictures(panels: Iterable[tuple[str, Image.Image | str]]) -> str:
    """Pictures side by side, each above its label: embedded, or at the address that is given."""
    def figure(label: str, picture: Image.Image | str) -> str:
        source = picture if isinstance(picture, str) else embedded(picture)
        return (f'<figure><img src="{source}" alt="{escape(label)}" loading="lazy"><figcaption>{escape(label)}'
                '</figcaption></figure>')

    return f'<div class="pictures">{"".join(figure(*each) for each in panels)}</div>'


def embedded(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, 'JPEG', quality=82)
    return f'data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}'


def address(file: str | Path, folder: str | Path) -> str:
    """The address of a file on a page in a folder."""
    return quote(os.path.relpath(file, folder).replace(os.sep, '/'))


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values, a row for each; the values are HTML."""
    lines = (f'<tr><th>{escape(name)}</th><td>{value}</td></tr>' for name, value in rows)
    return f'<table class="facts">{"".join(lines)}</table>'
