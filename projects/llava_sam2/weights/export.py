"""Writing a trained network as a folder that any process can load, without this project."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from transformers import GenerationConfig, PreTrainedTokenizerBase

from ..paths import writing
from ..portable.chat import MAX_NEW_TOKENS, Sa2VAChatModel, write_settings
from ..portable.network import Sa2VANetwork
from ..portable.released import Planned, check_shapes, plan_release, write_tensors
from ..portable.vocabulary import Vocabulary
from ..progress import Progress
from .token_rows import trained_rows


def write_release(
    network: Sa2VANetwork,
    folder: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    dtype: torch.dtype | None = None,
    carried: Mapping[str, torch.Tensor] | None = None,
    generation: Mapping | None = None,
    card: str = '',
    max_shard_size: int | str = '5GB',
) -> None:
    """Write a network in the released layout: weights, settings, tokenizer, modelling files and model card.

    The folder appears whole or not at all. LoRA is merged and one tensor written at a time, so this takes no memory to
    speak of beside the network, which stays as it is.

    Args:
        network: as trained, with or without LoRA and token rows that are trained alone.
        folder: must not exist.
        tokenizer: of the network.
        dtype: of the written weights; None keeps each one's own. Buffers are float32.
        carried: SAM 2's video memory by released name, written as it is; by default what the network was loaded with.
        generation: fields of generation_config.json, over greedy decoding of at most 2 048 tokens.
        card: text of README.md; empty writes none.
        max_shard_size: bytes, or such as ``'5GB'``.

    Raises:
        FileExistsError: the folder exists.
        CannotWrite: the disk takes no more, or the place cannot be written.
        ValueError: the tokenizer is not the network's, or the network is not what its config says.
    """
    folder = Path(folder).absolute()
    if folder.exists():
        raise FileExistsError(f'{folder} exists; remove it or choose another folder')
    Vocabulary(tokenizer, network.config.llm_config.vocab_size, network.config.chat_template)  # checks the tokenizer
    plan = release_of(network, dtype, carried)
    settings = dict(max_new_tokens=MAX_NEW_TOKENS, do_sample=False, eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id) | dict(generation or {})
    with writing('the model', folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f'.{folder.name}.') as partial:
            aside = Path(partial) / folder.name
            aside.mkdir()
            with Progress(sum(each.num_bytes for each in plan.values()), f'writing {folder}', 'B') as progress:
                write_tensors(aside, plan, max_shard_size, progress.update)
            write_settings(aside, network.config, dtype or _dtype_of(plan), GenerationConfig(**settings))
            tokenizer.save_pretrained(aside)
            if card:
                (aside / 'README.md').write_text(card, encoding='utf-8')
            aside.rename(folder)


def release_of(
    network: Sa2VANetwork, dtype: torch.dtype | None = None, carried: Mapping[str, torch.Tensor] | None = None
) -> dict[str, Planned]:
    """Released name to tensor-to-be of a network, LoRA and trained token rows merged in fp32.

    Raises:
        ValueError: a tensor would be missing, not expected or of another shape when the folder is loaded.
    """
    carried = getattr(network, 'carried', {}) if carried is None else carried
    plan = plan_release(network, dtype, carried, _merging(network))
    with torch.device('meta'):
        fresh = plan_release(Sa2VAChatModel(network.config), carried=carried)
    expected, found = ({name: planned.shape for name, planned in each.items()} for each in (fresh, plan))
    check_shapes('the network', expected, found)
    return plan


def _merging(network: Sa2VANetwork) -> Callable[[str], torch.Tensor]:
    state = network.state_dict()

    def merged(name: str) -> torch.Tensor:
        path = name.removesuffix('.base_layer.weight')
        if path == name:
            return state[name]
        module = network.get_submodule(path)
        if isinstance(module, LoraLayer) and not module.merged:
            return state[name].float() + sum(
                module.get_delta_weight(adapter).float() for adapter in module.active_adapters
            )
        rows = trained_rows(module)
        return state[name] if rows is None else rows

    return merged


def _dtype_of(plan: Mapping[str, Planned]) -> torch.dtype:
    """The type of most numbers."""
    sizes: dict[torch.dtype, int] = {}
    for planned in plan.values():
        sizes[planned.dtype] = sizes.get(planned.dtype, 0) + planned.num_bytes
    return max(sizes, key=sizes.get)
