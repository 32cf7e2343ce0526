"""The model card of an exported model: what it is, what it was trained on and under which terms."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from huggingface_hub import ModelCardData

from dual_loop import __version__
from dual_loop.datasets.terms import SYNTHETIC, data_terms
from llava_sam2.download import hub_name
from llava_sam2.paths import CHECKOUT, resolve

_LIBRARIES = ('torch', 'transformers', 'peft', 'xtuner', 'mmengine')

_USE = '''## Use

```python
from PIL import Image
from transformers import AutoModel, AutoTokenizer

folder = '.'  # this folder
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder)
result = model.predict_forward(image=Image.open('picture.jpg').convert('RGB'), tokenizer=tokenizer,
                               text='<image>Please segment the red circle in this image.')
result['prediction'], result['prediction_masks']  # text; per [SEG] a bool array (frames, height, width)
```

`mask_prompts=[mask]` with bool or 0/1 arrays (height, width) asks about regions. Of several frames (`video=[...]`) the
first five go to the language model, and the mask is decoded in every frame independently, as in training: there is no
memory between frames.
'''


def model_card(cfg: Mapping, base: str, fingerprint: str, parts: str, checkpoint: str, step: int, averages: bool,
               metrics: Mapping[str, Any] | None = None, source: str | Mapping | None = None) -> str:
    """Text of README.md in Markdown, with the header that the hub reads.

    Args:
        cfg: the training config.
        base: the weights that training started from.
        fingerprint: of these weights.
        parts: which trained parts the model has.
        checkpoint: file name of the trained weights.
        step: optimizer steps.
        averages: the weights are the EMA's.
        metrics: name -> value, if any were given.
        source: of the base weights as a config names it; what of it is a released model stands in the header.
    """
    terms = sorted(set(data_terms(cfg)))
    lines = [
        '---', header(source, terms), '---', '',
        '# A grounded vision-language model trained by dual-loop', '',
        f'- base: {base} (sha256 {fingerprint})',
        f'- trained parts: {parts}; {"averages (EMA)" if averages else "live weights"} of {checkpoint}, '
        f'after {step} steps',
        f'- versions: dual-loop {__version__}, ' + ', '.join(f'{name} {version(name)}' for name in _LIBRARIES),
        '', '## Training data and its terms', '',
        'The weights inherit the terms of the base model and of this data; mind those that exclude commercial use.', '',
        *[f'- {line}' for line in terms], '',
    ]
    if metrics:
        lines += ['## Results', '', '| metric | value |', '|---|---|',
                  *[f'| {name} | {value} |' for name, value in metrics.items()], '']
    return '\n'.join(lines) + '\n' + _USE


def header(source: str | Mapping | None, terms: Sequence[str]) -> str:
    """The card's metadata in YAML: https://huggingface.co/docs/hub/model-cards.

    A licence of its own has only what was made here alone, from random weights or ``assets/tiny`` and drawn scenes.
    """
    paths = [source] if isinstance(source, str) else list((source or {}).values())
    bases = [name for path in paths if isinstance(path, str) and (name := hub_name(path))]
    own = all(isinstance(path, str) and resolve(path) == CHECKOUT / 'assets/tiny' for path in paths) \
        and set(terms) <= {SYNTHETIC}
    data = ModelCardData(
        language='en', library_name='transformers', pipeline_tag='image-text-to-text', base_model=bases or None,
        tags=['custom_code', 'dual-loop', 'referring-segmentation', 'region-captioning', 'sa2va'],
        license='apache-2.0' if own else 'other', license_name=None if own else 'terms-of-base-and-data',
        license_link=None if own else 'README.md')
    return data.to_yaml()
