"""The model of a config with all its sizes and without memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from dual_loop.models import DualLoopModel
from dual_loop.models.dual_loop_model import build_loops
from dual_loop.models.teacher import FrozenTeacher
from llava_sam2.model import VideoLLaVASAMModel
from llava_sam2.paths import resolve
from llava_sam2.portable.generation import Decoded
from llava_sam2.portable.vocabulary import Vocabulary
from llava_sam2.tokenizer import stand_in_tokenizer
from llava_sam2.weights.sources import config_of_source, resolved

_MODE = FakeTensorMode(allow_non_fake_inputs=True)
_NETWORK = ('vision_config', 'llm_config', 'grounding_config', 'mask_selection', 'max_num_tiles', 'template')


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> FakeTensor:
    """A tensor that has a size and no memory."""
    return without_memory(torch.empty(*shape, dtype=dtype, device='meta'))


def without_memory(tensor: torch.Tensor) -> FakeTensor:
    """A tensor of the meta device as one of ``FakeTensorMode``, which autocast knows."""
    return _MODE.fake_tensor_converter.from_meta_and_device(_MODE, tensor, torch.device('cpu'))


def fake_mode() -> FakeTensorMode:
    """Of all these tensors."""
    return _MODE


class EveryWord(FrozenTeacher):
    """In place of a teacher: every description has as many tokens as it may have."""

    def __init__(self, vocabulary: Vocabulary):
        self.word = int(vocabulary.ordinary_ids[len(vocabulary.ordinary_ids) // 2])

    def describe(self, images, image_of_row, regions, max_caption_len, poll=None, short=None) -> list[Decoded]:
        return [Decoded([self.word] * max_caption_len, False) for _ in image_of_row]


def base_settings(base: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Settings of a base model of the same sizes, without weights; and what was put in the place of what is missing.

    Raises:
        FileNotFoundError: neither the folder of weights nor ``network`` says how large the model is.
    """
    settings, notes = {key: value for key, value in base.items() if key != 'type'}, []
    if (pretrained := settings.pop('pretrained', None)) is not None:
        source, stated = resolved(pretrained), settings.get('network')
        place = Path(source.get('base') or source['mllm'])
        if place.exists():
            config = config_of_source(source, stated)
            config.max_num_tiles = (stated or {}).get('max_num_tiles', 1)
            settings['network'] = {key: value for key, value in config.to_dict().items() if key in _NETWORK}
        elif stated is None:
            raise FileNotFoundError(f'{place} does not exist and model.base.network is not set, so nothing says '
                                    'how large the model is: download the weights, or state the sizes in '
                                    'model.base.network')
        else:
            notes.append(f'{place} is not there: sizes are those of model.base.network')
    tokenizer = settings['tokenizer']
    if isinstance(tokenizer, str) and not (resolve(tokenizer) / 'tokenizer_config.json').is_file():
        settings['tokenizer'] = dict(type=stand_in_tokenizer)
        notes.append(f'{tokenizer} has no tokenizer: texts are counted with a stand-in')
    return settings | dict(random_weights=True), notes


def shadow_model(cfg: Config) -> tuple[DualLoopModel, list[str]]:
    """The model of a config on no device, and notes for the user.

    Its layers are not compiled here, see :mod:`.decoder_layers`; its teacher is :class:`EveryWord`.

    Raises:
        ValueError: the config trains no loops.
        FileNotFoundError: see :func:`base_settings`.
    """
    model = cfg.get('model')
    if not isinstance(model, dict) or 'base' not in model:
        raise ValueError(f'{cfg.filename} trains no loops (its model has no base): only runs with loops are estimated')
    settings = {key: value for key, value in model.items() if key not in ('type', 'base', 'teacher')}
    build_loops(settings)  # its refusals first
    base, notes = base_settings(cfg.model.base)
    compiled, budget = base.pop('compile', False), base.pop('memory_budget', 1.0)
    with torch.device('meta'):
        student = VideoLLaVASAMModel(**base)
    for module in student.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(without_memory(parameter.detach()), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = without_memory(buffer)
    student._trained = tuple(student.trainables().values())[:1]
    student.compiled, student.memory_budget = compiled, budget
    model = DualLoopModel(base=student, teacher='frozen', **settings)
    model.teacher = EveryWord(student.vocabulary)
    return model.train(), notes
