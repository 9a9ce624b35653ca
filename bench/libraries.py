"""Neurons of other libraries on the currents that the kernels get, where they can be imported."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from snn_kernels.schedules import Exponential

from .runner import Missing

__all__ = ["flexsn", "others"]


def others(
    current: Tensor, tau: float | None, threshold: float, hard: bool
) -> Iterator[tuple[str, Callable | Missing]]:
    """Name and call of each library's neuron with this reset; a call returns spikes as floats ``[T, *shape]``.

    Args:
        current: ``[T, *shape]``, below the threshold of a neuron without a leak.
        tau: the leak's time constant in steps; ``None`` for none.
        hard: reset to 0 instead of by subtraction.
    """
    makers = {"SpikingJelly": _spikingjelly, "snnTorch": _snntorch, "Norse": _norse}
    for name, make in makers.items():
        call = _made(make, current, tau, threshold, hard)
        if call is not None:
            yield name, call


def flexsn(current: Tensor, schedule: Exponential, function: Callable[[Tensor], Tensor]) -> Callable | Missing:
    """The signGD step as the core of SpikingJelly's FlexSN; a call returns spikes as floats ``[T, *shape]``."""
    return _made(_flexsn, current, schedule, function)


def _made(make: Callable[..., Callable | None], *arguments: Any) -> Callable | Missing | None:
    try:
        return make(*arguments)
    except Exception as error:  # of any kind: these libraries' own dependencies are not ours
        return Missing(f"cannot be used: {type(error).__name__}: {error}".splitlines()[0])


def _flexsn(current, schedule, function):
    """Its cores take tensors of the neurons' shape and dtype only: the step size is a state that decays."""
    neuron = importlib.import_module("spikingjelly.activation_based.neuron")
    gamma = schedule.gamma

    def core(current, x, v, eta):
        x = x - eta * (2.0 * current - 1.0)
        spike = (v >= function(x)).to(x.dtype)
        return spike, x, v - eta * (2.0 * spike - 1.0), eta * gamma

    node = neuron.FlexSN(core, num_states=3, step_mode="m").to(current.device).eval()
    zero = torch.zeros_like(current[0], dtype=torch.float32)
    first = torch.full_like(zero, schedule.lr)

    @torch.no_grad()
    def run() -> Tensor:
        node.states = (zero, zero, first)
        return node(current.float())

    return run


def _spikingjelly(current, tau, threshold, hard):
    neuron = importlib.import_module("spikingjelly.activation_based.neuron")
    options = {"v_threshold": threshold, "v_reset": 0.0 if hard else None, "step_mode": "m"}
    node = (neuron.IFNode(**options) if tau is None else neuron.LIFNode(tau=tau, **options)).to(current.device).eval()

    @torch.no_grad()
    def run() -> Tensor:
        node.reset()
        return node(current)

    return run


def _snntorch(current, tau, threshold, hard):
    """``v <- beta v + input``: a leaky input is multiplied by the leak first, which is counted."""
    snntorch = importlib.import_module("snntorch")
    leak, mechanism = 0.0 if tau is None else 1 / tau, "zero" if hard else "subtract"
    node = snntorch.Leaky(1 - leak, threshold, reset_mechanism=mechanism, reset_delay=False).to(current.device)

    @torch.no_grad()
    def run() -> Tensor:
        membrane, spikes = torch.zeros_like(current[0]), []
        for now in current if tau is None else current * leak:
            spike, membrane = node(now, membrane)
            spikes.append(spike)
        return torch.stack(spikes)

    return run


def _norse(current, tau, threshold, hard):
    """Its neurons reset to a value only; its synapses are made to forget within a step."""
    if not hard:
        return None
    level, zero = torch.tensor(threshold, device=current.device), torch.zeros((), device=current.device)
    if tau is None:
        iaf = importlib.import_module("norse.torch.functional.iaf")
        step, start = iaf.iaf_feed_forward_step, iaf.IAFFeedForwardState(zero)
        options = {"p": iaf.IAFParameters(level, zero)}
    else:
        lif = importlib.import_module("norse.torch.functional.lif")
        step, start = lif.lif_feed_forward_step, lif.LIFFeedForwardState(zero, zero)
        one = torch.ones((), device=current.device)
        parameters = {"tau_syn_inv": one, "tau_mem_inv": one / tau, "v_leak": zero, "v_th": level, "v_reset": zero}
        options = {"p": lif.LIFParameters(**parameters), "dt": 1.0}

    @torch.no_grad()
    def run() -> Tensor:
        state, spikes = start, []
        for now in current:
            spike, state = step(now, state, **options)
            spikes.append(spike)
        return torch.stack(spikes)

    return run
