"""The model inside what synchronises its gradients."""

import torch
from mmengine.model import is_model_wrapper


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """The raw model of DDP's or DeepSpeed's wrapper; a model without one itself."""
    return model.module if is_model_wrapper(model) else model
