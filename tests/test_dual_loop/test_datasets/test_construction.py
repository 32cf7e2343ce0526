"""The index is opened once, after the outermost constructor, whatever constructors look like and whoever calls them."""

import pickle

import pytest
from torch.utils.data import DataLoader

from dual_loop.datasets import GroundedDataset, MissingData, SA1BDataset, collate_samples
from dual_loop.datasets.check import Report, build_noting_paths
from dual_loop.datasets.construction import CompletedAfterInit


class SuperFirst(SA1BDataset):
    """Sets what the methods need after super's constructor."""

    def __init__(self, data_root, prefix='mine_', **common):
        super().__init__(data_root, **common)
        self.prefix = prefix

    def default_name(self):
        return f'{self.prefix}data'

    def index_source(self):
        self.require(self.data_root / self.prefix, 'prefix', 'Make it')
        self.require(self.data_root / 'also', 'prefix', 'Make it')
        return super().index_source()

    def sample_id(self, row):
        return self.prefix + super().sample_id(row)


class Grandchild(SuperFirst):
    def __init__(self, *args, suffix='!', **common):
        super().__init__(*args, **common)
        self.suffix = suffix

    def sample_id(self, row):
        return SuperFirst.sample_id(self, row) + self.suffix


class SuperLast(SuperFirst):
    def __init__(self, *args, suffix='?', **common):
        self.suffix = suffix
        super().__init__(*args, **common)

    sample_id = Grandchild.sample_id


class NoConstructor(Grandchild):
    pass


class ByName(SuperFirst):
    """Calls the constructors of two bases by their names."""

    def __init__(self, data_root, **common):
        SA1BDataset.__init__(self, data_root, **common)
        SuperFirst.__init__(self, data_root, **common)
        self.prefix, self.suffix = 'named_', '.'

    sample_id = Grandchild.sample_id


class Suffix:
    """No data set; its constructor goes on after the data set's."""

    def __init__(self, *args, **common):
        super().__init__(*args, **common)
        self.suffix = '~'


class Mixed(Suffix, SuperFirst):
    sample_id = Grandchild.sample_id


KINDS = {SuperFirst: ('mine_', ''), Grandchild: ('mine_', '!'), SuperLast: ('mine_', '?'),
         NoConstructor: ('mine_', '!'), ByName: ('named_', '.'), Mixed: ('mine_', '~')}


@pytest.fixture
def root(sa1b_root):
    for name in ('mine_', 'named_', 'also'):
        (sa1b_root / name).mkdir()
    return sa1b_root


@pytest.fixture
def opened(monkeypatch):
    """Classes whose index was opened, in order."""
    kinds, original = [], GroundedDataset._open_index

    def noting(self):
        kinds.append(type(self))
        assert getattr(self, 'suffix', '') == KINDS.get(type(self), ('', ''))[1], 'all constructors have gone on'
        return original(self)

    monkeypatch.setattr(GroundedDataset, '_open_index', noting)
    return kinds


@pytest.mark.parametrize('way', ['class', 'new and init'])
@pytest.mark.parametrize('kind', KINDS)
def test_opened_once_after_the_outermost_constructor(kind, way, root, small, opened):
    if way == 'class':
        dataset = kind(root, **small)
    else:
        dataset = kind.__new__(kind)
        dataset.__init__(root, **small)
    assert opened == [kind]
    prefix, suffix = KINDS[kind]
    assert dataset.source == f'{prefix}data' and len(dataset) == 4
    expected = [f'{prefix}{name}{suffix}' for name in ('sa_1_11', 'sa_1_12', 'sa_2_11', 'sa_2_12')]
    assert [dataset[index]['sample_id'] for index in range(4)] == expected


@pytest.mark.parametrize('kind', KINDS)
def test_copies_and_workers_open_nothing(kind, root, small, opened):
    dataset = kind(root, **small)
    ids = [dataset[index]['sample_id'] for index in range(4)]
    copy = pickle.loads(pickle.dumps(dataset))
    assert [copy[index]['sample_id'] for index in range(4)] == ids and vars(copy).keys() == vars(dataset).keys()
    for context in ('fork', 'spawn') if kind is Grandchild else ('fork',):
        loader = DataLoader(dataset, num_workers=1, collate_fn=collate_samples, multiprocessing_context=context)
        assert [name for batch in loader for name in batch['sample_ids']] == ids
    assert opened == [kind]


@pytest.mark.parametrize('kind', KINDS)
def test_errors_come_at_construction(kind, root, small):
    (root / 'also').rmdir()
    with pytest.raises(MissingData, match=f'also does not exist.*{kind.__name__}'):
        kind(root, **small)
    assert len(kind(root, optional=True, **small)) == 0


@pytest.mark.parametrize('kind', KINDS)
def test_every_missing_path_is_reported(kind, root, small):
    for name in ('mine_', 'named_', 'also'):
        (root / name).rmdir()
    report = Report('')
    assert build_noting_paths(kind, dict(type=kind, data_root=root, **small), report) is None
    assert [text for topic, text in report.lines if topic == 'missing'] == [
        str(root / KINDS[kind][0]), str(root / 'also')]
    [problem] = report.problems
    assert problem.endswith('1 more of its paths are missing') and report.name == f'{KINDS[kind][0]}data'


def test_nothing_is_opened_after_an_error_in_a_constructor(root, small, opened):
    class Failing(SuperFirst):
        def __init__(self, fail, **common):
            super().__init__(**common)
            if fail:
                raise RuntimeError('late')

    dataset = Failing.__new__(Failing)
    with pytest.raises(RuntimeError, match='late'):
        dataset.__init__(True, data_root=root, **small)
    assert opened == []
    dataset.__init__(False, data_root=root, **small)
    assert opened == [Failing] and len(dataset) == 4


@pytest.mark.parametrize('name', ['index', 'tables', 'index_digest', 'quarantine', 'source'])
def test_what_comes_later_says_so_in_a_constructor(name, root, small):
    class Eager(SuperFirst):
        def __init__(self, *args, **common):
            super().__init__(*args, **common)
            assert not hasattr(self, name)
            getattr(self, name)

    with pytest.raises(AttributeError, match=f'Eager.{name} is there when the constructor has returned'):
        Eager(root, **small)


def test_a_data_set_made_in_a_constructor_is_complete_there(root, small, opened):
    class Outer(SuperFirst):
        def __init__(self, *args, **common):
            super().__init__(*args, **common)
            self.inner = SuperFirst(*args, **common)
            self.count = len(self.inner)

    assert Outer(root, **small).count == 4 and opened == [SuperFirst, Outer]


def test_any_class_completes_its_objects_once():
    class Counting(CompletedAfterInit):
        def __init__(self):
            self.completed = 0

        def _complete(self):
            self.completed += 1

    class Twice(Counting):
        def __init__(self):
            super().__init__()
            super().__init__()

    assert Counting().completed == Twice().completed == 1 and '_in_constructor' not in vars(Twice())
