"""Results of evaluations against the first one of them, with paired intervals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .bootstrap import Estimate, fraction, resample
from .results import ResultsError, read_results, sample_key

SAME_DATA = ('name', 'split', 'split_by', 'digest')


def check_alike(base: dict, other: dict, base_path: Path, path: Path) -> list[str]:
    """Lines about settings that may explain a difference.

    Raises:
        ResultsError: the two answer different questions.
    """
    def settings(results: dict) -> dict[str, Any]:
        data = {f'data set: {key}': results['dataset'].get(key) for key in SAME_DATA}
        asked = {key: results.get(key) for key in ('task', 'protocol', 'tokenizer')}
        return asked | data | {'prompt': results['prompt']}

    theirs = settings(other)
    for name, value in settings(base).items():
        if value != theirs[name]:
            raise ResultsError(f'{path} cannot be compared with {base_path}: {name} is {theirs[name]!r}, not {value!r}')
    expected, given = ({sample_key(sample) for sample in results['samples']} for results in (base, other))
    if differing := expected ^ given:
        raise ResultsError(f'{path} cannot be compared with {base_path}: it lacks {len(expected - given)} of its '
                           f'samples and has {len(given - expected)} others, for example '
                           f'{" ".join(map(str, filter(None, min(differing, key=str))))}; were both limited alike?')
    return [f'{path}: {key} is {other[key]}, in {base_path} {base[key]}'
            for key in ('dtype', 'batch_size', 'max_new_tokens') if other[key] != base[key]]


def shared_metrics(files: Sequence[dict]) -> list[str]:
    """Metrics that all results have and their samples give, without the many precisions."""
    def given(name: str) -> bool:
        try:
            return all(name in results['metrics'] and fraction(results['samples'], name) for results in files)
        except ResultsError:
            return False

    return [name for name in files[0]['metrics'] if not name.startswith('precision@') and given(name)]


def labels(files: Sequence[dict], paths: Sequence[Path]) -> list[str]:
    """What the models are called: by their names, or by the files where these do not tell them apart."""
    names = [results['model'].get('name') for results in files]
    return [name if name and names.count(name) == 1 else path.stem for name, path in zip(names, paths)]


def table(files: Sequence[dict], paths: Sequence[Path], metrics: Sequence[str], resamples: int, seed: int) -> list[str]:
    """Lines of Markdown: the base first, one row for each file."""
    base, *others = [resample(results['samples'], metrics, resamples, seed) for results in files]
    head = ['model', *(title for name in metrics for title in (name, f'Δ {name}'))]
    rows = [head, ['---'] * len(head)]
    for label, figures in zip(labels(files, paths), [base, *others]):
        cells = [label.replace('|', '\\|')]
        for name in metrics:
            delta = '' if figures is base else shown((figures[name] - base[name]).estimate, sign='+')
            cells += [shown(figures[name].estimate), delta]
        rows.append(cells)
    return [f'| {" | ".join(row)} |' for row in rows]


def shown(estimate: Estimate, sign: str = '') -> str:
    """A figure with its interval; a difference is bold where the interval leaves out zero."""
    text = '{:{f}} [{:{f}}, {:{f}}]'.format(estimate.value, estimate.low, estimate.high, f=f'{sign}.4f')
    return f'**{text}**' if sign and not estimate.low <= 0 <= estimate.high else text


def conditions(results: dict, resamples: int, seed: int) -> str:
    """One line: what was measured on what."""
    data, counts = results['dataset'], results['counts']
    names = ' '.join(str(data[key]) for key in ('name', 'split') if data.get(key))
    partition = f' ({data["split_by"]})' if data.get('split_by') else ''
    return (f'{results["task"]}, {results["protocol"]}, {names}{partition}: {counts["sentences"]} sentences of '
            f'{counts["images"]} images. 95 % intervals over images ({resamples} resamples, seed {seed}); Δ is the '
            f'difference from the first row, bold where its interval leaves out zero.')


def compare(paths: Sequence[Path], metrics: Sequence[str] | None, resamples: int, seed: int) -> tuple[str, list[str]]:
    """The table of these files with its conditions, and lines about what may explain a difference.

    Raises:
        ResultsError: results that cannot be read or compared.
    """
    files = [read_results(path) for path in paths]
    base, first = files[0], paths[0]
    notes = [line for path, other in zip(paths[1:], files[1:]) for line in check_alike(base, other, first, path)]
    metrics = metrics or shared_metrics(files)
    if not metrics:
        raise ResultsError(f'{first} has no metric that all others have too and that can be had from the samples')
    for path, results in zip(paths, files):
        for name in metrics:
            value, whole = resample(results['samples'], [name], 1)[name].value, results['metrics'].get(name)
            if whole is not None and abs(value - whole) > 1e-6:
                notes.append(f'{path}: {name} is {whole:.4f} over everything at once and {value:.4f} as a mean over '
                             'sentences, which is what is compared')
    lines = [conditions(base, resamples, seed), '', *table(files, paths, metrics, resamples, seed)]
    return '\n'.join(lines) + '\n', notes
