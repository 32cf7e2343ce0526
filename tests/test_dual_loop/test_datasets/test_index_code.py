"""Which code an index depends on: what its class's own files say, and a number for what all share."""

import ast
import importlib
import sys
from pathlib import Path

import pytest

import dual_loop.datasets as datasets
from dual_loop.datasets import GroundedDataset

FOLDER = Path(datasets.__file__).parent
# The files of this package that the indexes of a class are made anew for.
OWN = {
    'SAVPairDataset': {'sav', 'sav_masklets', 'sav_npz'},
    'SA1BDataset': {'sa1b', 'instances'},
    'OpenImagesDataset': {'openimages', 'csv_tables'},
    'RefCOCODataset': {'refcoco', 'refs', 'plain_pickle', 'instances'},
    'FolderDataset': {'folder', 'folder_layout', 'folder_objects', 'instances', 'label_images', 'refs', 'sentences'},
    'DescribeAnythingDataset': {'describe_anything', 'refs', 'plain_pickle', 'tars'},
}
# What the version of the index format stands for, or what indexes do not depend on.
SHARED = {'base', 'exclusion', 'images', 'index', 'index_store', 'indexed', 'json_files', 'lengths', 'masks',
          'parallel', 'quarantine', 'row_checks', 'texts', 'videos'}
KINDS = [each for name in datasets.__all__ if isinstance(each := getattr(datasets, name), type)
         and issubclass(each, GroundedDataset) and each is not GroundedDataset]


@pytest.fixture
def edited(monkeypatch):
    """Code digests as they are while one file of the package has another content."""
    original = Path.read_bytes

    def digests(name: str) -> dict[str, str]:
        with monkeypatch.context() as patch:
            patch.setattr(Path, 'read_bytes', lambda path: original(path) + b'#' * (path == FOLDER / f'{name}.py'))
            return {kind.__name__: kind._code() for kind in KINDS}

    return digests


def test_all_classes_are_here():
    assert {kind.__name__ for kind in KINDS} == OWN.keys()


@pytest.mark.parametrize('name', sorted(file.stem for file in FOLDER.glob('*.py')))
def test_an_edit_counts_for_the_classes_that_own_the_file(edited, name):
    before, after = edited('no such file'), edited(name)
    assert {kind for kind in before if before[kind] != after[kind]} == {kind for kind in OWN if name in OWN[kind]}


def test_a_class_imports_nothing_that_is_forgotten():
    for kind in KINDS:
        tree = ast.parse(Path(sys.modules[kind.__module__].__file__).read_text())
        relative = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1]
        imported = {name for node in relative for name in
                    ([node.module] if node.module else [alias.name for alias in node.names])}
        assert imported and imported - SHARED <= OWN[kind.__name__], kind


OWN_CLASS = """
from dual_loop.datasets import GroundedDataset, Table, find_files
{helper}

class {name}Dataset(GroundedDataset):
    {code}

    def build_index(self):
        type(self).built = True
        return dict(samples=Table.of(mask=find_files(self.data_root, '*.png')))

    def sample_id(self, row):
        return self.index['mask'][row]
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a module of one's own and import what it says now."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)
    names = []

    def module(name: str, text: str):
        (tmp_path / f'{name}.py').write_text(text)
        sys.modules.pop(name, None)
        importlib.invalidate_caches()
        names.append(name)
        return importlib.import_module(name)

    yield module
    for name in names:
        sys.modules.pop(name, None)


def test_an_edit_makes_the_indexes_of_its_own_class_anew_only(write, tmp_path):
    root = tmp_path / 'data'
    root.mkdir()
    (root / 'one.png').touch()
    write('my_helpers', 'def helper(): pass\n')
    texts = dict(first=OWN_CLASS.format(name='First', helper='', code=''),
                 second=OWN_CLASS.format(name='Second', helper='from my_helpers import helper',
                                         code='index_code = (helper, )'),
                 child='from first import FirstDataset\n\n\nclass ChildDataset(FirstDataset):\n    pass\n')

    def builds(**changed: str) -> dict[str, bool]:
        """Of data sets with freshly imported classes, which made their index."""
        made = {}
        for name, text in texts.items():
            kind = getattr(write(name, text + changed.get(name, '')), f'{name.title()}Dataset')
            assert len(kind(root, image_size=56, grounding_size=64)) == 1
            made[name] = 'built' in vars(kind)
        return made

    assert builds() == dict(first=True, second=True, child=True)
    assert builds() == dict(first=False, second=False, child=False)
    assert builds(second='# edited\n') == dict(first=False, second=True, child=False)
    assert builds(first='# edited\n') == dict(first=True, second=False, child=True), 'a subclass depends on its base'
    assert builds(child='# edited\n') == dict(first=False, second=False, child=True)
    (tmp_path / 'my_helpers.py').write_text('def helper(): return 1\n')
    assert builds() == dict(first=False, second=True, child=False)
