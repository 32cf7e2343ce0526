"""The JSON file of an evaluation: one schema for all tasks.

===================  ====================================================================================
``schema``           1
``task``             'referring', 'captions' or 'cycle'
``protocol``         'generate' or 'forced' (see ``predictor.PROTOCOLS``)
``dataset``          name, split, split_by, data_root_name, digest (of the index) and what else limits it
``model``            ``loading.Loaded.description``: name, fingerprint, checkpoint, averages, dtype and so on
``prompt``           the question; ``{}`` stands for the sentence
``dtype``            'fp32' or 'bf16', of the weights
``batch_size``       sentences or regions at a time
``max_new_tokens``   of an answer
``tokenizer``        'ptb' or 'plain', of captions only (see ``caption_scores``)
``counts``           images, sentences and what was left out
``metrics``          name -> number; nothing nested. A metric of a part of the samples is
                     ``<metric>/<condition>/<frame>``, such as ``giou/caption/paired``, or
                     ``<metric>/<kind>/<names>``, such as ``ciou/attribute/new`` or ``ciou/new``
``versions``         see :func:`versions`
``timing``           seconds, sentences_per_second, processes, device: all that may differ between two runs
``samples``          one object for each sentence, sorted by image and sample_id; see below
===================  ====================================================================================

Samples, in pixels and shares of 1:

- referring: image, sample_id, text, intersection, union, seg (the answer has a ``[SEG]``), answer, and of demo data
  kind ('attribute', 'relation' or 'description') and names ('new' or 'old', see ``attribute_accuracy``)
- captions: image, sample_id, text (as generated), references, ended, cider, bleu4, meteor where it was computed, and
  of demo data ``accuracy_shape``, ``_colour``, ``_size``, ``_texture`` and ``_all_four``
- cycle: image, sample_id, source, condition, frame ('same' or 'paired'), text, intersection, union, seg
"""

import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dual_loop import __version__
from llava_sam2.paths import write_whole

SCHEMA = 1
KEYS = ('task', 'protocol', 'dataset', 'model', 'prompt', 'dtype', 'batch_size', 'max_new_tokens', 'counts', 'metrics',
        'versions', 'timing', 'samples')
OF_SOME_TASKS = ('tokenizer', )


class ResultsError(ValueError):
    """Results that cannot be written, read or compared."""


def assemble_results(
    task: str, model: Mapping[str, Any], samples: Sequence[Mapping], metrics: Mapping[str, float],
    counts: Mapping[str, int], libraries: Sequence[str] = (), **others: Any,
) -> dict[str, Any]:
    """The keys of the schema for samples that are complete, without ``schema``.

    Args:
        task: of the schema, as are the metrics.
        model: ``Loaded.description``.
        counts: what is counted beside the sentences, of which there is one a sample.
        libraries: further ones whose versions decide about the numbers.
        others: protocol, dataset, prompt, batch_size, max_new_tokens, timing, and what is of some tasks only.
    """
    return dict(
        task=task, model=model, dtype=model['dtype'],
        counts=dict(images=counts['images'], sentences=len(samples)) | dict(counts), metrics=metrics,
        versions=versions() | {name: version(name) for name in libraries}, samples=samples, **others,
    )


def write_results(path: str | Path, results: Mapping[str, Any]) -> Path:
    """Write results as JSON: whole or not at all, each sample on a line, samples and keys in the schema's order.

    Args:
        path: of the file; its folder is made if it does not exist.
        results: the keys of the schema, without ``schema``.

    Returns:
        The path written.

    Raises:
        ResultsError: missing or unknown keys, a sample that comes twice, metrics that are no finite numbers.
    """
    path = Path(path)
    if wrong := sorted((results.keys() - {'schema', *OF_SOME_TASKS}) ^ set(KEYS)):
        raise ResultsError(f'{path}: missing or unknown keys: {", ".join(wrong)}')
    for name, value in results['metrics'].items():
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ResultsError(f'{path}: metrics must be finite numbers, got {value!r} for {name!r}')
    samples = sorted(results['samples'], key=sample_key)
    for first, second in zip(samples, samples[1:]):
        if sample_key(first) == sample_key(second):
            raise ResultsError(f'{path}: two samples are {sample_key(first)}')
    head = dict(schema=SCHEMA) | {key: results[key] for key in KEYS + OF_SOME_TASKS if key in results}
    del head['samples']
    fields = [f'{json.dumps(key)}: {_json(value)}' for key, value in head.items()]
    lines = ',\n  '.join(map(_json, samples))
    text = '{\n' + ',\n'.join(fields) + ',\n"samples": [\n  ' + lines + '\n]\n}\n'
    write_whole(path, text, 'the results')
    return path


def read_results(path: str | Path) -> dict[str, Any]:
    """Read what :func:`write_results` wrote.

    Raises:
        FileNotFoundError: no such file.
        ResultsError: not JSON, not such a file, or another version of the schema.
    """
    wanted = 'give a JSON file that `dual-loop eval` wrote'
    try:
        results = json.loads(Path(path).read_text(encoding='utf-8'))
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{path} does not exist: {wanted}') from error
    except IsADirectoryError as error:
        raise ResultsError(f'{path} is a folder: {wanted}') from error
    except ValueError as error:  # neither UTF-8 nor JSON
        raise ResultsError(f'{path} is no JSON ({error}): {wanted}') from error
    if not isinstance(results, dict) or 'schema' not in results:
        raise ResultsError(f'{path} holds no results of an evaluation: {wanted}')
    if results['schema'] != SCHEMA:
        raise ResultsError(f'{path} has version {results["schema"]!r} of the schema, this code reads {SCHEMA}: '
                           'evaluate again')
    if missing := [key for key in KEYS if key not in results]:
        raise ResultsError(f'{path} is damaged: it lacks {", ".join(missing)}')
    return results


def sample_key(sample: Mapping[str, Any]) -> tuple:
    """What a sample is sorted by and told apart from all others."""
    return (sample['image'], sample['sample_id'], *(sample.get(key, '') for key in ('source', 'condition', 'frame')))


def versions() -> dict[str, str]:
    """Versions of Python, the libraries that decide about numbers, and this project."""
    libraries = {name: version(name) for name in ('torch', 'transformers', 'peft')}
    return {'dual-loop': __version__, 'python': platform.python_version()} | libraries


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
