"""signGD neurons whose target is a function of the whole vector that they and their neighbours decode."""

from __future__ import annotations

import torch
from torch import Tensor

from ...backends import choose, run_extension
from ...checks import Field, checked_eta, checked_field, kind
from ...layout import as_operand, empty_steps, flat_steps
from ...spike_train import SpikeTrain, groups_of
from ..currents import checked_input, dense_currents, input_argument
from ..neuron.reference import Operands, State, signgd_step
from ..neuron.state import NeuronState, checked_state
from .reference import VECTOR_TARGETS, vector_target

__all__ = ["signgd_vector"]

# Names and defaults of what a function takes, in order.
PARAMETERS: dict[str, tuple[tuple[str, float], ...]] = {
    "softmax": (("keep", 1.0),),
    "layer_norm": (("weight", 1.0), ("bias", 0.0), ("eps", 1e-5)),
    "rms_norm": (("weight", 1.0), ("eps", 1e-6)),
}


def signgd_vector(
    current: Tensor | SpikeTrain,
    eta: Tensor,
    function: str | tuple,
    *,
    amplitude: Field | None = None,
    offset: Field = 1.0,
    bias: Field = 0.0,
    scale: Field = 1.0,
    v0: Field = 0.0,
    state: NeuronState | None = None,
    backend: str | None = None,
) -> tuple[SpikeTrain, NeuronState]:
    """signGD neurons (Oh & Lee, ICML 2024) that chase a function of the last dimension of their decoded inputs.

    For ``t = 0 .. T-1``, with ``h`` of whole vectors ``x[..., :]``::

        x <- x - eta[t] * (2 * current[t] - offset)
        s[t] = 1 if v >= h(x) else 0                  elementwise
        v <- v - eta[t] * scale * (2 * s[t] - 1)

    The update is exactly rounded on every backend. ``h`` is a sum over the vector, whose order is the backend's (on the
    CPU the same for every instruction set and number of threads), so a spike may differ between two backends where
    ``|v - h(x)|`` is below the rounding of that sum, which ``snn_kernels.ops.vector.vector_band`` bounds.

    Args:
        current: ``[T, *batch, D]`` in float32, float16 or bfloat16; or a train, whose spikes are each worth
            ``amplitude``, as in :func:`snn_kernels.decode`.
        eta: ``[T]`` float32 step sizes.
        function: a name, or a tuple of it and its parameters, which are numbers or broadcast to ``[*batch, D]``:
            ``("softmax", keep)``: over the elements where ``keep`` is not 0, 0 elsewhere;
            ``("layer_norm", weight, bias, eps)``; ``("rms_norm", weight, eps)``. ``eps`` is a number.
        offset, bias, scale, v0, state, backend: as in :func:`snn_kernels.signgd`.

    Returns:
        The spikes, packed, and the state after the last step (float32); both contiguous.

    Raises:
        TypeError, ValueError: an argument of a dtype, shape or device that does not fit; it is named.
    """
    if not isinstance(function, (str, tuple)) or not function:
        raise TypeError(f"function: expected a name or a tuple of a name and parameters, got {function!r}")
    name, *given = (function,) if isinstance(function, str) else function
    if not isinstance(name, str) or name not in VECTOR_TARGETS:
        raise ValueError(f"function: expected one of {', '.join(VECTOR_TARGETS)}; got {name!r}")
    if len(given) > len(PARAMETERS[name]):
        raise ValueError(f"function: {name} takes {len(PARAMETERS[name])} parameters, got {len(given)}")
    parameters = dict(PARAMETERS[name]) | dict(zip((key for key, _ in PARAMETERS[name]), given))
    values, timesteps, amplitude = checked_input("current", current, amplitude)
    shape, device = values.shape[1:], values.device
    if not shape:
        raise ValueError(f"current: expected [T, *batch, D], got {kind(current)}")
    checked_eta(eta, timesteps, device)
    checked_state(state)
    eps = parameters.pop("eps", 0.0)
    if not isinstance(eps, (int, float)):
        raise TypeError(f"{name}'s eps: expected a number, got {kind(eps)}")

    def field(key: str, value: Field) -> Tensor:
        return checked_field(key, value, shape, device)

    x_name, v_name = ("bias", "v0") if state is None else ("state.x", "state.v")
    x, v = (bias, v0) if state is None else (state.x, state.v)
    a, b = (*parameters.items(), ("bias", 0.0))[:2]
    with torch.no_grad():
        bytes, x, v = torch.ops.snn_kernels.signgd_vector(
            values,
            timesteps,
            eta,
            name,
            amplitude,
            field("offset", offset),
            field("scale", scale),
            *(field(f"{name}'s {key}", value) for key, value in (a, b)),
            float(eps),
            field(x_name, x),
            field(v_name, v),
            choose(backend, device),
        )
    return SpikeTrain(bytes, timesteps), NeuronState(x, v)


