"""What signGD neurons have decoded of their currents after each time-step."""

from __future__ import annotations

import torch
from torch import Tensor

from ...backends import choose, run_extension
from ...checks import checked_eta, checked_field
from ...layout import as_operand, empty_steps, flat_steps, neuron_order
from ...spike_train import SpikeTrain
from ..currents import checked_input, dense_currents, input_argument
from .reference import decode_reference

__all__ = ["decode"]


def decode(
    current: Tensor | SpikeTrain,
    eta: Tensor,
    *,
    amplitude: Tensor | float | None = None,
    offset: Tensor | float = 1.0,
    bias: Tensor | float = 0.0,
    backend: str | None = None,
) -> Tensor:
    """What currents stand for (Oh & Lee, ICML 2024): the decoded input ``x`` of :func:`signgd`, after each step.

    For ``t = 0 .. T-1``, elementwise, every operation rounded once::

        x <- x - eta[t] * (2 * current[t] - offset)
        decoded[t] = x

    It is the affine map of the estimates of the feeding neurons. The last step is the network's output where nothing
    but that map follows; all steps are what :func:`signgd_target` needs of a function of several neurons' inputs.

    Args:
        current: ``[T, *shape]`` in float32, float16 or bfloat16, any memory format; or a train of ``T`` steps, which is
            not unpacked, with ``current[t] = amplitude * spike[t]``.
        eta: ``[T]`` float32 step sizes.
        amplitude: what a spike of a train is worth, 1 if it is ``None``.
        offset: the current with every feeding neuron firing plus the current with none firing.
        bias: ``x`` before the first step: the last of an earlier call, to continue it. ``amplitude``, ``offset`` and
            ``bias`` broadcast to ``shape``.
        backend: ``None`` for the fastest here, or a name that runs or raises.

    Returns:
        float32 ``[T, *shape]`` in the memory format of ``current``.

    Raises:
        TypeError, ValueError: an argument of a dtype, shape or device that does not fit; it is named.
    """
    values, timesteps, amplitude = checked_input("current", current, amplitude)
    checked_eta(eta, timesteps, values.device)
    fields = [
        checked_field(name, value, values.shape[1:], values.device)
        for name, value in (("offset", offset), ("bias", bias))
    ]
    with torch.no_grad():
        backend = choose(backend, values.device)
        return torch.ops.snn_kernels.decode(values, timesteps, eta, amplitude, *fields, backend)


torch.library.define(
    "snn_kernels::decode",
    "(Tensor current, int timesteps, Tensor eta, Tensor amplitude, Tensor offset, Tensor x, str backend) -> Tensor",
)


@torch.library.register_fake("snn_kernels::decode")
def _empty(current: Tensor, timesteps: int, *_) -> Tensor:
    return empty_steps(timesteps, current.shape[1:], neuron_order(current), torch.float32, current.device)


@torch.library.impl("snn_kernels::decode", "CompositeExplicitAutograd")
def _decode(
    current: Tensor, timesteps: int, eta: Tensor, amplitude: Tensor, offset: Tensor, x: Tensor, backend: str
) -> Tensor:
    out = _empty(current, timesteps)
    if backend == "reference":
        return out.copy_(decode_reference(dense_currents(current, timesteps, amplitude), eta, offset, x))
    if out.numel():
        order = neuron_order(current)
        flat, stride = flat_steps(current, order)
        amplitude, *operands = (as_operand(field, current.shape[1:], order) for field in (amplitude, offset, x))
        run = _run_triton if backend == "triton" else _run_extension
        run(flat, stride, amplitude, eta.contiguous(), operands, out)
    return out


def _run_extension(flat, stride, amplitude, eta, operands, out) -> None:
    arguments = (
        len(out),
        out[0].numel(),
        eta.data_ptr(),
        input_argument(flat, stride, amplitude),
        *((operand.data.data_ptr(), operand.inner, operand.period) for operand in operands),
        out.data_ptr(),
    )
    run_extension("decode", arguments, out.device)


def _run_triton(*arguments) -> None:
    from .triton_kernel import decode_triton

    decode_triton(*arguments)
