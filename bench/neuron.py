"""The signGD neuron: all steps of a population in one call, from dense currents."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import snn_kernels as sk
from snn_kernels.ops.neuron.reference import Momentum, Operands, State, neuron_loop

from .runner import Comparison

__all__ = ["functions", "growth", "neuron"]


def _loop(currents, eta, activation, parameters):
    zero, one = torch.zeros(()), torch.ones(())
    operands = Operands([one] * len(currents), one, parameters)
    return neuron_loop(currents, eta, activation, operands, State((zero,) * len(currents), zero), Momentum())


def _dense_loop(currents, eta, function):
    """The loop in the form that ``torch.compile`` makes most of: spikes as floats, stacked at the end."""
    x, v, spikes = [torch.zeros_like(current[0], dtype=torch.float32) for current in currents], 0.0, []
    for t in range(len(eta)):
        x = [xi - eta[t] * (2 * current[t].float() - 1.0) for xi, current in zip(x, currents)]
        spike = (v >= function(*x)).float()
        v = v - eta[t] * (2 * spike - 1)
        spikes.append(spike)
    return torch.stack(spikes), x, v


def _case(activation: str, timesteps: int, neurons: int, dtype: torch.dtype, compiled: bool) -> Comparison:
    row = sk.ACTIVATIONS[activation]
    generator = torch.Generator().manual_seed(0)
    currents = [
        torch.rand(timesteps, neurons, generator=generator).to(dtype=dtype) for _ in range(row.arity)
    ]  # fmt: skip
    eta = sk.schedules.Exponential().table(timesteps)
    parameters = [torch.tensor(default) for _, default in row.parameters]
    call = sk.signgd if row.arity == 1 else sk.signgd_binary
    function = lambda *x: row.function(*x, *parameters)  # noqa: E731
    wanted, _ = _loop(currents, eta, activation, parameters)
    copy = torch.empty_like(currents[0])

    def accept(name: str, output) -> None:
        if name == "copy_":
            return
        spikes = output[0].unpack(torch.bool) if isinstance(output[0], sk.SpikeTrain) else output[0]
        wrong = (spikes != wanted).float().mean().item()
        # The transcendental functions may decide otherwise where estimate and target meet within a few ulps.
        limit = 0.0 if row.ulps == 0 else 1e-4
        if wrong > limit:
            raise AssertionError(f"{wrong:.2%} of the spikes differ from the reference")

    variants = {
        "eager loop": lambda: _loop(currents, eta, activation, parameters),
        "snn_kernels cpu": lambda: call(*currents, eta, activation, backend="cpu"),
    }
    if compiled:
        loop = torch.compile(_dense_loop)
        variants["compiled loop"] = lambda: loop(currents, eta, function)
        variants["copy_"] = lambda: copy.copy_(currents[0])
    facts = {"T": timesteps, "N": neurons, "bytes": sum(current.nbytes for current in currents)}
    name = f"{activation}, T={timesteps}, N={neurons}, {str(dtype).removeprefix('torch.')}"
    return Comparison(name, variants, "compiled loop" if compiled else "eager loop", accept, facts)


def neuron() -> Iterator[Comparison]:
    """ReLU at the size of the design document, with every baseline."""
    for dtype in (torch.float32, torch.bfloat16):
        yield _case("relu", 32, 2**20, dtype, compiled=True)


def functions() -> Iterator[Comparison]:
    """Every function, against the eager loop."""
    for activation in sk.ACTIVATIONS:
        yield _case(activation, 32, 2**18, torch.float32, compiled=False)


def growth() -> Iterator[Comparison]:
    """Cost against T and against N."""
    for timesteps in (8, 16, 32, 64, 128, 256, 512, 800):
        yield _case("relu", timesteps, 2**14, torch.float32, compiled=False)
    for exponent in (12, 14, 16, 18, 19):
        yield _case("relu", 32, 2**exponent, torch.float32, compiled=False)
