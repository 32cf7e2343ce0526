"""Pictures are turned the way their EXIF tag says, in every format; masks must be those of the turned picture."""

import io
import tarfile

import pytest
import torch
from PIL import Image

from dual_loop.datasets import DescribeAnythingDataset, OpenImagesDataset, RefCOCODataset, SA1BDataset

# What a viewer does with a stored picture, undone: the stored picture of one that is to be seen as it is.
STORED = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
          5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
          8: Image.Transpose.ROTATE_270}


def png(picture, orientation=None):
    """As the kind of a file follows from its content, PNG in place of JPEG makes the pixels exact."""
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation or 1
    picture.save(stream, 'PNG', exif=exif)
    return stream.getvalue()


def rewrite_tar(path, data):
    with tarfile.open(path) as archive:
        names = archive.getnames()
    with tarfile.open(path, 'w') as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def pictures(root):
    found = [path for path in sorted(root.rglob('*')) if path.suffix in ('.jpg', '.tar')]
    assert found
    return found


def write(root, data):
    for path in pictures(root):
        if path.suffix == '.tar':
            rewrite_tar(path, data)
        else:
            path.write_bytes(data)


@pytest.fixture(params=['sa1b', 'refcoco', 'openimages', 'dam'])
def folder_and_kind(request):
    root = request.getfixturevalue(f'{request.param}_root')
    options = dict(split='COCOStuff', exclude_image_ids=()) if request.param == 'dam' else {}
    kind = dict(sa1b=SA1BDataset, refcoco=RefCOCODataset, openimages=OpenImagesDataset,
                dam=DescribeAnythingDataset)[request.param]
    return root, lambda **more: kind(root, **options, **more)


def test_the_picture_is_turned_and_fits_the_masks(folder_and_kind, tiny, small):
    root, build = folder_and_kind
    shown = Image.fromarray(tiny.picture)
    write(root, png(shown))
    clean = list(build(**small))
    for orientation, stored in STORED.items():
        write(root, png(shown.transpose(stored), orientation))
        dataset = build(**small)
        for sample, expected in zip(dataset, clean, strict=True):
            assert all(torch.equal(value, expected[key]) for key, value in sample.items() if torch.is_tensor(value))
        assert not dataset.quarantine.count


def test_masks_of_the_stored_picture_are_bad_samples(folder_and_kind, tiny, small):
    root, build = folder_and_kind
    write(root, png(Image.fromarray(tiny.picture), 6))
    dataset = build(**small)
    for row in range(len(dataset)):
        with pytest.raises(ValueError, match=r'belongs to an image.*EXIF|does not fit its image'):
            dataset.load(row, row)
