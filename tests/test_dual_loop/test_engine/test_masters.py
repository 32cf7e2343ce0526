"""The fp32 value of a trained parameter; DeepSpeed's own are compared in test_resume.py."""

import pytest
import torch

from dual_loop.engine.masters import master_weights


def test_an_fp32_parameter_is_its_own_master():
    parameter = torch.nn.Parameter(torch.randn(3))
    [(name, value)] = master_weights([('w', parameter)])
    assert name == 'w' and value.data_ptr() == parameter.data_ptr() and not value.requires_grad


def test_a_bf16_parameter_without_master_is_refused():
    parameter = torch.nn.Parameter(torch.randn(3, dtype=torch.bfloat16))
    with pytest.raises(RuntimeError, match="'w' is torch.bfloat16 and has no fp32 value: train with --deepspeed"):
        list(master_weights([('w', parameter)]))
