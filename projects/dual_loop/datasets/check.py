"""Whether all data of a config are there and can be used: paths, counts, images, samples, terms."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from torch.utils.data import ConcatDataset

from llava_sam2.progress import Progress

from .base import GroundedDataset
from .contract import violations
from .from_config import data_set_type, dataset_settings, loaders_with_captions
from .indexed import MissingData
from .leaks import HeldOut, may_show_held_out
from .mix import source_table
from .quarantine import MAX_SHARE, MIN_ALLOWED, BadSample, TooManyBadSamples
from .refcoco import RefCOCODataset
from .terms import data_terms
from .texts import printable

PROBED = 1000  # image paths per source
SHOWN = 3  # bad samples and missing images named per source


@dataclass
class Report:
    """What was found out about one source."""

    name: str
    dataset: GroundedDataset | None = None
    lines: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, topic: str, text: str) -> None:
        self.lines.append((topic, text))

    @property
    def usable(self) -> bool:
        return self.dataset is not None and not self.problems

    def __str__(self) -> str:
        lines = [*self.lines, *(('PROBLEM', text) for text in self.problems), *(('note', text) for text in self.notes)]
        return printable('\n'.join(f'  {topic:<8} {text}' for topic, text in lines))


def check_source(settings: Mapping, num_samples: int = 3) -> Report:
    """Paths, counts, images, a few samples and terms of one data set; nothing that is wrong with it is raised."""
    kind = data_set_class(settings)
    report = Report(kind.__name__)
    try:
        dataset = build_noting_paths(kind, settings, report)
        if dataset is not None:
            check_content(dataset, num_samples, report)
    except Exception as error:  # whatever it is, the other sources are to be checked too
        report.problems.append(explain(error))
    report.add('licence', next(data_terms(dict(settings, type=kind))))
    if 'prepare' not in settings and kind.obtain:
        report.add('from', kind.obtain)
    return report


def build_noting_paths(kind: type[GroundedDataset], settings: Mapping, report: Report) -> GroundedDataset | None:
    """Build a data set; report every path that it asks for and all that are missing, not only the first."""
    dataset = kind.__new__(kind)
    index_source = dataset.index_source
    missing: list[MissingData] = []

    def require(path: Path, *args) -> Path:
        try:
            kind.require(dataset, path, *args)
            if ('found', str(path)) not in report.lines:
                report.add('found', str(path))
        except MissingData as error:
            report.add('missing', str(path))
            missing.append(error)
        return path

    def source_or_error():
        try:
            return index_source()
        finally:
            if missing:
                raise missing[0]

    # On this object only: the class stays as it is, and so does the index that belongs to it.
    dataset.require, dataset.index_source = require, source_or_error
    try:
        dataset.__init__(**{key: value for key, value in settings.items() if key != 'type'})
        report.dataset = dataset
    except Exception as error:
        more = f'; {len(missing) - 1} more of its paths are missing' if len(missing) > 1 else ''
        report.problems.append(explain(error) + more)
    else:
        report.notes += [f'left out (optional=True): {error}' for error in missing]
        report.notes += [] if missing else dataset.remarks()
        if not len(dataset) and not missing:
            report.notes.append('left out (optional=True): no samples were found')
    finally:
        report.name = getattr(dataset, 'source', report.name)
        entries = dataset.quarantine.entries if hasattr(dataset, 'quarantine') else []
        if entries:
            report.add('bad', f'{len(entries)} found while indexing')
        for entry in entries[:SHOWN]:
            report.add('', f'{entry["sample_id"]}: {entry["reason"]} ({entry["path"]})')
    return report.dataset


def check_content(dataset: GroundedDataset, num_samples: int, report: Report) -> None:
    """Counts, existence of images and a few decoded samples."""
    rows = len(dataset.index)
    report.add('samples', f'{len(dataset):,} in an epoch: {rows:,} distinct, repeats {dataset.repeats:g}')
    if not rows:
        return
    lengths = len(dataset.modality_length)
    if lengths != len(dataset):
        report.problems.append(f'modality_length has {lengths} entries for {len(dataset)} samples')
    probe_images(dataset, report)
    for row in sorted({int(row) for row in np.linspace(0, rows - 1, num_samples).round()}):
        try:
            sample = dataset.load(row, row)
        except BadSample as error:
            report.problems.append(f'sample {dataset.sample_id(row)} cannot be used: {error.reason} '
                                   f'({error.path or dataset.path(row)}). Repair or remove the file')
            continue
        broken = [f'sample {dataset.sample_id(row)}: {each}' for each in violations(sample, dataset)]
        report.problems += broken
        if not broken:
            report.add('sample', f'{dataset.sample_id(row)}: {summary(sample)}')


def probe_images(dataset: GroundedDataset, report: Report) -> None:
    """Whether the image files of some rows exist, drawn with a fixed seed."""
    rows = len(dataset.index)
    probed = np.random.default_rng(0).choice(rows, min(rows, PROBED), replace=False)
    gone = [path for path in map(dataset.path, np.sort(probed).tolist()) if not path.exists()]
    report.add('images', f'{len(probed) - len(gone):,} of {len(probed):,} probed samples have their image file')
    if not gone:
        return
    text = (f'{len(gone) / len(probed):.1%} of {len(probed)} probed samples have no image file, for example '
            + ', '.join(map(str, gone[:SHOWN])))
    if len(gone) * rows / len(probed) > max(MIN_ALLOWED, MAX_SHARE * rows):
        report.problems.append(f'{text}; training would stop. Download the rest')
    else:
        report.notes.append(f'{text}; training would use others instead')


def summary(sample: Mapping[str, Any]) -> str:
    """One line on what can be seen in a sample."""
    texts = []
    for suffix in ('1', '2') if 'masks1' in sample else ('',):
        picture, masks, cells = (sample[f'{name}{suffix}'] for name in ('pixel_values', 'masks', 'prompt_masks'))
        texts.append(f'{"x".join(map(str, picture.shape))} in {picture.min():.1f} .. {picture.max():.1f}, object on '
                     f'{masks.float().mean():.1%} and {int(cells.sum())} of {cells.numel()} cells')
    captions = sample['caption'] if isinstance(sample['caption'], list) else [sample['caption']]
    words = ', '.join(repr(text if len(text) <= 60 else f'{text[:57]}...') for text in captions if text)
    return '; '.join(texts + ([words] if words else []))


def argument(settings: Mapping, name: str) -> Any:
    """The value that a data set's argument has, given or by default; None if it has no such argument."""
    parameter = inspect.signature(data_set_class(settings).__init__).parameters.get(name)
    return settings.get(name, parameter.default if parameter else None)


