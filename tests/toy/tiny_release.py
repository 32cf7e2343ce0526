"""Weights under their released names as the export writes them, without what else makes a folder."""

from pathlib import Path

import torch

from llava_sam2.portable.network import Sa2VANetwork
from llava_sam2.portable.released import write_tensors
from llava_sam2.weights.export import release_of


def released_state(network: Sa2VANetwork) -> dict[str, torch.Tensor]:
    return {name: planned.tensor() for name, planned in release_of(network).items()}


def save_weights(network: Sa2VANetwork, folder: str | Path) -> None:
    """Only config.json and the weights, which is what training starts from."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    network.config.save_pretrained(folder)
    write_tensors(Path(folder), release_of(network))
