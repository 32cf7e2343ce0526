"""Making a folder: same bytes however the work is split, complete or absent, and never mixed up."""

import hashlib
import json
import multiprocessing

import numpy as np
import pytest

from dual_loop.datasets import DescribeAnythingDataset, RefCOCODataset, held_out_image_ids
from dual_loop.demo import ensure_demo_data, generation, make_demo_data
from dual_loop.demo.rendering import draw_scene
from dual_loop.demo.world import WORLDS
from llava_sam2.paths import CannotWrite


def digests(root):
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob('*')) if path.is_file()}


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(generation, 'CHUNK', 3)


def test_bytes_depend_on_the_settings_alone(tmp_path, small_chunks):
    one = digests(make_demo_data(tmp_path / 'one', images=8, seed=1, workers=1, progress=False))
    two = digests(make_demo_data(tmp_path / 'two', images=8, seed=1, workers=2, progress=False))
    assert one == two and len(one) > 40


def test_more_images_begin_with_the_same_ones(tmp_path):
    few = digests(make_demo_data(tmp_path / 'few', images=4, seed=1, workers=1, progress=False))
    many = digests(make_demo_data(tmp_path / 'many', images=6, seed=1, workers=1, progress=False))
    media = [name for name in few if name.endswith(('.jpg', '.npz', '.png'))]
    assert len(media) > 12 and all(few[name] == many[name] for name in media)


def test_seeds_and_sources_share_no_picture():
    pictures = [draw_scene(generation.scene_rng(seed, source, index))[1].tobytes()
                for seed in (0, 1) for source in generation.SOURCES for index in range(3)]
    assert len(set(pictures)) == len(pictures) == 2 * 12 * 3
    numbers = [source.number for source in generation.SOURCES.values()]
    assert len({*numbers, generation.CORPUS_SOURCE}) == len(numbers) + 1


def test_ensure_makes_once_and_then_leaves_alone(tmp_path):
    root = ensure_demo_data(tmp_path / 'data', images=4, seed=2, workers=1)
    assert json.loads((root / 'manifest.json').read_text())['scenes']['refcoco'] == 4
    marked = root / 'sa1b' / 'sa_000000' / 'sa_1.jpg'
    marked.write_bytes(marked.read_bytes() + b'mine')
    assert ensure_demo_data(root, images=4, seed=2) == root
    assert marked.read_bytes().endswith(b'mine')


@pytest.mark.parametrize('asked', [dict(images=5, seed=2), dict(images=4, seed=3), dict(images=4, seed=2, world='b'),
                                   dict(images=4, seed=2, split='val')])
def test_other_settings_are_refused_by_name(tmp_path, asked):
    root = ensure_demo_data(tmp_path / 'data', images=4, seed=2, workers=1)
    with pytest.raises(ValueError, match=r'images=4, seed=2.*was asked for: remove the folder') as error:
        ensure_demo_data(root, **asked)
    assert str(root) in str(error.value)
    assert all(f'{name}={value}' in str(error.value) for name, value in asked.items())


def test_some_sources_are_the_same_as_among_all(tmp_path, demo_root):
    some = digests(ensure_demo_data(tmp_path / 'some', images=24, seed=3, workers=1, sources=['refcoco', 'dam']))
    everything = digests(demo_root)
    assert {name.split('/')[0] for name in some} == {'ref_seg', 'dam', 'manifest.json'}
    assert all(everything[name] == digest for name, digest in some.items() if name != 'manifest.json')
    with pytest.raises(ValueError, match='was asked for: remove the folder'):
        ensure_demo_data(tmp_path / 'some', images=24, seed=3)


