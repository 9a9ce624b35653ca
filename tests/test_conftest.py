"""The poison itself is tested: without it the other tests would prove less than they claim."""

import torch

from snn_kernels.layout import empty_steps


def test_fresh_memory_is_poisoned():
    assert torch.empty(3).isnan().all()
    cpu = torch.device("cpu")
    assert empty_steps(2, (3, 4), (1, 0), torch.float32, cpu).isnan().all()
    assert (empty_steps(2, (3, 4), (1, 0), torch.uint8, cpu) == 0xFF).all()
