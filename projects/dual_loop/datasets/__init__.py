"""Data sets of objects with masks and, some of them, captions; see ``GroundedDataset`` for what a sample holds.

The second group of names is for data set classes of one's own (docs/data_class.md).
"""

from .base import GroundedDataset
from .collate import collate_samples
from .describe_anything import DescribeAnythingDataset
from .folder import FolderDataset
from .images import read_image, read_mask_image
from .index import Table, TableBuilder
from .index_store import IndexSource, find_files
from .indexed import MissingData
from .json_files import load_json
from .masks import decode_segmentation, mask_to_size
from .openimages import OpenImagesDataset
from .quarantine import BadSample, TooManyBadSamples, set_work_dir
from .refcoco import RefCOCODataset
from .refs import held_out_image_ids, load_refs
from .sa1b import SA1BDataset
from .sav import SAVPairDataset

__all__ = ['BadSample', 'DescribeAnythingDataset', 'FolderDataset', 'GroundedDataset', 'MissingData',
           'OpenImagesDataset', 'RefCOCODataset', 'SA1BDataset', 'SAVPairDataset', 'TooManyBadSamples',
           'collate_samples', 'held_out_image_ids', 'load_refs', 'set_work_dir']
__all__ += ['IndexSource', 'Table', 'TableBuilder', 'decode_segmentation', 'find_files', 'load_json', 'mask_to_size',
            'read_image', 'read_mask_image']
