"""Data and models that several evaluations are tested on."""

import json
import pickle

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image

CONFIG = """
from dual_loop.models import DualLoopModel
from llava_sam2.model import VideoLLaVASAMModel

model = dict(type=DualLoopModel, base=dict(
    type=VideoLLaVASAMModel, tokenizer='{base}', pretrained='{base}', lora=dict(r=2, alpha=4)))
"""


@pytest.fixture
def write_refcoco(tmp_path):
    """Writes a RefCOCO folder: ``images`` maps a number to (height, width), ``refs`` are (image, split, segmentation,
    sentences)."""
    def write(images: dict, refs: list) -> str:
        folder = tmp_path / 'ref_seg/refcoco'
        pictures = folder / 'coco2014/train2014'
        pictures.mkdir(parents=True)
        random = np.random.default_rng(0)
        for number, size in images.items():
            Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8)).save(pictures / f'COCO_{number}.jpg')
        listed = [dict(id=number, file_name=f'COCO_{number}.jpg', height=height, width=width)
                  for number, (height, width) in images.items()]
        annotations = [dict(id=number, image_id=image, segmentation=segmentation, bbox=[0, 0, 1, 1], area=1)
                       for number, (image, _, segmentation, _) in enumerate(refs)]
        entries = [dict(ref_id=number, ann_id=number, image_id=image, split=split, file_name='', sentences=[
            dict(sent=text, raw=text, sent_id=100 * number + place) for place, text in enumerate(sentences)])
            for number, (image, split, _, sentences) in enumerate(refs)]
        (folder / 'instances.json').write_text(json.dumps(dict(images=listed, annotations=annotations)))
        (folder / 'refs(unc).p').write_bytes(pickle.dumps(entries, protocol=2))
        return tmp_path / 'ref_seg'

    return write


@pytest.fixture(scope='session')
def trained(checkout, tmp_path_factory):
    """A config and a checkpoint of it, in which every trained tensor of assets/tiny has moved."""
    from dual_loop.checkpoints.files import Trained, write_plain_parts

    folder = tmp_path_factory.mktemp('trained')
    config = folder / 'config.py'
    config.write_text(CONFIG.replace('{base}', str(checkout / 'assets/tiny')))
    model = MODELS.build(Config.fromfile(config).model)
    generator = torch.Generator().manual_seed(0)
    live = {name: value.detach() + 0.02 * torch.randn(value.shape, generator=generator)
            for name, value in model.trainables().items()}
    checkpoint = folder / 'iter_7.pth'
    checkpoint.mkdir()
    average = {name: (value + live[name]) / 2 for name, value in model.trainables().items()}
    write_plain_parts(checkpoint, Trained(7, live, {name: value.detach() for name, value in average.items()}, 7,
                                          dict(weights=model.base.fingerprint)))
    return config, checkpoint
