"""docs/data.md says what the classes read and what the real configuration sets."""

import ast
import json
import re
import runpy
import shutil
from contextlib import suppress
from fnmatch import fnmatch

import numpy as np
import pytest

import dual_loop.datasets as datasets
from dual_loop.datasets import GroundedDataset, SAVPairDataset, TooManyBadSamples
from dual_loop.datasets.from_config import build_dataset
from dual_loop.datasets.mix import source_table
from dual_loop.datasets.quarantine import FILE_NAME, MAX_IN_A_ROW, MAX_SHARE, MIN_ALLOWED

SIZES = dict(image_size=56, grounding_size=64, num_image_tokens=4)
CLASSES = [each for name in datasets.__all__ if isinstance(each := getattr(datasets, name), type)
           and issubclass(each, GroundedDataset) and each is not GroundedDataset]


@pytest.fixture(scope='module')
def sections(code_blocks):
    return code_blocks('data.md')


@pytest.fixture(scope='module')
def real(checkout):
    return runpy.run_path(str(checkout / 'configs/_base_/real_data.py'))


def entries(blocks, names):
    """(values of a line of config, its text) of all Python blocks."""
    for language, text in blocks:
        if language == 'python':
            for node in ast.parse(text).body:
                yield eval(ast.get_source_segment(text, node), dict(names)), text


def test_config_lines_are_those_of_the_real_configuration(sections, real):
    shown = [entry for blocks in sections.values() for entry, text in entries(blocks, real) if '# instead' not in text]
    assert sorted(map(repr, shown)) == sorted(map(repr, real['loop1_datasets'] + real['loop2_datasets']))


def test_table_names_all_classes_and_their_terms(checkout):
    rows = [row for row in (checkout / 'docs/data.md').read_text().splitlines() if row.startswith('| [')]
    assert len(rows) == len(CLASSES)
    for kind in CLASSES:
        [row] = [row for row in rows if f'`{kind.__name__}`' in row]
        assert kind.licence.rpartition(': ')[2] in row


@pytest.fixture
def sav_release(tmp_path, tiny, write_video):
    """A video with one object that is visible in all of ten annotated frames."""
    folder = tmp_path / 'release' / 'sav_000'
    folder.mkdir(parents=True)
    write_video(folder / 'sav_000001.mp4', 40)
    for kind in ('manual', 'auto'):
        content = dict(masklet=[[tiny.rle(tiny.masks[1])]] * 10)
        (folder / f'sav_000001_{kind}.json').write_text(json.dumps(content))
    return folder.parent


@pytest.fixture
def sa1b_other(sa1b_root):
    for kind, folder in (('jpg', 'img'), ('json', 'js')):
        (sa1b_root / folder).mkdir()
        for file in list(sa1b_root.glob(f'sa_000000/*.{kind}')):
            file.rename(sa1b_root / folder / file.name)
    return sa1b_root


TREES = {
    'sav_release': ('SA-V', 0), 'sav_root': ('SA-V', 1), 'sa1b_root': ('SA-1B', 0), 'sa1b_other': ('SA-1B', 1),
    'openimages_root': ('Open Images v7', 0), 'refcoco_root': ('RefCOCO, RefCOCO+ and RefCOCOg', 0),
    'dam_root': ('Describe Anything', 0),
}


def test_every_tree_is_tested(sections):
    shown = [(heading, number) for heading, blocks in sections.items() if heading != 'Look before you train'
             for number in range(sum(not language for language, _ in blocks))]
    assert sorted(shown) == sorted(TREES.values())


@pytest.mark.parametrize('root', TREES)
def test_tree_is_what_the_class_needs(sections, real, request, tmp_path, root):
    """The files in the tree are enough, and none of them can be missing."""
    heading, number = TREES[root]
    blocks = sections[heading]
    tree = [text for language, text in blocks if not language][number]
    first, *lines = tree.splitlines()
    folder = request.getfixturevalue(root)
    settings = [entry for entry, _ in entries(blocks, real)]
    if root == 'sav_release':
        settings = [entry for entry in settings if entry.get('annotations') == 'both']
    if root == 'dam_root':
        settings = [entry for entry in settings if entry['split'] == 'COCOStuff']
    settings = settings[0] | SIZES
    assert first == settings['data_root'] + '/'
    settings = {key: value for key, value in settings.items() if key not in ('tokenizer', 'max_samples')}
    if 'exclude_image_ids' in settings:
        settings['exclude_image_ids'] = ()
    patterns = [re.sub(r'\{.*?\}', '*', line.strip()) for line in lines]

    def samples(name, left_out=None):
        """How many there are and can be read if only the files of the tree are there, or of it all but one line."""
        for file in (each.relative_to(folder) for each in folder.rglob('*') if each.is_file()):
            if any(fnmatch(str(file), pattern) for pattern in patterns if pattern != left_out):
                (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(folder / file, tmp_path / name / file)
        (tmp_path / name).mkdir(exist_ok=True)
        dataset = build_dataset(settings | dict(data_root=str(tmp_path / name)))
        for row in range(len(dataset)):
            dataset.load(row, row)
        return len(dataset)

    enough = samples('all')
    assert enough
    for place, pattern in enumerate(patterns):
        with suppress(OSError, ValueError, TooManyBadSamples):  # MissingData, BadSample or a refusal
            assert samples(f'without_{place}', pattern) < enough, f'{pattern} is not needed'


def test_sav_gap_is_what_the_page_says(checkout, tmp_path):
    text = (checkout / 'docs/data.md').read_text()
    low, high = SAVPairDataset(tmp_path, optional=True).gap
    assert f'{low} to {high} annotated frames apart' in text
    assert np.allclose([low / 6, high / 6], [0.5, 4])


def test_limits_of_bad_samples_are_what_the_page_says(checkout):
    text = (checkout / 'docs/data.md').read_text()
    text = text[text.index('### Bad samples'):]
    assert f'`{FILE_NAME}`' in text and f'{100 * MAX_SHARE:g} %' in text
    assert f'more than {MIN_ALLOWED})' in text and f'{MAX_IN_A_ROW} in a row' in text


def test_mix_has_the_columns_that_the_page_shows(sections):
    [(_, shown)] = [block for block in sections['Look before you train'] if 'The mix:' in block[1]]
    header = shown.splitlines()[shown.splitlines().index('The mix:') + 1]
    assert header.split() == source_table({}).splitlines()[0].split()
