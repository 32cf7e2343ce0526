"""The model card of an exported model: what it is, what it was trained on and under which terms."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from dual_loop import __version__
from dual_loop.datasets.terms import data_terms

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
               metrics: Mapping[str, Any] | None = None) -> str:
    """Text of README.md in Markdown.

    Args:
        cfg: the training config.
        base: the weights that training started from.
        fingerprint: of these weights.
        parts: which trained parts the model has.
        checkpoint: file name of the trained weights.
        step: optimizer steps.
        averages: the weights are the EMA's.
        metrics: name -> value, if any were given.
    """
    terms = sorted(set(data_terms(cfg)))
    lines = [
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
