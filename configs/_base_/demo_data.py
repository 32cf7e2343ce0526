# The demo world (tools/make_demo_data.py) as the five sources see it. It is made on first use.
from mmengine.dataset import InfiniteSampler
from xtuner.dataset import ConcatDataset

from dual_loop.datasets import (DescribeAnythingDataset, OpenImagesDataset, RefCOCODataset, SA1BDataset,
                                SAVPairDataset, collate_samples, held_out_image_ids)
from dual_loop.demo import ensure_demo_data
from dual_loop.evaluation import GlobalBatchSampler

# 112 px for the vision encoder (4 x 4 image tokens), 128 px for the grounding encoder; as in assets/tiny/config.json.
sizes = dict(image_size=112, grounding_size=128, num_image_tokens=49, region_grid=7)
prepare = dict(type=ensure_demo_data, root='data/demo', images=400, seed=0)

# Masks without captions.
sav = dict(type=SAVPairDataset, data_root='data/demo/sav', prepare=prepare, **sizes)
sa1b = dict(type=SA1BDataset, data_root='data/demo/sa1b', prepare=prepare, **sizes)
openimages = dict(type=OpenImagesDataset, data_root='data/demo/openimages', prepare=prepare, **sizes)
# Human sentences.
refcoco = dict(type=RefCOCODataset, data_root='data/demo/ref_seg', split='train', prepare=prepare, repeats=2, **sizes)
# Held-out sentences from scenes of their own: 150 images, since the 40 of data/demo would say little.
refcoco_val = dict(
    type=RefCOCODataset, data_root='data/demo_held_out/ref_seg', split='val',
    prepare=dict(type=ensure_demo_data, root='data/demo_held_out', images=1500, seed=2, sources=['refcoco']), **sizes)
# Descriptions, without the pictures that refcoco holds out.
without_held_out = dict(exclude_image_ids=dict(type=held_out_image_ids, data_root='data/demo/ref_seg'))
describe_anything = [
    dict(type=DescribeAnythingDataset, data_root='data/demo/dam', split=split, prepare=prepare, **sizes,
         **without_held_out)
    for split in ('COCOStuff', 'LVIS', 'SAV')
]

loop1_dataloader = dict(
    dataset=dict(type=ConcatDataset, datasets=[sav, sa1b, openimages, refcoco]),
    sampler=dict(type=InfiniteSampler, shuffle=True),
    collate_fn=dict(type=collate_samples),
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
)
loop2_dataloader = dict(
    dataset=dict(type=ConcatDataset, datasets=describe_anything),
    sampler=dict(type=InfiniteSampler, shuffle=True),
    collate_fn=dict(type=collate_samples),
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
)
held_out_dataloader = dict(
    dataset=refcoco_val,
    sampler=dict(type='DefaultSampler', shuffle=False),
    batch_sampler=dict(type=GlobalBatchSampler),  # the same batches for any number of GPUs, and so the same figures
    collate_fn=dict(type=collate_samples),
    batch_size=32,
    num_workers=1,
)
