"""A compiled model reads what a plain one reads; what its options cannot be is refused."""

import pytest
import torch
from torch._inductor.runtime.cache_dir_utils import cache_dir

from llava_sam2.compiled_layers import keep_compiled


@pytest.mark.parametrize('options', [dict(memory_budget=0.3), dict(compile=True, memory_budget=1.5),
                                     dict(compile=True, checkpointing=True, memory_budget=0.5)])
def test_a_budget_without_what_it_needs_is_refused(build_base, options):
    with pytest.raises(ValueError, match='memory_budget'):
        build_base(**options)


@pytest.mark.full
def test_losses_and_gradients_are_those_of_the_plain_model(build_base):
    """Without dropout, which inductor draws in its own order. Takes a minute to compile."""
    results = []
    for options in (dict(), dict(compile=True), dict(compile=True, memory_budget=0.3)):
        torch._dynamo.reset()
        base = build_base(**options).train()
        images = base.encode(torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(0)),
                             torch.zeros(1, 3, 128, 128, dtype=torch.uint8))
        rows = [base.text_rows.description(0, torch.ones(4, 4, dtype=torch.bool), 'red ' * n) for n in (1, 5)]
        batch, states = base.read_rows(rows, images)
        loss = base.token_loss(batch, states).sum()
        parameters = [p for name, p in base.trainables().items() if '.lora_' in name]
        results.append((loss.detach(), torch.autograd.grad(loss, parameters)))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-4, atol=1e-6)


def test_the_place_of_what_is_compiled(monkeypatch, tmp_path):
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', '')  # for it to be as before in the end
    monkeypatch.delenv('TORCHINDUCTOR_CACHE_DIR')
    cache_dir()  # sets torch's own default, as an import may have done
    assert keep_compiled(tmp_path / 'run') == str(tmp_path / 'run')
    assert cache_dir() == str(tmp_path / 'run')
    assert keep_compiled(tmp_path / 'other') == str(tmp_path / 'run')  # what the user has set stays
