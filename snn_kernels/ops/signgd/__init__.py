"""The signGD neuron over many time-steps: checks, torch registration and the choice of kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ...activations import ActivationSpec, resolve
from ...backends import C, choose
from ...checks import checked_eta, checked_field, kind
from ...layout import Order, empty_steps, flat_steps, neuron_order
from ...spike_train import SpikeTrain, groups_of
from .extension import signgd_arguments
from .reference import signgd_loop

__all__ = ["NeuronState", "signgd", "signgd_binary"]

CURRENT_DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


class NeuronState(NamedTuple):
    """A population between two calls: the decoded input ``x`` (a pair for two inputs) and its own estimate ``v``."""

    x: Tensor | tuple[Tensor, Tensor]
    v: Tensor


# So that programs that return a state can be saved by torch.export.
pytree._register_namedtuple(NeuronState, serialized_type_name="snn_kernels.NeuronState")


def signgd(
    current: Tensor,
    eta: Tensor,
    activation: ActivationSpec,
    *,
    offset: Tensor | float = 1.0,
    bias: Tensor | float = 0.0,
    scale: Tensor | float = 1.0,
    v0: Tensor | float = 0.0,
    state: NeuronState | None = None,
    backend: str | None = None,
) -> tuple[SpikeTrain, NeuronState]:
    """Sign gradient descent neurons that chase ``h(x)`` (Oh & Lee, ICML 2024), all time-steps in one call.

    For ``t = 0 .. T-1``, elementwise, every operation rounded once::

        x <- x - eta[t] * (2 * current[t] - offset)
        s[t] = 1 if v >= h(x) else 0
        v <- v - eta[t] * scale * (2 * s[t] - 1)

    Args:
        current: ``[T, *shape]`` in float32, float16 or bfloat16, any memory format.
        eta: ``[T]`` float32 step sizes; see :mod:`snn_kernels.schedules`.
        activation: the name of ``h`` in :data:`snn_kernels.ACTIVATIONS`, or a tuple of the name and its parameters,
            each a number or a tensor that broadcasts to ``shape``: ``("leaky_relu", 0.2)``.
        offset: the current with every feeding neuron firing plus the current with none firing.
        bias: the decoded input before the first step.
        scale: what a spike is worth downstream, the neuron's output scale ``c > 0``.
        v0: the estimate before the first step. ``offset``, ``bias``, ``scale`` and ``v0`` broadcast to ``shape``;
            scalars, one value a channel and one a neuron are not expanded in memory.
        state: continues an earlier call in place of ``bias`` and ``v0``, with ``eta`` from that step on. The same
            bits come out as from one call.
        backend: ``None`` for the fastest here, or a name that runs or raises.

    Returns:
        The spikes, packed, and the state after the last step (float32, in the memory format of ``current``). A spike
        is a step function: nothing that is returned carries a gradient.

    Raises:
        TypeError, ValueError: an argument of a dtype, shape or device that does not fit; it is named.
    """
    train, xs, v = _checked_call((current,), eta, activation, (offset,), (bias,), scale, v0, state, backend)
    return train, NeuronState(xs[0], v)


def signgd_binary(
    current_a: Tensor,
    current_b: Tensor,
    eta: Tensor,
    function: ActivationSpec,
    *,
    offset: tuple[Tensor | float, Tensor | float] = (1.0, 1.0),
    bias: tuple[Tensor | float, Tensor | float] = (0.0, 0.0),
    scale: Tensor | float = 1.0,
    v0: Tensor | float = 0.0,
    state: NeuronState | None = None,
    backend: str | None = None,
) -> tuple[SpikeTrain, NeuronState]:
    """Neurons that chase a function of two decoded inputs, ``h(x_a, x_b)``: see :func:`signgd`.

    ``offset`` and ``bias`` are pairs, one value for each input; both currents have one shape and dtype.
    """
    train, xs, v = _checked_call((current_a, current_b), eta, function, offset, bias, scale, v0, state, backend)
    return train, NeuronState((xs[0], xs[1]), v)


def _checked_call(currents, eta, activation, offset, bias, scale, v0, state, backend):
    names = ("current",) if len(currents) == 1 else ("current_a", "current_b")
    row, parameters = resolve(activation, len(currents), "activation" if len(currents) == 1 else "function")
    first = currents[0]
    for name, current in zip(names, currents):
        if not isinstance(current, Tensor) or current.dtype not in CURRENT_DTYPES:
            raise TypeError(f"{name}: expected a float32, float16 or bfloat16 tensor, got {kind(current)}")
        if current.ndim == 0:
            raise ValueError(f"{name}: expected [T, *shape], got a tensor without dimensions")
        if (current.shape, current.dtype, current.device) != (first.shape, first.dtype, first.device):
            raise ValueError(f"{name}: expected the shape, dtype and device of {names[0]}, got {kind(current)}")
    checked_eta(eta, len(first), first.device)
    x_name, v_name = "bias", "v0"
    if state is not None:
        if not isinstance(state, NeuronState):
            raise TypeError(f"state: expected a NeuronState, got {kind(state)}")
        x_name, v_name, v0 = "state.x", "state.v", state.v
        bias = state.x if len(currents) == 2 else (state.x,)
    pairs = {"offset": offset, x_name: bias} if len(currents) == 2 else {}
    for name, value in pairs.items():
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise TypeError(f"{name}: expected a pair, one value for each input, got {kind(value)}")

    def field(name, value):
        return checked_field(name, value, first.shape[1:], first.device)

    with torch.no_grad():
        bytes, xs, v = torch.ops.snn_kernels.signgd(
            list(currents),
            eta,
            [field("offset", value) for value in offset],
            [field(x_name, value) for value in bias],
            field("scale", scale),
            [field(f"{row.name}'s {name}", value) for (name, _), value in zip(row.parameters, parameters)],
            field(v_name, v0),
            row.name,
            choose(backend, first.device),
        )
    return SpikeTrain(bytes, first.shape[0]), xs, v


torch.library.define(
    "snn_kernels::signgd",
    "(Tensor[] currents, Tensor eta, Tensor[] offsets, Tensor[] x, Tensor scale, Tensor[] parameters, Tensor v, "
    "str activation, str backend) -> (Tensor, Tensor[], Tensor)",
)


def _outputs(currents: Sequence[Tensor], order: Order) -> tuple[Tensor, list[Tensor], Tensor]:
    """Uninitialised bytes, decoded inputs and estimate in the memory format of the currents."""
    timesteps, *shape = currents[0].shape
    device = currents[0].device
    bytes = empty_steps(groups_of(timesteps), shape, order, torch.uint8, device)
    state = [empty_steps(1, shape, order, torch.float32, device)[0] for _ in range(len(currents) + 1)]
    return bytes, state[:-1], state[-1]


@torch.library.register_fake("snn_kernels::signgd")
def _signgd_fake(currents, eta, offsets, x, scale, parameters, v, activation, backend):
    return _outputs(currents, neuron_order(currents[0]))


@torch.library.impl("snn_kernels::signgd", "CompositeExplicitAutograd")
def _signgd(
    currents: list[Tensor],
    eta: Tensor,
    offsets: list[Tensor],
    x: list[Tensor],
    scale: Tensor,
    parameters: list[Tensor],
    v: Tensor,
    activation: str,
    backend: str,
) -> tuple[Tensor, list[Tensor], Tensor]:
    order = neuron_order(currents[0])
    bytes, x_out, v_out = _outputs(currents, order)
    if backend == "reference":
        row, _ = resolve(activation, len(currents))
        spikes, xs, v = signgd_loop(currents, eta, lambda *x: row.function(*x, *parameters), offsets, scale, x, v)
        bytes.copy_(torch.ops.snn_kernels.pack(spikes, "reference"))
        for out, value in zip((*x_out, v_out), (*xs, v)):
            out.copy_(value)
        return bytes, x_out, v_out
    if v_out.numel():
        kernel = {"cpu": _run_extension, "cuda": _run_extension, "triton": _run_triton}[backend]
        kernel(currents, eta, offsets, x, scale, parameters, v, activation, order, bytes, x_out, v_out)
    return bytes, x_out, v_out


def _run_extension(currents, eta, offsets, x, scale, parameters, v, activation, order, bytes, x_out, v_out) -> None:
    flat = [flat_steps(current, order) for current in currents]
    arguments, _alive = signgd_arguments(
        activation,
        CURRENT_DTYPES[currents[0].dtype],
        len(currents[0]),
        [(data.data_ptr(), stride) for data, stride in flat],
        eta,
        offsets,
        x,
        scale,
        parameters,
        v,
        order,
        (bytes, x_out, v_out),
    )
    device = v_out.device
    if device.type == "cuda":
        with torch.cuda.device(device):
            C.signgd("cuda", arguments, torch.cuda.current_stream(device).cuda_stream)
    else:
        C.signgd("cpu", arguments, torch.get_num_threads())


def _run_triton(*arguments) -> None:
    from .triton_kernel import signgd_triton

    signgd_triton(*arguments)
