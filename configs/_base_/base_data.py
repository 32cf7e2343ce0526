# What the tiny base learns from: the captioned parts of two demo worlds that the dual loop never sees (other seeds).
# The first teaches words and regions (configs/words_tiny.py), the second sentences (configs/sft_tiny.py): a tower that
# has seen its scenes thirty times names their regions without a fault, and others' with.
from mmengine.dataset import InfiniteSampler
from xtuner.dataset import ConcatDataset

from dual_loop.datasets import DescribeAnythingDataset, RefCOCODataset, collate_samples, held_out_image_ids
from dual_loop.demo import ensure_demo_data

sizes = dict(image_size=112, grounding_size=128, num_image_tokens=49, region_grid=7)
objects = dict(num_objects=4)  # of one image in a sample: nearly free supervision, the image is encoded once
splits = ('COCOStuff', 'LVIS', 'SAV')

prepare_words = dict(type=ensure_demo_data, root='data/demo_words', images=25000, seed=1, sources=['refcoco', 'dam'])
regions = [
    dict(type=DescribeAnythingDataset, data_root='data/demo_words/dam', split=split, prepare=prepare_words,
         exclude_image_ids=dict(type=held_out_image_ids, data_root='data/demo_words/ref_seg'), **sizes, **objects)
    for split in splits
]
prepare = dict(type=ensure_demo_data, root='data/demo_base', images=25000, seed=7, sources=['refcoco', 'dam'])
described = [
    dict(type=DescribeAnythingDataset, data_root='data/demo_base/dam', split=split, prepare=prepare,
         exclude_image_ids=dict(type=held_out_image_ids, data_root='data/demo_base/ref_seg'), **sizes, **objects)
    for split in splits
]
phrases = dict(type=RefCOCODataset, data_root='data/demo_base/ref_seg', split='train', prepare=prepare, **sizes,
               **objects)
loader = dict(sampler=dict(type=InfiniteSampler, shuffle=True), collate_fn=dict(type=collate_samples),
              num_workers=13, persistent_workers=True)
regions_dataloader = dict(loader, dataset=dict(type=ConcatDataset, datasets=regions))
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
