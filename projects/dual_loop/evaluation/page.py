"""Results of an evaluation on one HTML page: figures, settings, how the scores spread, and examples.

Results hold no masks. :mod:`.examples` chooses examples from them, asks the model about these again and draws.
Sentence, answer and score stand in the results and need not be given.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dual_loop.visualization import html_page, sample_page
from dual_loop.visualization.palette import legend
from dual_loop.visualization.quantities import meaning

from .bootstrap import fraction, resample
from .results import ResultsError

GROUPS = dict(best='Best', worst='Worst', random='Random')
#: Height in pixels that pictures of examples look well at.
HEIGHT = 256
NUM_BARS, BAR, FLOOR = 20, 15, 102  # of the histogram; width of a bar and height of the highest in pixels
STYLE = sample_page.STYLE + """
.pictures { --tile: 256px; margin-bottom: 12px; } .caption { font-size: 17px; margin: 4px 0 6px; }
"""


@dataclass(frozen=True)
class Example:
    """Pictures of one sample.

    Attributes:
        sample_id: as in the results.
        group: 'best', 'worst' or 'random'.
        panels: titled pictures, such as the predicted and the true mask.
    """

    sample_id: str
    group: str
    panels: Sequence[tuple[str, Image.Image]]


def choose_examples(samples: Sequence[Mapping[str, Any]], count: int = 8, seed: int = 0) -> dict[str, list[str]]:
    """Samples worth a look: group -> at most ``count`` sample ids, the best and the worst in order.

    A sample that was asked in several conditions has their mean score. Equal scores are ordered by chance, which the
    seed decides. No sample is in two groups; if there are few, 'best' and 'worst' get equally many, 'random' the rest.
    """
    scores: dict[str, list[float]] = {}
    for sample, score in zip(samples, _scores(samples)):
        scores.setdefault(sample['sample_id'], []).append(score)
    ids = [str(name) for name in np.random.default_rng(seed).permutation(sorted(scores))]
    ranked = sorted(ids, key=lambda name: -np.mean(scores[name]))  # keeps the order of equals
    edge = min(count, len(ranked) // 2)
    chosen = dict(best=ranked[:edge], worst=ranked[len(ranked) - edge:][::-1])
    taken = {*chosen['best'], *chosen['worst']}
    return chosen | dict(random=[name for name in ids if name not in taken][:count])


def write_page(path: str | Path, results: Mapping[str, Any], examples: Sequence[Example] = (),
               report: Path | None = None) -> Path:
    """Write the page, atomically; it needs no other file.

    Args:
        path: of the HTML file.
        results: of :func:`~dual_loop.evaluation.results.read_results`.
        examples: in the order in which a group shows them.
        report: page of the run whose checkpoint was evaluated, to be linked.

    Returns:
        The path written.

    Raises:
        ResultsError: an example that is not in the results, or of an unknown group.
    """
    samples, metrics = results['samples'], results['metrics']
    title = f'{_data_name(results)} · {results["model"].get("name", results["task"])}'
    path = Path(path)
    body = [f'<h1>{html_page.breakable(title)}</h1>', f'<p>{escape(_subtitle(results))}</p>']
    if report:
        body.append(f'<p>Training: <a href="{html_page.address(report, path.parent)}">report of the run</a></p>')
    body += [f'<div class="grid">{"".join(_tiles(results))}</div>']
    if any('/' in name for name in metrics):
        body += ['<h2>By condition</h2>', _conditions(metrics)]
    if samples:
        body += [f'<h2>{"CIDEr" if _has_captions(samples) else "IoU"} of the sentences</h2>',
                 f'<div class="grid">{"".join(_histograms(samples))}</div>']
    by_id: dict[str, list] = {}
    for sample in samples:
        by_id.setdefault(sample['sample_id'], []).append(sample)
    for example in examples:
        if example.sample_id not in by_id or example.group not in GROUPS:
            raise ResultsError(f'example {example.sample_id!r} of group {example.group!r}: the results have no such '
                               f'sample, or the group is none of {", ".join(GROUPS)}')
    body += [legend()] if examples else []
    for group, heading in GROUPS.items():
        cards = [_example(example, by_id[example.sample_id]) for example in examples if example.group == group]
        body += [f'<h2>{heading}</h2>', *cards] if cards else []
    body += ['<h2>Settings</h2>', _settings(results)]
    return html_page.write_page(path, title, body, STYLE)


def _has_captions(samples: Sequence[Mapping]) -> bool:
    return 'cider' in samples[0]


def _scores(samples: Sequence[Mapping]) -> list[float]:
    """CIDEr of captions, IoU of masks."""
    return fraction(samples, 'cider' if _has_captions(samples) else 'giou')[0].tolist() if samples else []


def _data_name(results: Mapping) -> str:
    data = results['dataset']
    return ' '.join(str(data[key]) for key in ('name', 'split') if data.get(key))


def _subtitle(results: Mapping) -> str:
    data, counts = results['dataset'], results['counts']
    parts = [f'{results["task"]}, protocol {results["protocol"]}',
             f'{counts.get("sentences", len(results["samples"]))} samples of {counts.get("images", "?")} images']
    limits = [f'{data[key]}' for key in ('max_images', 'max_texts_per_image', 'max_samples') if data.get(key)]
    return ' · '.join(parts + (['only a part of the data'] if limits else [])
                      + ([f'data: {data["data_root_name"]}'] if data.get('data_root_name') else []))


def _tiles(results: Mapping) -> Iterator[str]:
    """Each metric of all samples, with its interval where the samples give one."""
    for name, value in results['metrics'].items():
        if '/' in name:
            continue
        below = ''
        try:
            interval = resample(results['samples'], [name])[name].estimate
            if np.isclose(interval.value, value):  # of corpus scores such as METEOR it is another quantity's
                below = f'95 % interval {interval.low:.3f} to {interval.high:.3f}'
        except ResultsError:
            pass
        yield (f'<div class="card"><div class="name">{html_page.breakable(name)}</div>'
               f'<div class="big">{value:.4g}</div>'
               f'<div class="name">{below}</div><p class="about">{escape(meaning(name))}</p></div>')


def _conditions(metrics: Mapping[str, float]) -> str:
    """A row for each condition, a column for each metric."""
    split = {name: name.partition('/')[::2] for name in metrics if '/' in name}
    columns, rows = (list(dict.fromkeys(names)) for names in zip(*split.values()))
    head = ''.join(f'<th>{html_page.breakable(name)}</th>' for name in ('condition', *columns))
    lines = []
    for row in rows:
        values = (metrics.get(f'{column}/{row}') for column in columns)
        cells = ''.join(f'<td>{"" if value is None else format(value, ".4g")}</td>' for value in values)
        lines.append(f'<tr><th>{html_page.breakable(row)}</th>{cells}</tr>')
    return f'<div class="card scroll"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def _histograms(samples: Sequence[Mapping]) -> Iterator[str]:
    """A card for each condition, or one for all."""
    def part(pair: tuple[Mapping, float]) -> str:
        return ' · '.join(str(pair[0][key]) for key in ('condition', 'frame') if key in pair[0])

    scores = _scores(samples)
    top = max(scores) or 1.0 if _has_captions(samples) else 1.0
    for name, pairs in groupby(sorted(zip(samples, scores), key=part), key=part):
        label = f'<div class="name">{escape(name)}</div>' if name else ''
        yield f'<div class="card">{label}{histogram([score for _, score in pairs], top, name)}</div>'


def histogram(values: Sequence[float], top: float = 1.0, name: str = '') -> str:
    """Counts of values from 0 to ``top`` in ``NUM_BARS`` bars of equal width, as an ``<svg>``."""
    counts, edges = np.histogram(np.clip(values, 0, top), NUM_BARS, (0, top))
    width = NUM_BARS * BAR
    bars = []
    for number, count in enumerate(counts.tolist()):
        height = (FLOOR - 16) * count / max(1, counts.max())
        hint = f'{edges[number]:.2f} to {edges[number + 1]:.2f}: {count}'
        bars.append(f'<rect class="bar" x="{number * BAR + 1}" y="{FLOOR - height:.1f}" width="{BAR - 2}" '
                    f'height="{height:.1f}"><title>{hint}</title></rect>')
    ticks = ''.join(f'<text x="{width * share:.0f}" y="{FLOOR + 16}" text-anchor="{anchor}">{top * share:.3g}</text>'
                    for share, anchor in ((0, 'start'), (0.5, 'middle'), (1, 'end')))
    return (f'<svg viewBox="0 0 {width} {FLOOR + 20}" role="img"><title>{escape(name or "histogram")}</title>'
            f'<line class="frame" x1="0" y1="{FLOOR}" x2="{width}" y2="{FLOOR}"/>{"".join(bars)}{ticks}'
            f'<text x="0" y="10">highest bar: {counts.max()} of {len(values)}</text></svg>')


def _example(example: Example, samples: Sequence[Mapping]) -> str:
    said = ''.join(_said(sample, score) for sample, score in zip(samples, _scores(samples)))
    return (f'<div class="card sample"><div class="name">{html_page.breakable(example.sample_id)}</div>'
            f'{html_page.pictures(example.panels)}{said}</div>')


def _said(sample: Mapping, score: float) -> str:
    """Score, text and what belongs to it, of one question."""
    chips = [str(sample[key]) for key in ('source', 'condition', 'frame') if sample.get(key)]
    chips.append(f'CIDEr {score:.2f}' if 'cider' in sample else f'IoU {score:.2f}')
    chips += [f'{name} {sample[key]:.2f}' for name, key in (('METEOR', 'meteor'), ('BLEU-4', 'bleu4'))
              if sample.get(key) is not None]
    if sample.get('seg') is False:
        chips.append('no [SEG]')
    labels = ''.join(f'<span class="chip">{escape(chip)}</span>' for chip in chips)
    text = escape(sample['text']) or '<span class="none">(no text)</span>'
    lines = [sample[key] for key in ('answer', ) if key in sample] + list(sample.get('references', ()))
    return (f'<p class="caption">{text}</p><div>{labels}</div>'
            + ''.join(f'<div class="name">{escape(line)}</div>' for line in lines))


def _settings(results: Mapping) -> str:
    """All but the metrics and the samples, a row for each."""
    rows = []
    for key, value in results.items():
        if key not in ('metrics', 'samples', 'schema'):
            named = value.items() if isinstance(value, Mapping) else [('', value)]
            rows += [(f'{key} {name}'.strip().replace('_', ' '), entry) for name, entry in named if entry is not None]
    return f'<div class="card">{html_page.facts((name, escape(str(entry))) for name, entry in rows)}</div>'
