"""The signGD neuron over many time-steps."""

from __future__ import annotations

from torch import Tensor

from ..activations import ActivationSpec, resolve
from ..backends import choose
from ..checks import checked_currents, checked_eta, checked_field, kind
from ..spike_train import SpikeTrain
from .currents import checked_inputs
from .neuron import run_neuron
from .neuron.reference import Momentum, Operands, State
from .neuron.state import NeuronState, checked_gradients, checked_momentum, checked_state

__all__ = ["signgd", "signgd_binary", "signgd_target"]


def signgd(
    current: Tensor | SpikeTrain,
    eta: Tensor,
    activation: ActivationSpec,
    *,
    amplitude: Tensor | float | None = None,
    offset: Tensor | float = 1.0,
    bias: Tensor | float = 0.0,
    scale: Tensor | float = 1.0,
    v0: Tensor | float = 0.0,
    momentum: float = 0.0,
    nesterov: bool = False,
    state: NeuronState | None = None,
    backend: str | None = None,
) -> tuple[SpikeTrain, NeuronState]:
    """Sign gradient descent neurons that chase ``h(x)`` (Oh & Lee, ICML 2024), all time-steps in one call.

    For ``t = 0 .. T-1``, elementwise, every operation rounded once::

        x <- x - eta[t] * (2 * current[t] - offset)
        s[t] = 1 if v >= h(x) else 0
        v <- v - eta[t] * scale * (2 * s[t] - 1)

    With ``momentum`` the gradients ``g`` in both updates (``2 * current - offset`` and ``2 * s - 1``) are replaced by
    ``m <- momentum * m + g`` (heavy ball), or with ``nesterov`` by ``g + momentum * m`` of the new ``m``; ``m`` starts
    at 0. The filter is linear, so a receiver decodes a sender that has the same momentum.

    Args:
        current: ``[T, *shape]`` in float32, float16 or bfloat16, any memory format; or a train, which is not unpacked.
        eta: ``[T]`` float32 step sizes; see :mod:`snn_kernels.schedules`.
        amplitude: what a spike of the train is worth, 1 by default, a number or what broadcasts to ``shape``.
        activation: the name of ``h`` in :data:`snn_kernels.ACTIVATIONS`, or a tuple of the name and its parameters,
            each a number or a tensor that broadcasts to ``shape``: ``("leaky_relu", 0.2)``.
        offset: the current with every feeding neuron firing plus the current with none firing.
        bias: the decoded input before the first step.
        scale: what a spike is worth downstream, the neuron's output scale ``c > 0``.
        v0: the estimate before the first step. ``offset``, ``bias``, ``scale`` and ``v0`` broadcast to ``shape``;
            scalars, one value a channel and one a neuron are not expanded in memory.
        momentum: of both updates, in [0, 1); ``nesterov`` chooses its second form, as in ``torch.optim.SGD``.
        state: continues an earlier call in place of ``bias`` and ``v0``, with ``eta`` from that step on. The same
            bits come out as from one call.
        backend: ``None`` for the fastest here, or a name that runs or raises.

    Returns:
        The spikes, packed, and the state after the last step (float32, in the memory format of ``current``). A spike
        is a step function: nothing that is returned carries a gradient.

    Raises:
        TypeError, ValueError: an argument of a dtype, shape or device that does not fit; it is named.
    """
    fields = (amplitude,), (offset,), (bias,)
    return _checked_call((current,), eta, activation, *fields, scale, v0, momentum, nesterov, state, backend)


def signgd_binary(
    current_a: Tensor | SpikeTrain,
    current_b: Tensor | SpikeTrain,
    eta: Tensor,
    function: ActivationSpec,
    *,
    amplitude: tuple[Tensor | float | None, Tensor | float | None] = (None, None),
    offset: tuple[Tensor | float, Tensor | float] = (1.0, 1.0),
    bias: tuple[Tensor | float, Tensor | float] = (0.0, 0.0),
    scale: Tensor | float = 1.0,
    v0: Tensor | float = 0.0,
    momentum: float = 0.0,
    nesterov: bool = False,
    state: NeuronState | None = None,
    backend: str | None = None,
) -> tuple[SpikeTrain, NeuronState]:
    """Neurons that chase a function of two decoded inputs, ``h(x_a, x_b)``: see :func:`signgd`.

    ``amplitude``, ``offset`` and ``bias`` are pairs, one value for each input; both currents have one shape and dtype,
    or are trains of one shape.
    """
    fields = amplitude, offset, bias
    return _checked_call((current_a, current_b), eta, function, *fields, scale, v0, momentum, nesterov, state, backend)


