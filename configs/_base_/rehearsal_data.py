# The demo world at the sizes of the real data, in the same formats and with the same list of data sets; made on first
# use.
from dual_loop.datasets import (DescribeAnythingDataset, OpenImagesDataset, RefCOCODataset, SA1BDataset,
                                SAVPairDataset, held_out_image_ids)
from dual_loop.demo import ensure_demo_data
from llava_sam2.tokenizer import stand_in_tokenizer

rehearsal = dict(
    image_size=448, grounding_size=1024, num_image_tokens=256,
    prepare=dict(type=ensure_demo_data, root='data/rehearsal', images=400, seed=0,
                 sources=['sav', 'sa1b', 'openimages', 'refcoco', 'refcoco+', 'refcocog', 'dam', 'dam_Mapillary',
                          'dam_OpenImages', 'dam_PACO']),
)
rehearsal_words = dict(tokenizer=dict(type=stand_in_tokenizer))
rehearsal_exclusion = dict(exclude_image_ids=dict(type=held_out_image_ids, data_root='data/rehearsal/ref_seg'))

rehearsal_loop1_datasets = [
    dict(type=SAVPairDataset, data_root='data/rehearsal/sav', **rehearsal),
    dict(type=SA1BDataset, data_root='data/rehearsal/sa1b', **rehearsal),
    dict(type=OpenImagesDataset, data_root='data/rehearsal/openimages', **rehearsal),
    *[dict(type=RefCOCODataset, data_root='data/rehearsal/ref_seg', dataset=dataset, split_by=split_by,
           **rehearsal, **rehearsal_words, **rehearsal_exclusion)
      for dataset, split_by in (('refcoco', 'unc'), ('refcoco+', 'unc'), ('refcocog', 'umd'))],
]
rehearsal_loop2_datasets = [
    *[dict(type=DescribeAnythingDataset, data_root='data/rehearsal/dam', split=split, **rehearsal, **rehearsal_words)
      for split in ('SAV', 'Mapillary', 'OpenImages')],
    *[dict(type=DescribeAnythingDataset, data_root='data/rehearsal/dam', split=split, **rehearsal, **rehearsal_words,
           **rehearsal_exclusion) for split in ('COCOStuff', 'LVIS', 'PACO')],
]
rehearsal_held_out_dataset = dict(type=RefCOCODataset, data_root='data/rehearsal/ref_seg', split='val', **rehearsal)
