"""One tiny model twice: with memory, and without."""

import pytest
from mmengine.config import Config

from dual_loop.estimate.shadow import shadow_model
from dual_loop.models import DualLoopModel


@pytest.fixture
def deep_sizes(network_sizes):
    """Five decoder layers, of which three stand in."""
    return network_sizes | dict(llm_config=network_sizes['llm_config'] | dict(num_hidden_layers=5))


@pytest.fixture
def pair(deep_sizes, build_base):
    """Build the model and its shadow from the same settings."""
    def build(loops=None, **base):
        settings = dict(max_caption_len=12, topk=8, answer_weight=1.0) if loops is None else dict(loops=loops)
        real = DualLoopModel(base=build_base(network=deep_sizes, **base), **settings)
        options = dict(tokenizer='assets/tiny', network=deep_sizes, random_weights=True, lora=dict(r=2, alpha=4),
                       loss_mask=dict(num_points=64)) | base
        shadow, _ = shadow_model(Config(dict(model=dict(base=options, **settings))))
        return real.train(), shadow
    return build
