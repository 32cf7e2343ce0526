"""The report and the status of tools/check_data.py on small data in every format."""

import importlib.util
import os
import pickle
from pathlib import Path

import pytest
import torch

from dual_loop.datasets import OpenImagesDataset, SA1BDataset


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


command = load(Path(__file__).resolve().parents[2] / 'tools/check_data.py')


@pytest.fixture
def check(tmp_path, capsys):
    """Run the command on a config with these sources; gives (status, what it printed)."""

    def run(*loop1, loop2=(), held_out=None, options=()):
        def sources(datasets):
            listed = [f'dict(type="{kind}", image_size=56, grounding_size=64, region_grid=8, **{arguments!r})'
                      for kind, arguments in datasets]
            return f'dict(dataset=dict(type="ConcatDataset", datasets=[{", ".join(listed)}]))'

        text = f'train_dataloader = {sources(loop1)}\n'
        if loop2:
            text += f'train_cfg = dict(loop2_dataloader={sources(loop2)})\n'
        if held_out:
            text += f'val_dataloader = {sources([held_out])}\n'
        config = tmp_path / 'config.py'
        config.write_text(text)
        status = command.main([str(config), *options])
        return status, capsys.readouterr().out

    return run


def sa1b(root, **more):
    return 'SA1BDataset', dict(data_root=str(root), **more)


def test_all_sources_are_right(check, sav_root, sa1b_root, openimages_root, refcoco_root, dam_root):
    status, text = check(
        ('SAVPairDataset', dict(data_root=str(sav_root))), sa1b(sa1b_root, repeats=2.5),
        ('OpenImagesDataset', dict(data_root=str(openimages_root))),
        ('RefCOCODataset', dict(data_root=str(refcoco_root), exclude_image_ids=[8], num_objects=2)),
        loop2=[('DescribeAnythingDataset', dict(data_root=str(dam_root), split='SAV'))],
        held_out=('RefCOCODataset', dict(data_root=str(refcoco_root), split='val')))
    assert status == 0 and text.splitlines()[-1] == 'all right', text
    assert 'PROBLEM' not in text and 'note' not in text and 'missing' not in text
    assert 'loop 1, source 2: sa1b (SA1BDataset)' in text and 'held out, source 1: refcoco' in text
    assert f'found    {refcoco_root / "refcoco" / "instances.json"}' in text
    assert '10 in an epoch: 4 distinct, repeats 2.5' in text
    # Half of the picture's 48 rows and 20 of 64 columns: 30 x 20 pixels of 48 x 64 are 19.5 %.
    assert "sample   COCO_7_0_0: 3x56x56 in" in text and "object on 19.5%" in text and "'left box', 'right box'" in text
    assert 'licence  SA-V (Meta): CC BY 4.0' in text
    assert 'from     Archives, after accepting the licence: https://ai.meta.com/datasets/segment-anything' in text
    mix = text[text.index('The mix:'):]
    assert len(mix.splitlines()) == 9 and 'dam_sav' in mix, mix


def test_all_missing_paths_are_named_and_other_sources_are_checked(check, openimages_root, sa1b_root):
    table = openimages_root / 'oidv7-class-descriptions.csv'
    os.remove(table)
    os.rename(openimages_root / 'masks', openimages_root / 'elsewhere')
    status, text = check(('OpenImagesDataset', dict(data_root=str(openimages_root))), sa1b(sa1b_root))
    assert status == 1 and text.splitlines()[-1] == '1 problem', text
    for path in (table, openimages_root / 'masks' / 'train'):
        assert f'  missing  {path}\n' in text
    assert f'- training, source 1: openimages: {table} does not exist' in text
    assert text.splitlines()[-2].endswith('; 1 more of its paths are missing')
    assert 'found    ' + str(openimages_root / 'images' / 'train') in text
    assert '4 in an epoch' in text, 'the second source is still checked'
    assert 'openimages/web/download_v7.html' in text


def test_missing_optional_source_is_a_note(check, tmp_path, sa1b_root):
    status, text = check(sa1b(sa1b_root), sa1b(tmp_path / 'nowhere', optional=True, name='more'))
    assert status == 0 and text.splitlines()[-1] == 'all right', text
    assert f'missing  {tmp_path / "nowhere"}' in text and 'note     left out (optional=True)' in text
    assert 'more (left out)' in text


def test_truncated_image_is_a_problem(check, sa1b_root, tiny):
    (sa1b_root / 'sa_000000' / 'sa_2.jpg').write_bytes(tiny.jpeg(tiny.picture)[:-200])
    status, text = check(sa1b(sa1b_root))
    assert status == 1 and text.splitlines()[-1] == '2 problems'
    assert 'sample sa_2_12 cannot be used' in text and 'truncated' in text and 'sa_000000/sa_2.jpg' in text
    assert 'sample   sa_1_11' in text, 'the good one is shown'


