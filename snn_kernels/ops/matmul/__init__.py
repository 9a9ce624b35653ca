"""signGD neurons that chase the product of two decoded matrices: attention's scores, and what these gather."""

from __future__ import annotations

import torch
from torch import Tensor

from ...autocast import without_autocast
from ...backends import choose, run_extension
from ...checks import Field, checked_eta, checked_field, kind
from ...spike_train import SpikeTrain, groups_of
from ..currents import checked_input, dense_currents
from ..neuron.reference import Operands, State, signgd_step
from ..neuron.state import NeuronState, checked_state
from .apart import signgd_matmul_apart
from .extension import matmul_arguments, one_of_each

__all__ = ["signgd_matmul"]

Pair = tuple[Field, Field]


def signgd_matmul(
    current_a: Tensor | SpikeTrain,
    current_b: Tensor | SpikeTrain,
    eta: Tensor,
    *,
    amplitude: tuple[Field | None, Field | None] = (None, None),
    offset: Pair = (1.0, 1.0),
    bias: Pair = (0.0, 0.0),
    scale: Field = 1.0,
    v0: Field = 0.0,
    state: NeuronState | None = None,
    backend: str | None = None,
) -> tuple[SpikeTrain, NeuronState]:
    """signGD neurons (Oh & Lee, ICML 2024) that chase ``a @ b``, the product of two decoded matrices.

    For ``t = 0 .. T-1``, with ``x`` of both inputs::

        x <- x - eta[t] * (2 * current[t] - offset)      elementwise
        s[t] = 1 if v >= a @ b else 0                    each neuron against its element of the product
        v <- v - eta[t] * scale * (2 * s[t] - 1)

    The updates are exactly rounded on every backend. The product is a sum, whose order is the backend's: on the CPU
    that of the inner dimension, in fused multiply-adds, whatever the instruction set and the number of
    threads; elsewhere :func:`torch.matmul`'s in float32. So a spike may differ between two backends where
    ``|v - a @ b|`` is below the rounding of that sum.

    Args:
        current_a, current_b: ``[T, *batch, M, K]`` and ``[T, *batch, K, N]``, whose batch dimensions broadcast; each a
            tensor in float32, float16 or bfloat16, or a train, as in :func:`decode`.
        eta: ``[T]`` float32 step sizes.
        amplitude, offset, bias: pairs, one value for each input, as in :func:`decode`.
        scale, v0: of the ``[*batch, M, N]`` neurons, as in :func:`signgd`.
        state: continues an earlier call in place of ``bias`` and ``v0``.
        backend: of everything but the product: ``None`` for the fastest here, or a name that runs or raises.

    Returns:
        The spikes of the ``[*batch, M, N]`` neurons, packed, and the state after the last step (float32).

    Raises:
        TypeError, ValueError: an argument of a dtype, shape or device that does not fit; it is named.
    """
    checked_state(state)
    x_name, x = ("bias", bias) if state is None else ("state.x", state.x)
    for name, value in (("amplitude", amplitude), ("offset", offset), (x_name, x)):
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise TypeError(f"{name}: expected a pair, one value for each input, got {value!r}")
    inputs = zip(("current_a", "current_b"), (current_a, current_b), amplitude, offset, x)
    (a, steps, of_a), (b, steps_of_b, of_b) = (_checked_matrix(x_name, *given) for given in inputs)
    if (steps_of_b, b.device) != (steps, a.device):
        raise ValueError(f"current_b: expected {steps} steps on {a.device}, as current_a has, got {kind(current_b)}")
    checked_eta(eta, steps, a.device)
    shape = _shape_of_product(tuple(a.shape[1:]), tuple(b.shape[1:]))
    scale = checked_field("scale", scale, shape, eta.device)
    v = checked_field(*(("v0", v0) if state is None else ("state.v", state.v)), shape, eta.device)
    backend = choose(backend, eta.device)
    with torch.no_grad():
        bytes, *x, v = torch.ops.snn_kernels.signgd_matmul(a, b, len(eta), eta, of_a, of_b, scale, v, backend)
    return SpikeTrain(bytes, len(eta)), NeuronState(tuple(x), v)


