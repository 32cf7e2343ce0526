# What the quickstart adapts to: a little of world B of the demo data, which has names that the tiny base never met, in
# the formats of the real data sets. All phrases and a quarter of the descriptions come with masks (supervised); the
# other descriptions have none (loop 2), and most masks have no words (loop 1). It is made on first use.
from mmengine.dataset import InfiniteSampler
from xtuner.dataset import ConcatDataset

from dual_loop.datasets import (DescribeAnythingDataset, OpenImagesDataset, RefCOCODataset, SA1BDataset,
                                SAVPairDataset, collate_samples)
from dual_loop.demo import ensure_demo_data
from dual_loop.evaluation import GlobalBatchSampler

# 112 px for the vision encoder (7 x 7 image tokens), 128 px for the grounding encoder; as in assets/tiny/config.json.
sizes = dict(image_size=112, grounding_size=128, num_image_tokens=49, region_grid=7)
# No split of one source shows a picture of another one, so nothing is left out (``exclude_image_ids=()``).
new = dict(prepare=dict(type=ensure_demo_data, root='data/demo_new', images=400, seed=20, world='b'), **sizes)
new_captioned = dict(new, exclude_image_ids=())
held_out = dict(prepare=dict(type=ensure_demo_data, root='data/demo_new_held_out', images=160, seed=21, world='b',
                             split='val', sources=['refcoco', 'dam']), exclude_image_ids=(), **sizes)

# Masks without captions: 1 200 scenes, a third of them frame pairs.
sav = dict(type=SAVPairDataset, data_root='data/demo_new/sav', **new)
sa1b = dict(type=SA1BDataset, data_root='data/demo_new/sa1b', **new)
openimages = dict(type=OpenImagesDataset, data_root='data/demo_new/openimages', **new)
# Descriptions without masks: 300 scenes.
described = [dict(type=DescribeAnythingDataset, data_root='data/demo_new/dam', split=split, **new_captioned)
             for split in ('COCOStuff', 'SAV')]
# Captions with masks: 320 scenes with phrases and 100 with descriptions.
refcoco = dict(type=RefCOCODataset, data_root='data/demo_new/ref_seg', split='train', **new_captioned)
lvis = dict(type=DescribeAnythingDataset, data_root='data/demo_new/dam', split='LVIS', **new_captioned)
# Held out: 160 scenes with phrases, and 80 with descriptions.
refcoco_val = dict(type=RefCOCODataset, data_root='data/demo_new_held_out/ref_seg', split='val', **held_out)
described_val = dict(type=DescribeAnythingDataset, data_root='data/demo_new_held_out/dam', split='COCOStuff',
                     **held_out)

loader = dict(sampler=dict(type=InfiniteSampler, shuffle=True), collate_fn=dict(type=collate_samples), num_workers=1,
              persistent_workers=True)
loop1_dataloader = dict(loader, batch_size=8, dataset=dict(type=ConcatDataset, datasets=[sav, sa1b, openimages]))
loop2_dataloader = dict(loader, batch_size=16, dataset=dict(type=ConcatDataset, datasets=described))
supervised_dataloader = dict(loader, batch_size=16, dataset=dict(type=ConcatDataset, datasets=[refcoco, lvis]))
held_out_dataloader = dict(
    dataset=refcoco_val,
    sampler=dict(type='DefaultSampler', shuffle=False),
    batch_sampler=dict(type=GlobalBatchSampler),  # the same batches for any number of GPUs, and so the same figures
    collate_fn=dict(type=collate_samples),
    batch_size=32,
    num_workers=1,
)
