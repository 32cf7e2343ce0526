# World B of the demo data, in the same formats: names that world A (demo_data.py) never has, for adaptation. 3 000
# scenes have masks; of these 1, 5 or 20 per cent come with captions, 2 400 are masks alone, a third of them frame
# pairs. Further 2 400 scenes have descriptions, whose masks loop 2 does not use, and as many phrases, for two arms.
# No two folders share a scene: each has a seed of its own. All is made on first use.
from xtuner.dataset import ConcatDataset

from dual_loop.datasets import (DescribeAnythingDataset, OpenImagesDataset, RefCOCODataset, SA1BDataset,
                                SAVPairDataset)
from dual_loop.demo import ensure_demo_data

# As in assets/tiny/config.json; see demo_data.py.
sizes = dict(image_size=112, grounding_size=128, num_image_tokens=49, region_grid=7)

# Masks without captions: 3 x 800 scenes.
masks = dict(prepare=dict(type=ensure_demo_data, root='data/demo_b/masks', images=800, seed=11, world='b',
                          sources=['sav', 'sa1b', 'openimages']), **sizes)
masks_b = dict(type=ConcatDataset, datasets=[
    dict(type=SAVPairDataset, data_root='data/demo_b/masks/sav', **masks),
    dict(type=SA1BDataset, data_root='data/demo_b/masks/sa1b', **masks),
    dict(type=OpenImagesDataset, data_root='data/demo_b/masks/openimages', **masks),
])

# Captions without masks: descriptions of 1 200 + 600 + 600 scenes, and phrases of 2 400. All pictures are in training
# (``exclude_image_ids=()``).
written = dict(prepare=dict(type=ensure_demo_data, root='data/demo_b/captions', images=2400, seed=12, world='b',
                            split='train', sources=['refcoco', 'dam']), exclude_image_ids=(), **sizes)
captions_b = dict(type=ConcatDataset, datasets=[
    dict(type=DescribeAnythingDataset, data_root='data/demo_b/captions/dam', split=split, **written)
    for split in ('COCOStuff', 'LVIS', 'SAV')])
phrases_b = dict(type=RefCOCODataset, data_root='data/demo_b/captions/ref_seg', split='train', **written)

# Captions with masks, half phrases and half descriptions: 30, 150 or 600 scenes. The first scenes of a larger folder
# are those of a smaller one, so 1 per cent is a part of 5, and 5 of 20.
captioned = {percent: dict(prepare=dict(type=ensure_demo_data, root=f'data/demo_b/captioned_{percent}',
                                        images=15 * int(percent), seed=10, world='b', split='train',
                                        sources=['refcoco', 'dam']), exclude_image_ids=(), **sizes)
             for percent in ('1', '5', '20')}
captioned_b = {percent: dict(type=ConcatDataset, datasets=[
    dict(type=RefCOCODataset, data_root=f'{common["prepare"]["root"]}/ref_seg', split='train', **common),
    *[dict(type=DescribeAnythingDataset, data_root=f'{common["prepare"]["root"]}/dam', split=split, **common)
      for split in ('COCOStuff', 'LVIS', 'SAV')]]) for percent, common in captioned.items()}

# Validation and test: 1 000 scenes with phrases each, and 500 with descriptions of all their objects.
held_out = {name: dict(prepare=dict(type=ensure_demo_data, root=f'data/demo_b/{name}', images=1000, seed=seed,
                                    world='b', split='val', sources=['refcoco', 'dam']), exclude_image_ids=(), **sizes)
            for name, seed in (('val', 13), ('test', 14))}
refcoco_b = {name: dict(type=RefCOCODataset, data_root=f'data/demo_b/{name}/ref_seg', split='val', **common)
             for name, common in held_out.items()}
descriptions_b = {name: dict(type=DescribeAnythingDataset, data_root=f'data/demo_b/{name}/dam', split='COCOStuff',
                             **common) for name, common in held_out.items()}
