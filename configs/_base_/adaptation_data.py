# What the quickstart adapts to: a little of world B of the demo data, which has names that the tiny base never met, in
# the formats of the real data sets. Most masks have no words (loop 1), most captions have no masks (loop 2), and 80
# scenes have both (supervised). It is made on first use.
from mmengine.dataset import InfiniteSampler
from xtuner.dataset import ConcatDataset

from dual_loop.datasets import (DescribeAnythingDataset, OpenImagesDataset, RefCOCODataset, SA1BDataset,
                                SAVPairDataset, collate_samples)
from dual_loop.demo import ensure_demo_data
from dual_loop.evaluation import GlobalBatchSampler

# 112 px for the vision encoder (7 x 7 image tokens), 128 px for the grounding encoder; as in assets/tiny/config.json.
sizes = dict(image_size=112, grounding_size=128, num_image_tokens=49, region_grid=7)
# No split of one source shows a picture of another one, so nothing is left out (``exclude_image_ids=()``).
new = dict(prepare=dict(type=ensure_demo_data, root='data/demo_new', images=400, seed=20, world='b',
                        sources=['sav', 'sa1b', 'openimages', 'dam']), **sizes)
held_out = dict(prepare=dict(type=ensure_demo_data, root='data/demo_new_held_out', images=160, seed=21, world='b',
                             split='val', sources=['refcoco', 'dam']), exclude_image_ids=(), **sizes)

# Masks without captions: 1 200 scenes, a third of them frame pairs.
masks = [
    dict(type=SAVPairDataset, data_root='data/demo_new/sav', **new),
    dict(type=SA1BDataset, data_root='data/demo_new/sa1b', **new),
    dict(type=OpenImagesDataset, data_root='data/demo_new/openimages', **new),
]
# Captions without masks: descriptions of 400 scenes.
captions = [dict(type=DescribeAnythingDataset, data_root='data/demo_new/dam', split=split, exclude_image_ids=(), **new)
            for split in ('COCOStuff', 'LVIS', 'SAV')]
# Captions with masks: phrases of 40 scenes and descriptions of 40.
few = dict(prepare=dict(type=ensure_demo_data, root='data/demo_new_captioned', images=40, seed=22, world='b',
                        split='train', sources=['refcoco', 'dam']), exclude_image_ids=(), **sizes)
captioned = [
    dict(type=RefCOCODataset, data_root='data/demo_new_captioned/ref_seg', split='train', **few),
    *[dict(type=DescribeAnythingDataset, data_root='data/demo_new_captioned/dam', split=split, **few)
      for split in ('COCOStuff', 'LVIS', 'SAV')],
]
# Held out: 160 scenes with phrases, and 80 with descriptions.
refcoco_val = dict(type=RefCOCODataset, data_root='data/demo_new_held_out/ref_seg', split='val', **held_out)
described_val = dict(type=DescribeAnythingDataset, data_root='data/demo_new_held_out/dam', split='COCOStuff',
                     **held_out)

loader = dict(sampler=dict(type=InfiniteSampler, shuffle=True), collate_fn=dict(type=collate_samples), num_workers=1,
              persistent_workers=True)
loop1_dataloader = dict(loader, batch_size=8, dataset=dict(type=ConcatDataset, datasets=masks))
loop2_dataloader = dict(loader, batch_size=16, dataset=dict(type=ConcatDataset, datasets=captions))
supervised_dataloader = dict(loader, batch_size=16, dataset=dict(type=ConcatDataset, datasets=captioned))
held_out_dataloader = dict(
    dataset=refcoco_val,
    sampler=dict(type='DefaultSampler', shuffle=False),
    batch_sampler=dict(type=GlobalBatchSampler),  # the same batches for any number of GPUs, and so the same figures
    collate_fn=dict(type=collate_samples),
    batch_size=32,
    num_workers=1,
)