def data_set_class(settings: Mapping) -> type[GroundedDataset]:
    """Raises ``ValueError`` for what is not one of this project's data sets."""
    kind = data_set_type(settings)
    if not issubclass(kind, GroundedDataset):
        raise ValueError(f'{settings["type"]} is not a GroundedDataset, so nothing is known about its folder')
    return kind


def held_out_pictures(built: list[tuple[str, str, GroundedDataset]]) -> Iterator[str]:
    """Which held-out pictures the sources of training can show, a sentence for each source that can.

    Held out is what the lists hold out that the sources name, what RefCOCO holds out that is evaluated or trained on,
    and the pictures of validation.
    """
    held_out = HeldOut()
    held_out.add_lists([dataset.exclude_image_ids for _, _, dataset in built],
                       [dataset.data_root for _, _, dataset in built if isinstance(dataset, RefCOCODataset)])
    for loader, _, dataset in built:
        if loader == 'held out':
            held_out.add_dataset(dataset)
    for loader, title, dataset in built:
        if loader != 'held out' and len(dataset):
            yield from (f'{title}: {text}' for text in held_out.shown_by(dataset))


def shared_names(built: list[tuple[str, str, GroundedDataset]]) -> Iterator[str]:
    """Sources of one loader that have one name and different folders, which training refuses."""
    first: dict[tuple[str, str], tuple[str, Path]] = {}
    for loader, title, dataset in built:
        other, root = first.setdefault((loader, dataset.source), (title, dataset.data_root))
        if root != dataset.data_root:
            yield f'{title}: has the name of {other} and another folder: give one of them another name=...'


def explain(error: Exception) -> str:
    told = isinstance(error, (OSError, ValueError, TooManyBadSamples))
    return str(error) if told else f'{type(error).__name__}: {error}'


def check(cfg: Config, num_samples: int = 3) -> list[str]:
    """Check and print every source of a config; returns what is wrong."""
    problems: list[str] = []
    usable: dict[str, list[GroundedDataset]] = {}
    seen: dict[tuple, str] = {}
    built: list[tuple[str, str, GroundedDataset]] = []
    real: list[tuple[str, str, GroundedDataset]] = []
    captioned = loaders_with_captions(cfg)
    listed = [(loader, number, settings) for loader, sources in dataset_settings(cfg).items()
              for number, settings in enumerate(sources)]
    progress = Progress(len(listed), 'checking', 'sources')
    for loader, number, settings in listed:
        title = f'{loader}, source {number + 1}'
        try:
            kind = data_set_class(settings)
        except ValueError as error:
            problems.append(f'{title}: {explain(error)}')
            print(f'{title}\n  PROBLEM  {explain(error)}\n')
            progress.update()
            continue
        report = check_source(settings, num_samples)
        title += f': {report.name}'
        if loader in captioned and report.dataset and len(report.dataset) and not report.dataset.captioned:
            report.problems.append(f'has no captions, which {loader} needs: masks alone belong to loop 1')
        if loader != 'held out':
            if report.dataset and may_show_held_out(report.dataset):
                report.notes.append('pictures of COCO with exclude_image_ids=(): some may be held out in a variant '
                                    'of RefCOCO')
            place = kind, *(str(argument(settings, name)) for name in (
                'data_root', 'dataset', 'split', 'split_by', 'captions'))
            twin = seen.setdefault(place, title)
            if twin != title:
                report.notes.append(f'the same folder as {twin}: to weight a source, use repeats')
            if report.usable:
                usable.setdefault(loader, []).append(report.dataset)
        if report.dataset:
            built.append((loader, title, report.dataset))
            if 'prepare' not in settings:  # the numbers of drawn scenes are no pictures of COCO
                real.append(built[-1])
        problems += [f'{title}: {problem}' for problem in report.problems]
        progress.wipe()
        print(f'{title} ({kind.__name__})\n{report}\n', flush=True)
        progress.update()
    progress.close()
    problems += shared_names(built)
    if warnings := list(held_out_pictures(real)):
        print('Held-out pictures that training would show:')
        print(printable('\n'.join(f'  WARNING  {text}' for text in warnings)), end='\n\n')
    if usable:
        print('Sources that can be trained on:' if problems else 'The mix:')
        print(source_table({loader: ConcatDataset(sources) for loader, sources in usable.items()}), end='\n\n')
    return [printable(problem) for problem in problems]
