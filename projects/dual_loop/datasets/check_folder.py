"""Whether a folder of one's own is as ``FolderDataset`` wants it: everything that is wrong, and what there is."""

from pathlib import Path

import numpy as np

from llava_sam2.progress import each

from .check import explain
from .contract import violations
from .folder import FolderDataset
from .folder_layout import IMAGE_SUFFIXES, IMAGES, list_files
from .index_store import find_files
from .quarantine import BadSample, TooManyBadSamples
from .texts import printable

DECODED = 500  # objects
#: As small as anything here reads: what is looked at is whether samples can be made.
SIZES = dict(image_size=112, grounding_size=128)


def check_folder(folder: Path, num_samples: int | None = None) -> tuple[FolderDataset | None, list[str]]:
    """Check and print a folder; its data set, if any of it can be used, and what is wrong.

    Args:
        folder: see ``FolderDataset``.
        num_samples: objects to decode, evenly spread; default up to ``DECODED``.
    """
    folder = folder.absolute()
    problems: list[str] = []
    dataset: FolderDataset | None = FolderDataset.__new__(FolderDataset)
    try:
        dataset.__init__(folder, split='all', exclude_image_ids=(), **SIZES)  # type: ignore[misc]
    except (OSError, ValueError, TooManyBadSamples) as error:
        if not isinstance(error, TooManyBadSamples):
            problems.append(explain(error).replace(', or set optional=True to go on without this data set', ''))
        found = getattr(dataset, 'quarantine', None)
        dataset = None
    else:
        found = dataset.quarantine
    problems += [f'{entry["path"]}: {entry["reason"]}' for entry in (found.entries if found else [])]
    if dataset is not None:
        problems += _undecodable(dataset, num_samples)
        print(printable('\n'.join(_summary(folder, dataset))), flush=True)
    return dataset, [printable(each) for each in problems]


def _undecodable(dataset: FolderDataset, num_samples: int | None) -> list[str]:
    """What is wrong with some of the samples, each picture and mask named once."""
    last = len(dataset.index) - 1
    rows = np.linspace(0, last, min(num_samples or DECODED, last + 1)).round().astype(int)
    found: dict[str, None] = {}
    for row in each(rows.tolist(), len(rows), f'reading {dataset.data_root}', 'objects'):
        try:
            sample = dataset.load(row, row)
        except BadSample as error:
            found[f'{error.path or dataset.path(row)}: {error.reason}. Repair or remove the file'] = None
            continue
        found |= dict.fromkeys(f'{dataset.sample_id(row)}: {fault}' for fault in violations(sample, dataset))
    return list(found)


def _summary(folder: Path, dataset: FolderDataset) -> list[str]:
    pictures = list_files(find_files(folder / IMAGES, '*'), IMAGE_SUFFIXES)
    lines = [str(folder), f'  pictures  {len(pictures.paths)}']
    rows = np.arange(len(dataset.index))
    held_out = np.array([dataset.held_out(row) for row in rows.tolist()])
    captioned = np.array([dataset.words(row)['caption'] is not None for row in rows.tolist()])
    for name, part in (('training', ~held_out), ('held out', held_out)):
        shown = len(np.unique(dataset.index['image'][part]))
        objects, described = (len(np.unique(dataset.index['object'][each])) for each in (part, part & captioned))
        lines.append(f'  {name}  {objects} objects of {shown} pictures, {described} of them with '
                     f'{int((part & captioned).sum())} captions')
    return lines + [f'  note      {text}' for text in dataset.remarks()]