def _checked_matrix(x_name: str, name: str, current, amplitude, offset, x) -> tuple[Tensor, int, list[Tensor]]:
    """Currents or bytes, their steps, and their amplitude, offset and first decoded input."""
    values, timesteps, amplitude = checked_input(name, current, amplitude)
    if values.ndim < 3:
        raise ValueError(f"{name}: expected [T, *batch, rows, columns], got shape {tuple(values.shape)}")
    fields = (
        checked_field(key, value, values.shape[1:], values.device) for key, value in (("offset", offset), (x_name, x))
    )
    return values, timesteps, [amplitude, *fields]


def _shape_of_product(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    try:
        batch = torch.broadcast_shapes(a[:-2], b[:-2])
    except RuntimeError:
        batch = None
    if batch is None or a[-1] != b[-2]:
        raise ValueError(f"current_b: expected matrices that those of current_a, {a}, can be multiplied with, got {b}")
    return (*batch, a[-2], b[-1])


torch.library.define(
    "snn_kernels::signgd_matmul",
    "(Tensor a, Tensor b, int timesteps, Tensor eta, Tensor[] of_a, Tensor[] of_b, Tensor scale, Tensor v, str backend)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
)


@torch.library.register_fake("snn_kernels::signgd_matmul")
def _outputs(a: Tensor, b: Tensor, timesteps: int, *_) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The bytes, the decoded inputs and the estimate after the last step."""
    shape = _shape_of_product(tuple(a.shape[1:]), tuple(b.shape[1:]))
    bytes = a.new_empty((groups_of(timesteps), *shape), dtype=torch.uint8)
    x_a, x_b, v = (a.new_empty(size, dtype=torch.float32) for size in (a.shape[1:], b.shape[1:], shape))
    return bytes, x_a, x_b, v


@torch.library.impl("snn_kernels::signgd_matmul", "CompositeExplicitAutograd")
def _matmul(a, b, timesteps, eta, of_a, of_b, scale, v, backend):
    if backend in ("cuda", "triton"):
        return signgd_matmul_apart(a, b, eta, of_a, of_b, scale, v, backend)
    _, x_a, x_b, v_out = outputs = _outputs(a, b, timesteps)
    # Without a product or an input the kernel, which decodes what its products read, would leave outputs unwritten.
    if backend == "reference" or v_out.numel() == 0 or x_a.numel() == 0:
        _run_reference(a, b, timesteps, eta, of_a, of_b, scale, v, outputs)
    else:
        arguments, written, _alive = matmul_arguments(a, b, timesteps, eta, of_a, of_b, scale, v, outputs)
        run_extension("matmul", arguments, v_out.device)
        for x, of_each in zip((x_a, x_b), written):
            if x is not of_each:
                x.copy_(one_of_each(of_each, x.shape))
    return outputs


@without_autocast()
def _run_reference(a, b, timesteps, eta, of_a, of_b, scale, v, outputs) -> None:
    bytes, *x_out, v_out = outputs
    operands = Operands((of_a[1], of_b[1]), scale)
    state = State(tuple(of[2].expand(out.shape) for of, out in zip((of_a, of_b), x_out)), v.expand(v_out.shape))
    a, b = (dense_currents(values, timesteps, of[0]) for values, of in ((a, of_a), (b, of_b)))
    spikes = torch.empty((timesteps, *v_out.shape), dtype=torch.bool, device=v_out.device)
    for t, step in enumerate(eta):
        spikes[t], state = signgd_step([a[t], b[t]], step, torch.matmul, operands, state)
    bytes.copy_(torch.ops.snn_kernels.pack(spikes, "reference"))
    for out, last in zip((*x_out, v_out), (*state.x, state.v)):
        out.copy_(last)
