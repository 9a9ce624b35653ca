"""Staggered onset, single steps and early exit."""

from __future__ import annotations

import pytest
import torch

from architectures import SqueezeExcite, ViT
from models import Residual, images, pooled_cnn, randomise_batch_norm, relu_cnn
from snn_convert import convert
from snn_kernels.schedules import Exponential
from staggered_oracle import staggered_outputs

NETWORKS = {
    "relu_cnn": relu_cnn,
    "residual": Residual,
    "vit": ViT,
    "vit, written out": lambda: ViT(written_out=True),
    "squeeze and excite": SqueezeExcite,
    "pool": pooled_cnn,
}
WINDOWS = [(16, 1), (16, 2), (16, 5), (9, 8), (12, 12), (8, 11)]  # T and the onset delay


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors this small run slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def distance(actual, expected):
    assert torch.isfinite(actual).all()
    return float((actual - expected).norm() / expected.norm())


def network(name, **arguments):
    torch.manual_seed(0)
    model = randomise_batch_norm(NETWORKS[name]())
    return model, convert(model, [images(24, seed=2)], **arguments)


@pytest.mark.parametrize(("timesteps", "delay"), WINDOWS)
@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_the_value_domain_on_staggered_windows(name, timesteps, delay):
    model, snn = network(name, timesteps=timesteps, onset_delay=delay, schedule=Exponential(0.5, 0.7))
    x = images()
    steps = sorted({1, timesteps, snn.latency // 2, snn.latency - 1, snn.latency})
    expected, latency = staggered_outputs(model, x, snn, steps, delay, normalisation="vector")
    assert snn.latency == latency
    for output, wanted in zip(snn.outputs_at(x, steps=steps), expected):
        print(name, timesteps, delay, distance(output, wanted))
        assert distance(output, wanted) < 1e-3