def test_sources_by_their_own_names(tmp_path, demo_root):
    """What the real mixture has beyond the default, beside it and without changing it."""
    names = ['sav', 'sa1b', 'openimages', 'refcoco', 'dam']
    more = ['refcoco+', 'refcocog', 'dam_Mapillary', 'dam_OpenImages', 'dam_PACO']
    root = make_demo_data(tmp_path / 'data', images=24, seed=3, workers=1, progress=False, sources=names + more)
    everything, default = digests(root), digests(demo_root)
    assert all(everything[name] == digest for name, digest in default.items() if name != 'manifest.json')
    for split in ('SAV', 'COCOStuff', 'LVIS', 'Mapillary', 'OpenImages', 'PACO'):
        samples = DescribeAnythingDataset(root / 'dam', split=split, image_size=56, grounding_size=64,
                                          exclude_image_ids=())
        assert len(samples) >= 6 and samples[0]['caption'] and not samples.quarantine.count
    held_out = set(held_out_image_ids(root / 'ref_seg'))
    for dataset, split_by, test in (('refcoco+', 'unc', 'testB'), ('refcocog', 'umd', 'test')):
        for split in ('train', 'val', test):
            samples = RefCOCODataset(root / 'ref_seg', dataset=dataset, split=split, split_by=split_by, image_size=56,
                                     grounding_size=64)
            assert held_out.isdisjoint(samples.index['image']) == (split == 'train')
            assert set(samples.index['kind']) == ({'attribute'} if dataset == 'refcoco+' else {'attribute', 'relation'})


@pytest.mark.parametrize('world', ['a', 'b'])
def test_a_smaller_folder_is_the_beginning_of_a_larger_one(tmp_path, world):
    """So that scenes with captions of one share are those of a larger share, too."""
    def sentences(images):
        root = make_demo_data(tmp_path / str(images), images=images, seed=1, workers=1, progress=False, world=world,
                              split='train', sources=['refcoco', 'dam'])
        phrases = RefCOCODataset(root / 'ref_seg', exclude_image_ids=(), image_size=56, grounding_size=64)
        described = DescribeAnythingDataset(root / 'dam', split='LVIS', exclude_image_ids=(), image_size=56,
                                            grounding_size=64)
        assert len(set(phrases.index['image'])) == images, 'all scenes are in the split that was asked for'
        return [{(samples.sample_id(row), samples.words(row)['caption']) for row in range(len(samples.index))}
                for samples in (phrases, described)]

    for few, many in zip(sentences(8), sentences(16)):
        assert few < many and len(few) > 3


def test_worlds_share_no_picture():
    pictures = [draw_scene(generation.scene_rng(0, source, index), world)[1].tobytes()
                for world in WORLDS.values() for source in ('sav', 'refcoco') for index in range(6)]
    assert len(set(pictures)) == len(pictures)


def test_a_split_needs_sources_that_have_it(tmp_path):
    for sources, message in ((['dam', 'sav'], 'none of them has splits'),
                             (['refcoco', 'refcocog'], 'refcocog has train, val, test')):
        with pytest.raises(ValueError, match=f"split='testA' fits none.*{message}"):
            make_demo_data(tmp_path / 'data', images=4, sources=sources, split='testA')
    with pytest.raises(ValueError, match="world='c' is unknown: use a or b"):
        make_demo_data(tmp_path / 'data', images=4, world='c')


def test_an_unknown_source_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="'coco'.*sav, sa1b, openimages, refcoco, dam"):
        make_demo_data(tmp_path / 'data', images=4, sources=['coco', 'dam'])


def test_an_older_format_is_refused(tmp_path, monkeypatch):
    root = ensure_demo_data(tmp_path / 'data', images=4, seed=2, workers=1)
    monkeypatch.setattr(generation, 'FORMAT', generation.FORMAT + 1)
    with pytest.raises(ValueError, match='format='):
        ensure_demo_data(root, images=4, seed=2)


def test_a_folder_with_other_files_is_not_touched(tmp_path):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'thesis.txt').write_text('years of work')
    for make in (make_demo_data, ensure_demo_data):
        with pytest.raises(FileExistsError, match='is not empty.*choose another folder'):
            make(tmp_path / 'data', images=4, workers=1, progress=False)
    assert [path.name for path in (tmp_path / 'data').iterdir()] == ['thesis.txt']


