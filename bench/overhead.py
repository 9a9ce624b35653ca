"""What a call costs when there is next to nothing to compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

import snn_kernels as sk

from .graphs import SUFFIX, graphs
from .runner import Comparison, Setting

__all__ = ["overhead"]


def overhead(setting: Setting) -> Iterator[Comparison]:
    """Every op at 8 steps of a few neurons, against one elementwise operation of PyTorch on the same tensor."""
    for neurons in setting.choose((8,), (8, 64), (1024,)):
        calls = _calls(neurons, setting.device)
        wanted = {name: _plain(call(backend="reference")) for name, call in calls.items()}
        current = torch.rand(8, 1, neurons, device=setting.device)

        def accept(name: str, output: Any, wanted: dict[str, Any] = wanted) -> str:
            name = name.removesuffix(SUFFIX)
            if name not in wanted:
                return "not compared"
            # Sums over a vector or of a product come in another order: rounding of sums of at most 1,024 terms of 1.
            torch.testing.assert_close(_plain(output), wanted[name], atol=1e-3, rtol=1e-3)
            return "the reference's to 1e-3"

        variants = {"torch.add": lambda current=current: current + current, **calls}
        variants |= graphs(variants, setting.device)
        facts = {"N": neurons}
        yield Comparison(
            f"T=8, N={neurons}", variants, "torch.add", accept, shape=(1, neurons), timesteps=8, facts=facts
        )


def _plain(output: Any) -> torch.Tensor:
    output = output[0] if isinstance(output, tuple) else output
    return output.unpack() if isinstance(output, sk.SpikeTrain) else output


def _calls(neurons: int, device: str) -> dict[str, Callable[..., Any]]:
    generator = torch.Generator().manual_seed(0)
    current = torch.rand(8, 1, neurons, generator=generator).to(device)
    eta = sk.schedules.Exponential().table(8).to(device)
    weight = torch.randn(neurons, neurons, generator=generator).to(device)
    train = sk.pack((current > 0.5).float())

    return {
        "signgd": lambda backend=None: sk.signgd(current, eta, "relu", backend=backend),
        "signgd_binary": lambda backend=None: sk.signgd_binary(current, current, eta, "maximum", backend=backend),
        "signgd_vector": lambda backend=None: sk.signgd_vector(current, eta, "layer_norm", backend=backend),
        "subgradient": lambda backend=None: sk.subgradient(current, eta, backend=backend),
        "integrate_and_fire": lambda backend=None: sk.integrate_and_fire(current, backend=backend),
        "leaky_integrate_and_fire": lambda backend=None: sk.leaky_integrate_and_fire(current, 2.0, backend=backend),
        "parallel_spikes": lambda backend=None: sk.parallel_spikes(current, backend=backend),
        "pack": lambda backend=None: sk.pack(current, backend=backend),
        "unpack": lambda backend=None: sk.unpack(train, backend=backend),
        "spike_linear": lambda backend=None: sk.spike_linear(train, weight, backend=backend),
        "spike_linear_signgd": lambda backend=None: sk.spike_linear_signgd(
            train, weight, None, eta, "identity", backend=backend
        ),
    }
