"""Draws some samples of the data sets of a config into a folder."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from dual_loop.datasets import GroundedDataset, MissingData, TooManyBadSamples
from dual_loop.datasets.from_config import build_dataset, dataset_settings
from llava_sam2.progress import each
from llava_sam2.randomness import seed_for

from .sample_page import PageSample, PageSource, write_sample_page
from .sample_view import draw_sample, sample_views
from .token_view import SequenceBuilder

MAX_LISTED = 20


def browse(cfg: Config, folder: Path, sources: Collection[str] = (), count: int = 4, seed: int = 0,
           title: str = ''
           ) -> tuple[Path, list[PageSource], list[str]]:
    """Write ``<source>_<number>.png`` for some samples of each data set, and ``index.html`` with all of them.

    A source that stands in two loaders has the second one's name in its files, as in ``refcoco_held_out_0.png``. The
    objects of one sample are numbered behind it: ``refcoco_0_1.png``.

    Args:
        cfg: config with data loaders and a model.
        folder: to write to.
        sources: names of data sets; all if empty.
        count: samples of each, spread evenly.
        seed: moves the samples that are picked.
        title: of the page; default says the name of the config.

    Returns:
        The page; what is on it; a line for each data set that cannot be read.

    Raises:
        ValueError: an unknown source, a config without loaders, or samples that do not fit the model.
        MissingData: none of the data sets is there.
    """
    builder = SequenceBuilder(cfg.get('model') or {})
    found, absent = open_datasets(cfg)
    known = list(dict.fromkeys(dataset.source for _, dataset in found))
    not_there = ''.join(f'\nnot there: {line}' for line in absent)
    if unknown := [name for name in sources if name not in known]:
        raise ValueError(f'no source {", ".join(unknown)}; the config has {", ".join(known) or "none"}{not_there}')
    if not found:
        raise MissingData(f'none of the data sets can be read{not_there}')
    chosen = [each for each in found if not sources or each[1].source in sources]
    folder.mkdir(parents=True, exist_ok=True)
    page: list[PageSource] = []
    loader_of: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for loader, dataset in each(chosen, len(chosen), 'drawing', 'sources'):
        again = loader_of.setdefault(dataset.source, loader) != loader
        name = re.sub(r'[^\w.+-]', '_', f'{dataset.source}_{loader}' if again else dataset.source)
        entry = PageSource(loader, dataset.source, len(dataset))
        page.append(entry)
        try:
            for sample, note in _samples(dataset, count, seed):
                views = list(sample_views(loader, sample, builder))
                number = numbers[name] = numbers.get(name, -1) + 1
                for part, view in enumerate(views):
                    file = folder / f'{name}_{number}{f"_{part}" * (len(views) > 1)}.png'
                    draw_sample(view, note).save(file)
                    entry.samples.append(PageSample(view, file, note))
        except TooManyBadSamples as error:
            entry.problems.append(str(error))
        entry.problems += _bad_samples(dataset)
    title = title or f'Samples of {Path(cfg.filename or "config").stem}'
    return write_sample_page(folder / 'index.html', title, page, absent), page, absent


def open_datasets(cfg: Config) -> tuple[list[tuple[str, GroundedDataset]], list[str]]:
    """The data sets of a config with the loader of each, and a line for each that cannot be read."""
    found, absent = [], []
    for loader, group in dataset_settings(cfg).items():
        for number, settings in enumerate(group, 1):
            try:
                dataset = build_dataset(settings)
            except (MissingData, TooManyBadSamples) as error:
                absent.append(f'{loader}: {error}')
                continue
            except ValueError as error:
                raise ValueError(f'{loader}, source {number}: {error}') from error
            if not isinstance(dataset, GroundedDataset):
                raise ValueError(f'{loader} has a {type(dataset).__name__}, which is not a GroundedDataset')
            found.append((loader, dataset))
    return found, absent


def spread(length: int, count: int, offset: float) -> list[int]:
    """``count`` positions in a data set, one in each of as many equal parts, at the share ``offset`` of the part."""
    count = min(length, count)
    return [int((part + offset) * length / count) for part in range(count)]


def _samples(dataset: GroundedDataset, count: int, seed: int) -> Iterator[tuple[dict[str, Any], str]]:
    """Samples, and of which one each is the substitute ('' if of none)."""
    offset = np.random.default_rng(seed_for(seed, 'browse', dataset.source)).random()
    # Repeats come after all distinct samples, or there are none.
    for position in spread(min(len(dataset), len(dataset.index)), count, offset):
        sample, wanted = dataset[position], dataset.sample_id(dataset.row(position))
        yield sample, '' if sample['sample_id'] == wanted else f'in place of {wanted}, which cannot be read'


def _bad_samples(dataset: GroundedDataset) -> list[str]:
    entries = dataset.quarantine.entries
    lines = [f'bad sample {entry["sample_id"]}: {entry["reason"]} ({entry["path"]})' for entry in entries[:MAX_LISTED]]
    return lines + [f'and {len(entries) - MAX_LISTED} more'] * (len(entries) > MAX_LISTED)