def _checked_call(currents, eta, activation, amplitude, offset, bias, scale, v0, momentum, nesterov, state, backend):
    names = ("current",) if len(currents) == 1 else ("current_a", "current_b")
    row, parameters = resolve(activation, len(currents), "activation" if len(currents) == 1 else "function")
    if len(currents) == 2:
        _check_pair("amplitude", amplitude)
    values, timesteps, worths = checked_inputs(names, currents, amplitude)
    shape, device = values[0].shape[1:], values[0].device
    checked_eta(eta, timesteps, device)
    x_name, v_name = ("bias", "v0") if state is None else ("state.x", "state.v")
    filter = checked_momentum(momentum, nesterov)
    checked_state(state, filter)
    if state is not None:
        v0 = state.v
        bias = state.x if len(currents) == 2 else (state.x,)
    if len(currents) == 2:
        _check_pair("offset", offset)
        _check_pair(x_name, bias)

    def field(name, value):
        return checked_field(name, value, shape, device)

    operands = Operands(
        [field("offset", value) for value in offset],
        field("scale", scale),
        [field(f"{row.name}'s {name}", value) for (name, _), value in zip(row.parameters, parameters)],
    )
    m = checked_gradients(state, filter, len(currents) + 1, shape, device)
    initial = State(tuple(field(x_name, value) for value in bias), field(v_name, v0), m)
    bytes, after = run_neuron(values, eta, row.name, operands, initial, filter, choose(backend, device), worths)
    x = after.x if len(currents) == 2 else after.x[0]
    return SpikeTrain(bytes, timesteps), NeuronState(x, after.v, after.m)


def _check_pair(name, value):
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name}: expected a pair, one value for each input, got {kind(value)}")


def signgd_target(
    target: Tensor,
    eta: Tensor,
    *,
    scale: Tensor | float = 1.0,
    v0: Tensor | float = 0.0,
    state: NeuronState | None = None,
    backend: str | None = None,
) -> tuple[SpikeTrain, NeuronState]:
    """signGD neurons whose targets are given, where ``h`` is not a function of the neuron's own decoded inputs alone.

    For ``t = 0 .. T-1``, elementwise, every operation rounded once::

        s[t] = 1 if v >= target[t] else 0
        v <- v - eta[t] * scale * (2 * s[t] - 1)

    With ``target[t] = h(x)`` of the inputs as they are decoded after step ``t``, these are the neurons of
    :func:`signgd`, of any ``h``: a product of two activations ``x @ y``, say.

    Args:
        target: ``[T, *shape]`` in float32, float16 or bfloat16, any memory format.
        eta: ``[T]`` float32 step sizes.
        scale, v0: as in :func:`signgd`.
        state: continues an earlier call in place of ``v0``.
        backend: ``None`` for the fastest here, or a name that runs or raises.

    Returns:
        The spikes, packed, and the state after the last step (float32), which holds no ``x``.

    Raises:
        TypeError, ValueError: an argument of a dtype, shape or device that does not fit; it is named.
    """
    checked_currents((target,), ("target",))
    checked_eta(eta, len(target), target.device)
    checked_state(state)
    shape, device = target.shape[1:], target.device
    v = checked_field("v0" if state is None else "state.v", v0 if state is None else state.v, shape, device)
    operands = Operands([v.new_zeros(())], checked_field("scale", scale, shape, device))
    bytes, after = run_neuron(
        [target], eta, "signgd_target", operands, State((), v), Momentum(), choose(backend, device)
    )
    return SpikeTrain(bytes, len(target)), NeuronState(None, after.v)
