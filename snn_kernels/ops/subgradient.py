"""The subgradient neuron over many time-steps."""

from __future__ import annotations

from torch import Tensor

from ..backends import choose
from ..checks import checked_currents, checked_eta, checked_field
from ..spike_train import SpikeTrain
from .neuron import run_neuron
from .neuron.reference import Operands, State
from .neuron.state import NeuronState, checked_gradients, checked_momentum, checked_state

__all__ = ["subgradient"]


def subgradient(
    current: Tensor,
    eta: Tensor,
    *,
    bias: Tensor | float = 0.0,
    scale: Tensor | float = 1.0,
    v0: Tensor | float = 0.0,
    momentum: float = 0.0,
    nesterov: bool = False,
    state: NeuronState | None = None,
    backend: str | None = None,
) -> tuple[SpikeTrain, NeuronState]:
    """Subgradient neurons (Oh & Lee, ICML 2024): the output estimate follows ``clip(x, 0, scale)``.

    The neuron minimises ``relu(x - y) + y**2 / 2`` over its output ``y`` by the subgradient method (stated for
    ``scale = 1``). For ``t = 0 .. T-1``, elementwise, every operation rounded once::

        x <- x - eta[t] * ((x - bias) - (current[t] - bias))
        s[t] = 1 if x > v else 0
        v <- v - eta[t] * (v - scale * s[t])

    With ``eta[t] = 1 / (t + 1)`` this is the integrate-and-fire neuron with rate coding, with a constant ``1 / tau``
    the leaky one with exponential averages: see :func:`snn_kernels.integrate_and_fire`.

    Args:
        current: ``[T, *shape]`` in float32, float16 or bfloat16, any memory format.
        eta: ``[T]`` float32 step sizes; the paper's runs use ``schedules.Inverse(1.0, start=2)``.
        bias: the current with no feeding neuron firing, where ``x`` starts.
        scale: what a spike is worth downstream.
        v0: the estimate before the first step. ``bias``, ``scale`` and ``v0`` broadcast to ``shape``.
        momentum, nesterov: of both updates, as in :func:`snn_kernels.signgd`.
        state: continues an earlier call in place of ``bias`` (as the start of ``x``) and ``v0``.
        backend: ``None`` for the fastest here, or a name that runs or raises.

    Returns:
        The spikes, packed, and the state after the last step (float32).

    Raises:
        TypeError, ValueError: an argument of a dtype, shape or device that does not fit; it is named.
    """
    checked_currents((current,), ("current",))
    checked_eta(eta, len(current), current.device)
    filter = checked_momentum(momentum, nesterov)
    checked_state(state, filter)
    shape, device = current.shape[1:], current.device
    baseline = checked_field("bias", bias, shape, device)
    x = baseline if state is None else checked_field("state.x", state.x, shape, device)
    v = checked_field("v0" if state is None else "state.v", v0 if state is None else state.v, shape, device)
    m = checked_gradients(state, filter, 2, shape, device)
    operands = Operands([baseline], checked_field("scale", scale, shape, device))
    bytes, after = run_neuron(
        [current], eta, "subgradient", operands, State((x,), v, m), filter, choose(backend, device)
    )
    return SpikeTrain(bytes, len(current)), NeuronState(after.x[0], after.v, after.m)
