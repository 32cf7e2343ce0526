# What the tiny base learns from: the captioned part of a demo world that the dual loop never sees (another seed).
from mmengine.dataset import InfiniteSampler
from xtuner.dataset import ConcatDataset

from dual_loop.datasets import DescribeAnythingDataset, RefCOCODataset, collate_samples, held_out_image_ids
from dual_loop.demo import ensure_demo_data

sizes = dict(image_size=112, grounding_size=128, num_image_tokens=49, region_grid=7)
prepare = dict(type=ensure_demo_data, root='data/demo_base', images=20000, seed=1, sources=['refcoco', 'dam'])
objects = dict(num_objects=4)  # of one image in a sample: nearly free supervision, the image is encoded once

described = [
    dict(type=DescribeAnythingDataset, data_root='data/demo_base/dam', split=split, prepare=prepare,
         exclude_image_ids=dict(type=held_out_image_ids, data_root='data/demo_base/ref_seg'), **sizes, **objects)
    for split in ('COCOStuff', 'LVIS', 'SAV')
]
phrases = dict(type=RefCOCODataset, data_root='data/demo_base/ref_seg', split='train', prepare=prepare, **sizes,
               **objects)
loader = dict(sampler=dict(type=InfiniteSampler, shuffle=True), collate_fn=dict(type=collate_samples),
              num_workers=14, persistent_workers=True)
described_dataloader = dict(loader, dataset=dict(type=ConcatDataset, datasets=described))
captioned_dataloader = dict(loader, dataset=dict(type=ConcatDataset, datasets=[phrases, *described]))
held_out = dict(type=RefCOCODataset, data_root='data/demo_base/ref_seg', split='val', prepare=prepare,
                max_samples=1000, **sizes)
# What an object of world A is called: shape, colour, texture and size, with synonyms.
kinds = [
    [['circle'], ['square'], ['triangle'], ['star'], ['ring'], ['cross'], ['heart'], ['crescent']],
    [['red'], ['orange'], ['yellow'], ['green'], ['cyan'], ['blue'], ['purple'], ['pink']],
    [['plain'], ['striped', 'stripes'], ['dotted', 'dots'], ['checked', 'checks']],
    [['small', 'little'], ['large', 'big']],
]