def test_number_of_decoded_samples(check, sa1b_root):
    assert check(sa1b(sa1b_root), options=['--samples', '1'])[1].count('  sample ') == 1
    assert check(sa1b(sa1b_root), options=['--samples', '99'])[1].count('  sample ') == 4


def test_hostile_references_are_refused_and_not_run(check, refcoco_root, sa1b_root, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'run'),)

    (refcoco_root / 'refcoco' / 'refs(unc).p').write_bytes(pickle.dumps([Hostile()]))
    status, text = check(('RefCOCODataset', dict(data_root=str(refcoco_root))), sa1b(sa1b_root))
    assert status == 1 and 'refs(unc).p is refused' in text.splitlines()[-2]
    assert text.splitlines()[-1] == '1 problem' and not (tmp_path / 'run').exists()


def test_bad_annotation_files_are_counted(check, sa1b_root):
    for number in range(4):
        (sa1b_root / f'sa_9{number}.json').write_text('{"annotations"')
    status, text = check(sa1b(sa1b_root))
    assert status == 0, 'ten may be bad'
    assert 'bad      4 found while indexing' in text and text.count('is not a JSON file') == 3
    for number in range(4, 11):
        (sa1b_root / f'sa_{number}.json').write_text('{"annotations"')
    status, text = check(sa1b(sa1b_root))
    assert status == 1 and '11 of 15 samples of sa1b are bad' in text


def many_rows(root, existing, missing):
    """Open Images rows of one object on as many pictures, of which some are not there."""
    table = root / 'train-annotations-object-segmentation.csv'
    header, row = table.read_text().splitlines()[:2]
    names = [f'image{number:05d}' for number in range(existing + missing)]
    table.write_text('\n'.join([header, *(row.replace('abc', name) for name in names)]))
    for name in names:
        os.link(root / 'masks' / 'train' / 'abc_m01_box1.png', root / 'masks' / 'train' / f'{name}_m01_box1.png')
    for name in names[:existing]:
        os.link(root / 'images' / 'train' / 'abc.jpg', root / 'images' / 'train' / f'{name}.jpg')


@pytest.mark.parametrize('missing, status', [(10, 0), (11, 1)])
def test_share_of_missing_images(check, openimages_root, missing, status):
    # The last sample is decoded, so a picture that is there must be the last row.
    many_rows(openimages_root, 40, missing)
    table = openimages_root / 'train-annotations-object-segmentation.csv'
    header, *rows = table.read_text().splitlines()
    table.write_text('\n'.join([header, *rows[:20], *rows[40:], *rows[20:40]]))
    found = check(('OpenImagesDataset', dict(data_root=str(openimages_root))), options=['--samples', '2'])
    assert found[0] == status, found[1]
    assert f'{40} of {40 + missing} probed samples have their image file' in found[1]
    assert f'{missing / (40 + missing):.1%} of {40 + missing} probed samples have no image file' in found[1]
    assert 'image00040.jpg' in found[1]


def test_samples_that_break_the_contract(check, sa1b_root, monkeypatch):
    def spoilt(self, row, index):
        sample = real(self, row, index)
        if row == 0:
            sample['pixel_values'] = sample['pixel_values'] * 255
            sample['masks'] = sample['masks'].float()
        if row == 2:
            sample['prompt_masks'] = torch.zeros_like(sample['prompt_masks'])
            sample['caption'] = ' '
            del sample['g_pixel_values'], sample['source']
        return sample

    real = SA1BDataset.load
    monkeypatch.setattr(SA1BDataset, 'load', spoilt)
    status, text = check(sa1b(sa1b_root))
    assert status == 1 and text.splitlines()[-1] == '6 problems', text
    for expected in ('sa_1_11: pixel_values is not ImageNet-normalised', 'sa_1_11: masks is (64, 64) torch.float32',
                     'sa_2_11: prompt_masks is empty', "sa_2_11: caption is ' '", 'sa_2_11: g_pixel_values is missing',
                     "sa_2_11: source is None, not 'sa1b'"):
        assert expected in text, expected


def test_coco_pictures_without_exclusion_are_pointed_out(check, refcoco_root, dam_root):
    stuff = ('DescribeAnythingDataset', dict(data_root=str(dam_root), split='COCOStuff', exclude_image_ids=()))
    refs = ('RefCOCODataset', dict(data_root=str(refcoco_root), exclude_image_ids=()))
    status, text = check(refs, loop2=[stuff, ('DescribeAnythingDataset', dict(data_root=str(dam_root)))], held_out=refs)
    assert status == 0, text
    assert text.count('pictures of COCO with exclude_image_ids=()') == 2
    stuff[1]['exclude_image_ids'] = [1]
    del refs[1]['exclude_image_ids']
    status, text = check(refs, loop2=[stuff])
    assert 'exclude_image_ids=()' not in text
    # The list of the references holds out image 8, which the other source was not told.
    assert status == 0 and text.count('WARNING') == 1
    assert 'WARNING  loop 2, source 1: dam_cocostuff: its exclude_image_ids leaves in 1 pictures of COCO' in text
    stuff[1]['exclude_image_ids'] = dict(type='held_out_image_ids', data_root=str(refcoco_root))
    assert 'WARNING' not in check(refs, loop2=[stuff])[1]


