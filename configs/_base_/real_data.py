# The real data sets of the 4B run, below data/. The docstring of each data set says what lies in its folder.
from dual_loop.datasets import (DescribeAnythingDataset, OpenImagesDataset, RefCOCODataset, SA1BDataset,
                                SAVPairDataset, held_out_image_ids)
from llava_sam2.tokenizer import load_tokenizer

# 448 px for the vision encoder (16 x 16 image tokens), 1024 px for the grounding encoder.
sizes = dict(image_size=448, grounding_size=1024, num_image_tokens=256)
# Counts the tokens of captions, so that batches are of similar length.
words = dict(tokenizer=dict(type=load_tokenizer, folder='pretrained/Sa2VA-4B'))
# COCO pictures in val or test of any RefCOCO variant, found in the files of ref_seg: never trained on.
without_held_out = dict(exclude_image_ids=dict(type=held_out_image_ids, data_root='data/ref_seg'))

loop1_datasets = [
    # Masks without captions. SA-V: two frames of a video and the mask of one object in both, one npz file per pair.
    dict(type=SAVPairDataset, data_root='data/sav', max_samples=200_000, **sizes),
    # SA-1B: jpg and json side by side. max_samples counts masks: those of 10 000 pictures, about 103 in each.
    dict(type=SA1BDataset, data_root='data/sa1b', max_samples=1_030_000, **sizes),
    # Open Images v7 segmentation: the two tables and the folders images/train and masks/train. Its pictures take
    # 500 GB: without them the run says so and goes on.
    dict(type=OpenImagesDataset, data_root='data/openimages', max_samples=100_000, optional=True, **sizes),
    # Human sentences. refcoco, refcoco+ and refcocog, each with instances.json, refs(*).p and coco2014/train2014. One
    # sentence is one sample; once each is a fifth of loop 1.
    dict(type=RefCOCODataset, data_root='data/ref_seg', dataset='refcoco', split='train', split_by='unc', repeats=1,
         **sizes, **words, **without_held_out),
    dict(type=RefCOCODataset, data_root='data/ref_seg', dataset='refcoco+', split='train', split_by='unc', repeats=1,
         **sizes, **words, **without_held_out),
    dict(type=RefCOCODataset, data_root='data/ref_seg', dataset='refcocog', split='train', split_by='umd', repeats=1,
         **sizes, **words, **without_held_out),
]

# Describe Anything: long captions of regions; {split}/annotations.json and {split}/images/*.tar.
loop2_datasets = [
    *[dict(type=DescribeAnythingDataset, data_root='data/dam', split=split, **sizes, **words)
      for split in ('SAV', 'Mapillary', 'OpenImages')],
    # These three show COCO's pictures.
    *[dict(type=DescribeAnythingDataset, data_root='data/dam', split=split, **sizes, **words, **without_held_out)
      for split in ('COCOStuff', 'LVIS', 'PACO')],
]

# Masks for held-out sentences are measured before and after training.
held_out_dataset = dict(type=RefCOCODataset, data_root='data/ref_seg', dataset='refcoco', split='val', split_by='unc',
                        max_samples=1_000, **sizes)