def test_make_refuses_a_finished_folder(tmp_path):
    root = make_demo_data(tmp_path / 'data', images=4, workers=1, progress=False)
    with pytest.raises(FileExistsError, match='not empty'):
        make_demo_data(root, images=4, workers=1, progress=False)


def test_a_run_that_dies_leaves_nothing_that_looks_complete(tmp_path, monkeypatch):
    index, whole = generation.SOURCES['dam_SAV'], tmp_path / 'data'

    def fail(folder, records):
        raise OSError('disk full')

    monkeypatch.setitem(generation.SOURCES, 'dam_SAV', generation.SOURCES['dam_SAV'].__class__(
        index.number, index.share, index.folder, index.write, fail))
    with pytest.raises(OSError, match='disk full'):
        ensure_demo_data(whole, images=4, workers=1)
    assert not whole.exists()
    monkeypatch.setitem(generation.SOURCES, 'dam_SAV', index)
    ensure_demo_data(whole, images=4, workers=1)  # also clears what the first run left
    assert whole.exists() and not (tmp_path / '.data.partial').exists()


@pytest.mark.parametrize('workers', [1, 2])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, small_files_only, small_chunks, workers):
    """The tar of SA-V frames is above what the kernel allows here."""
    with pytest.raises(CannotWrite, match=rf'^the demo data cannot be written to {tmp_path}/data: File too large'):
        ensure_demo_data(tmp_path / 'data', images=40, workers=workers)
    assert not list(tmp_path.iterdir())


def _ensure(root, started, made):
    started.wait()
    build = generation._build

    def counted(*args):
        made.put(1)
        build(*args)

    generation._build = counted
    ensure_demo_data(root, images=4, seed=0, workers=1)


def test_several_processes_make_it_once(tmp_path):
    context = multiprocessing.get_context('fork')
    started, made = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_ensure, args=(tmp_path / 'data', started, made)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert made.get(timeout=5) == 1 and made.empty()
    assert (tmp_path / 'data' / 'manifest.json').exists()


@pytest.mark.parametrize('bad, message', [(dict(images=3), 'at least 4'), (dict(seed=-1), 'negative'),
                                          (dict(workers=0), 'at least 1')])
def test_settings_out_of_range(tmp_path, bad, message):
    with pytest.raises(ValueError, match=message):
        make_demo_data(tmp_path / 'data', **{'images': 4, **bad})
    assert not (tmp_path / 'data').exists()


def test_the_random_key_of_a_scene_is_fixed():
    assert generation.scene_rng(4, 'refcoco', 9).integers(2**31) == np.random.default_rng([4, 4, 9]).integers(2**31)


def test_half_deleted_data_are_refused(tmp_path):
    root = make_demo_data(tmp_path / 'demo', 4, workers=1, progress=False, sources=['refcoco'])
    folder = root / 'ref_seg/refcoco'
    (folder / 'note.txt').write_text("a user's own")  # more files do no harm
    assert ensure_demo_data(root, 4, sources=['refcoco']) == root
    (folder / 'note.txt').unlink()
    picture = next(folder.rglob('*.jpg'))
    whole = picture.read_bytes()
    picture.write_bytes(whole[:100])
    with pytest.raises(FileNotFoundError, match=r'refcoco has (\d+) of its (\d+) bytes: remove .*demo, and'):
        ensure_demo_data(root, 4, sources=['refcoco'])
    picture.write_bytes(whole)
    assert ensure_demo_data(root, 4, sources=['refcoco']) == root
    picture.unlink()
    with pytest.raises(FileNotFoundError, match=r'refcoco has (\d+) of its (\d+) files: remove .*demo, and') as caught:
        ensure_demo_data(root, 4, sources=['refcoco'])
    assert str(folder) in str(caught.value)
    (root / 'manifest.json').write_text('{"format"')
    with pytest.raises(ValueError, match='manifest.json is damaged .*remove .*demo, and it is made again'):
        ensure_demo_data(root, 4, sources=['refcoco'])