def test_pictures_of_validation_that_are_trained_on_are_pointed_out(check, refcoco_root, openimages_root):
    images = ('OpenImagesDataset', dict(data_root=str(openimages_root)))
    words = ('RefCOCODataset', dict(data_root=str(refcoco_root)))
    status, text = check(images, words, held_out=words)
    assert status == 0 and text.count('WARNING') == 1, text
    assert 'WARNING  training, source 2: refcoco: 1 of its 1 pictures are those of validation' in text
    assert 'WARNING' not in check(images, words, held_out=('RefCOCODataset', dict(words[1], split='val')))[1]


def test_a_list_that_makes_no_sense_is_a_problem_of_its_source(check, sa1b_root):
    status, text = check(sa1b(sa1b_root, exclude_image_ids='sa_1'), sa1b(sa1b_root, name='other'))
    assert status == 1 and text.splitlines()[-1] == '1 problem' and "got the text 'sa_1'" in text


def test_one_name_for_two_folders_is_a_problem(check, sa1b_root, tmp_path):
    (tmp_path / 'other').symlink_to(sa1b_root)
    status, text = check(sa1b(sa1b_root), sa1b(tmp_path / 'other'))
    assert status == 1 and text.splitlines()[-1] == '1 problem'
    assert 'training, source 2: sa1b: has the name of training, source 1: sa1b and another folder' in text
    assert check(sa1b(sa1b_root), sa1b(tmp_path / 'other', name='other'))[0] == 0


def test_a_source_of_bad_samples_alone_is_a_problem_even_if_optional(check, sa1b_root, openimages_root):
    for file in (sa1b_root / 'sa_000000').glob('*.json'):
        file.write_text('')
    status, text = check(sa1b(sa1b_root, optional=True), ('OpenImagesDataset', dict(data_root=str(openimages_root))))
    assert status == 1 and text.splitlines()[-1] == '1 problem' and 'no samples' not in text
    assert '2 of 2 samples of sa1b are bad, so that nothing is left; the first one is sa_000000/sa_1' in text


def test_the_same_folder_twice_is_pointed_out(check, openimages_root, sa1b_root, refcoco_root):
    first = ('OpenImagesDataset', dict(data_root=str(openimages_root)))
    again = ('OpenImagesDataset', dict(data_root=str(openimages_root), split='train', repeats=2))
    words = ('RefCOCODataset', dict(data_root=str(refcoco_root)))
    status, text = check(first, sa1b(sa1b_root), again, words, held_out=words)
    assert status == 0 and text.count('the same folder as training, source 1: openimages') == 1


def test_an_error_that_nobody_thought_of_is_one_problem(check, openimages_root, sa1b_root, monkeypatch):
    monkeypatch.setattr(OpenImagesDataset, 'build_index', lambda self: {}['column'])
    monkeypatch.setattr(SA1BDataset, 'read_image', lambda self, row: {}['row'])
    status, text = check(sa1b(sa1b_root), ('OpenImagesDataset', dict(data_root=str(openimages_root))),
                         sa1b(sa1b_root, wrong=1))
    assert status == 1 and text.splitlines()[-1] == '3 problems'
    for line, said in zip(text.splitlines()[-4:], ("KeyError: 'row'", "KeyError: 'column'", "TypeError: ")):
        assert said in line


def test_what_is_not_a_data_set_of_this_project(check, sa1b_root):
    full_name = 'dual_loop.datasets.SA1BDataset', dict(data_root=str(sa1b_root))  # as in a dumped config
    status, text = check(('torch.utils.data.TensorDataset', {}), full_name)
    assert status == 1 and 'is not a GroundedDataset' in text and '4 in an epoch' in text


def test_refused_command_lines(tmp_path, capsys, check, sa1b_root):
    assert command.main([str(tmp_path / 'none.py')]) == 1
    assert 'there is no config file' in capsys.readouterr().err
    (tmp_path / 'empty.py').write_text('model = dict()')
    assert command.main([str(tmp_path / 'empty.py')]) == 1
    assert 'has no data sets' in capsys.readouterr().err


def test_options_change_the_config(check, sa1b_root, tmp_path):
    option = f'train_dataloader.dataset.datasets.0.data_root={tmp_path / "away"}'
    status, text = check(sa1b(sa1b_root), options=['--cfg-options', option])
    assert status == 1 and f'{tmp_path / "away"} does not exist' in text


def test_the_second_loop_needs_captions(check, sa1b_root):
    status, text = check(sa1b(sa1b_root), loop2=[sa1b(sa1b_root)])
    assert status == 1 and 'has no captions, which loop 2 needs' in text and text.splitlines()[-1] == '1 problem'