def vector_band(function: str, x: Tensor, h: Tensor, a: Tensor, b: Tensor, eps: float) -> Tensor:
    """Bound on the error of a backend's ``h`` where the real value is ``h``: the only place for a spike to flip.

    A sum of ``D`` terms in any order of at least sixteen lanes is off by at most ``D / 16 + 4`` roundings of the sum of
    their sizes, a tree by less. Softmax: that of the sum, and 4 units for ``exp``, the quotient and the difference,
    relative to ``h``. Norms: the mean is off by that many roundings of ``mean |x|``, which moves ``u`` and, to first
    order not, the mean square; the mean square's own relative error enters by half; 5 roundings more end the target.
    """
    unit, roundings = 2.0**-24, x.shape[-1] / 16 + 4
    if function == "softmax":
        # The exponent itself is rounded: |x - max| units of a relative error.
        return (
            unit
            * h.abs()
            * (roundings + 8 + 2 * (x - x.amax(-1, keepdim=True)).abs().nan_to_num(0, 0, 0).clamp(max=104))
        )
    size = (x.abs().mean(-1, keepdim=True) + x.abs()) * a.abs()
    spread = x - x.mean(-1, keepdim=True) if function == "layer_norm" else x
    rms = torch.sqrt((spread * spread).mean(-1, keepdim=True) + eps)
    return unit * (roundings * (size / rms + (h - b).abs()) + 5 * (h.abs() + b.abs()))


torch.library.define(
    "snn_kernels::signgd_vector",
    "(Tensor current, int timesteps, Tensor eta, str function, Tensor amplitude, Tensor offset, Tensor scale, "
    "Tensor a, Tensor b, float eps, Tensor x, Tensor v, str backend) -> (Tensor, Tensor, Tensor)",
)


def _outputs(current: Tensor, timesteps: int) -> tuple[Tensor, Tensor, Tensor]:
    shape = current.shape[1:]
    order = tuple(range(len(shape)))
    bytes = empty_steps(groups_of(timesteps), shape, order, torch.uint8, current.device)
    x, v = (empty_steps(1, shape, order, torch.float32, current.device)[0] for _ in range(2))
    return bytes, x, v


@torch.library.register_fake("snn_kernels::signgd_vector")
def _vector_fake(current, timesteps, *_):
    return _outputs(current, timesteps)


@torch.library.impl("snn_kernels::signgd_vector", "CompositeExplicitAutograd")
def _vector(current, timesteps, eta, function, amplitude, offset, scale, a, b, eps, x, v, backend):
    outputs = bytes, x_out, v_out = _outputs(current, timesteps)
    shape = current.shape[1:]
    if backend == "reference":
        dense = dense_currents(current, timesteps, amplitude)
        spikes = torch.empty(dense.shape, dtype=torch.bool, device=current.device)
        target, operands = vector_target(function, a, b, eps), Operands([offset], scale)
        state = State((x.expand(shape),), v.expand(shape))
        for t, step in enumerate(eta):
            spikes[t], state = signgd_step([dense[t]], step, target, operands, state)
        bytes.copy_(torch.ops.snn_kernels.pack(spikes, backend))
        x_out.copy_(state.x[0])
        v_out.copy_(state.v)
    elif v_out.numel():
        order = tuple(range(len(shape)))
        flat, stride = flat_steps(current, order)
        fields = (amplitude, offset, scale, a, b, x, v)
        amplitude, *operands = (as_operand(field, shape, order) for field in fields)
        run = _run_triton if backend == "triton" else _run_extension
        run(function, timesteps, flat, stride, amplitude, eta.contiguous(), eps, operands, outputs)
    return outputs


def _run_extension(function, timesteps, flat, stride, amplitude, eta, eps, operands, outputs) -> None:
    bytes, x_out, v_out = outputs
    arguments = (
        function,
        (timesteps, v_out.numel(), v_out.shape[-1]),
        eta.data_ptr(),
        eps,
        input_argument(flat, stride, amplitude),
        [(operand.data.data_ptr(), operand.inner, operand.period) for operand in operands],
        x_out.data_ptr(),
        v_out.data_ptr(),
        bytes.data_ptr(),
    )
    run_extension("vector", arguments, v_out.device)


def _run_triton(*arguments) -> None:
    from .triton_kernel import vector_triton

    vector_triton(*arguments)
