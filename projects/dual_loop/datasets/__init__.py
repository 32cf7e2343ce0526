"""Data sets of objects with masks and, some of them, captions; see ``GroundedDataset`` for what a sample holds."""

from .base import GroundedDataset, MissingData
from .collate import collate_samples
from .describe_anything import DescribeAnythingDataset
from .openimages import OpenImagesDataset
from .quarantine import BadSample, TooManyBadSamples, set_work_dir
from .refcoco import RefCOCODataset
from .refs import held_out_image_ids, load_refs
from .sa1b import SA1BDataset
from .sav import SAVPairDataset

__all__ = ['BadSample', 'DescribeAnythingDataset', 'GroundedDataset', 'MissingData', 'OpenImagesDataset',
           'RefCOCODataset', 'SA1BDataset', 'SAVPairDataset', 'TooManyBadSamples', 'collate_samples',
           'held_out_image_ids', 'load_refs', 'set_work_dir']
