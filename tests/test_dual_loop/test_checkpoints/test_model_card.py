"""The header of a model card, as the hub's own library reads it."""

import pytest
from huggingface_hub import ModelCard, ModelCardData
from transformers.pipelines import SUPPORTED_TASKS

from dual_loop.checkpoints.model_card import model_card

REAL = dict(train_dataloader=dict(dataset=dict(type='RefCOCODataset')))
DRAWN = dict(train_dataloader=dict(dataset=dict(type='RefCOCODataset', prepare=dict())))
INHERITED = dict(license='other', license_name='terms-of-base-and-data', license_link='README.md')


def read(cfg, source) -> ModelCardData:
    text = model_card(cfg, str(source), 'f', 'full', 'iter_1.pth', 1, False, source=source)
    assert text.startswith('---\n') and '\n---\n\n# A grounded' in text
    return ModelCard(text).data


@pytest.mark.parametrize('cfg, source, bases, licence', [
    (REAL, 'pretrained/Sa2VA-4B', ['ByteDance/Sa2VA-4B'], INHERITED),
    (DRAWN, 'pretrained/Sa2VA-4B', ['ByteDance/Sa2VA-4B'], INHERITED),
    (REAL, dict(mllm='pretrained/InternVL2_5-4B', sam2='pretrained/sam2_hiera_large.pt'),
     ['OpenGVLab/InternVL2_5-4B', 'facebook/sam2-hiera-large'], INHERITED),
    (REAL, 'assets/tiny', None, INHERITED),
    (DRAWN, 'work_dirs/mine', None, INHERITED),
    (DRAWN, 'assets/tiny', None, dict(license='apache-2.0')),
    (DRAWN, None, None, dict(license='apache-2.0')),
])
def test_the_header(cfg, source, bases, licence):
    data = read(cfg, source).to_dict()
    assert data.pop('base_model', None) == bases
    assert {key: data.pop(key) for key in list(data) if key.startswith('license')} == licence
    tags = data.pop('tags')
    assert data == dict(language='en', library_name='transformers', pipeline_tag='image-text-to-text')
    assert 'custom_code' in tags and len(set(tags)) == len(tags)


def test_the_task_is_one_that_its_library_has():
    assert read(DRAWN, None).pipeline_tag in SUPPORTED_TASKS
