"""What becomes of Describe Anything data whose archives are damaged or lack something."""

import json
import os
import re

import pytest
import torch

from dual_loop.datasets import DescribeAnythingDataset
from dual_loop.datasets.tars import tar_members


def stuff(root, **more):
    return DescribeAnythingDataset(root, 'COCOStuff', exclude_image_ids=(), **more)


@pytest.mark.parametrize('damage', [lambda data, header: data[:header + 700],
                                    lambda data, header: data[:header] + bytes(512) + data[header + 512:],
                                    lambda data, header: data[:header] + bytes(2**17)])
def test_what_a_damaged_archive_lacks_is_counted_where_the_listing_tells(dam_root, small, tiny, write_tar, damage):
    path = dam_root / 'COCOStuff' / 'images' / '00.tar'
    clean = list(stuff(dam_root, **small))
    write_tar(path, {'c_1.jpg': tiny.jpeg(tiny.picture), 'c_2.jpg': tiny.jpeg(tiny.picture), 'c_2.pickle': b''})
    os.remove(dam_root / 'COCOStuff' / 'images' / '01.tar')
    header = next(offset for name, offset, _ in tar_members(path) if name == 'c_2.jpg') - 512
    path.write_bytes(damage(path.read_bytes(), header))
    dataset = stuff(dam_root, **small)
    assert torch.equal(torch.stack([sample['masks'] for sample in dataset]),
                       torch.stack([sample['masks'] for sample in clean[:2]]))
    archive, region = dataset.quarantine.entries
    assert archive['sample_id'] == '00.tar' and archive['path'] == str(path)
    assert re.search('00.tar is (perhaps )?not a whole', archive['reason'])
    assert region['sample_id'] == 'c_2_0' and 'no archive' in region['reason']


def test_a_mask_of_the_first_frame_is_not_put_on_a_later_one(dam_root, small, tiny, write_tar):
    write_tar(dam_root / 'SAV' / 'images' / '00.tar', {'v_1.1.jpg': tiny.jpeg(tiny.picture), 'v_2.0.jpg': b''})
    listing = dam_root / 'SAV' / 'annotations.json'
    content = json.loads(listing.read_text())
    listing.write_text(json.dumps(content | dict(v_2=content['v_1'])))
    dataset = DescribeAnythingDataset(dam_root, 'SAV', **small)
    assert [dataset.sample_id(row) for row in range(len(dataset.index))] == ['v_2_0']
    assert 'not the first one' in dataset.quarantine.entries[0]['reason']
