"""The table of a cycle evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

from .cycle import CONDITIONS, FRAMES, METRICS, cycle_metrics

NAMES = dict(giou='mIoU', ciou='cIoU', no_seg_rate='no [SEG]')
CAPTION_FIGURES = {
    'caption_len': 'tokens of a description, mean',
    'distinct_1': 'distinct-1 (different tokens / tokens)',
    'distinct_2': 'distinct-2 (different pairs of tokens / pairs)',
    'duplicates': 'share that another object has too',
    'hit_max_len': 'share that did not come to an end',
    'empty': 'share without a word',
}
#: Of demo data, whose truth is known.
ACCURACY = {
    'accuracy_all_four': 'share with all four attributes right',
    **{f'accuracy_{name}': f'share with the right {name}' for name in ('shape', 'colour', 'size', 'texture')},
    'accuracy_new_names': 'share of new names said right',
    'accuracy_old_names': 'share of old names said right',
    'unknown_words': 'share of words that no demo sentence has',
}


def cycle_table(results: Mapping[str, Any], examples: int = 3) -> str:
    """Conditions in rows, frames and metrics in columns, for each source and all; then the descriptions."""
    counts, model, timing, samples = (results[key] for key in ('counts', 'model', 'timing', 'samples'))
    lines = [
        f'cycle, {results["dataset"]["name"]}, protocol {results["protocol"]}: {counts["objects"]} objects of '
        f'{counts["images"]} images',
        f'model {model["name"]}, {results["dtype"]}, weights {model["fingerprint"][:12]}',
        *(f'left out: {problem}' for problem in results['dataset']['left_out']), '',
        ' ' * 24 + ''.join(f'{f"{frame} frame":^36}' for frame in FRAMES),
        ' ' * 24 + ''.join(f'{name:>9}' for _ in FRAMES for name in ('objects', *NAMES.values())),
    ]
    names = results['dataset']['sources']
    for source in [*names, 'all'] if len(names) > 1 else ['all']:
        lines += [source, *_rows([each for each in samples if source in ('all', each['source'])])]
    lines += ['', 'descriptions']
    lines += [f'  {title:48}{results["metrics"][name]:9.3f}' for name, title in
              (CAPTION_FIGURES | ACCURACY).items() if name in results['metrics']]
    lines += ['', 'some of them', *_examples(samples, examples), '',
              'shuffled near generated: the decoder ignores language (or the descriptions are alike); '
              'empty near generated: it takes what is salient',
              f'{timing["seconds"]:.1f} s ({timing["processes"]} x {timing["device"]})']
    return '\n'.join(lines)


def _rows(samples: Sequence[Mapping]) -> list[str]:
    metrics, rows = cycle_metrics(samples), []
    for condition in CONDITIONS:
        cells = []
        for frame in FRAMES:
            count = sum((each['condition'], each['frame']) == (condition, frame) for each in samples)
            cells += [f'{count or "-":>9}', *(
                f'{metrics[f"{name}/{condition}/{frame}"]:9.3f}' if count else f'{"-":>9}' for name in METRICS)]
        rows.append(f'  {condition:22}{"".join(cells)}')
    return rows


def _examples(samples: Sequence[Mapping], count: int) -> list[str]:
    asked = [each for each in samples if (each['condition'], each['frame']) == ('generated', 'same')]
    true = {(each['source'], each['sample_id']): each['text'] for each in samples if each['condition'] == 'true'}
    count, lines = min(count, len(asked)), []
    for number in range(count):
        each = asked[number * len(asked) // count]
        iou = each['intersection'] / each['union']
        lines.append(f'  {each["source"]}, {each["sample_id"]} (IoU {iou:.2f}): {each["text"]!r}')
        if words := true.get((each['source'], each['sample_id'])):
            lines.append(f'    data set: {words!r}')
    return lines
