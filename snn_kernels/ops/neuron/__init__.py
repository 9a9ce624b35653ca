"""One torch op for every neuron model: the loop over time, the packing and the state, on each backend.

The public functions (``signgd``, ``subgradient``, ``integrate_and_fire``, ...) check their arguments and call it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...backends import run_extension
from ...layout import Operand, Order, as_operand, empty_steps, flat_steps, neuron_order
from ...spike_train import groups_of
from ..currents import dense_currents, input_argument
from .extension import neuron_arguments
from .reference import MODELS, Momentum, Operands, State, neuron_loop

__all__ = ["run_neuron"]

torch.library.define(
    "snn_kernels::neuron",
    "(Tensor[] currents, Tensor[] amplitudes, Tensor eta, str model, Tensor[] offsets, Tensor scale, "
    "Tensor[] parameters, Tensor[] x, Tensor v, Tensor[] m, float momentum, bool nesterov, str backend) "
    "-> (Tensor, Tensor[], Tensor, Tensor[])",
)


def run_neuron(
    currents: Sequence[Tensor],
    eta: Tensor,
    model: str,
    operands: Operands,
    state: State,
    momentum: Momentum,
    backend: str,
    amplitudes: Sequence[Tensor] = (),
) -> tuple[Tensor, State]:
    """The packed spikes ``[ceil(T / 8), *shape]`` and the state after the last step, of checked arguments.

    ``eta`` is ``[T]`` for every model. With ``amplitudes`` the currents are the bytes of trains.
    """
    with torch.no_grad():
        bytes, *after = torch.ops.snn_kernels.neuron(
            list(currents),
            list(amplitudes),
            eta,
            model,
            *map(_listed, operands),
            *map(_listed, state),
            *momentum,
            backend,
        )
    return bytes, State(*(tuple(part) if isinstance(part, list) else part for part in after))


def _listed(part):
    return part if isinstance(part, Tensor) else list(part)


def _outputs(currents, timesteps, model, m, order: Order) -> tuple[Tensor, list[Tensor], Tensor, list[Tensor]]:
    """Uninitialised bytes, decoded inputs, estimate and filtered gradients in the memory format of the currents."""
    shape, device = currents[0].shape[1:], currents[0].device

    def states(count: int) -> list[Tensor]:
        return [empty_steps(1, shape, order, torch.float32, device)[0] for _ in range(count)]

    bytes = empty_steps(groups_of(timesteps), shape, order, torch.uint8, device)
    decoded = len(currents) if MODELS[model].decodes else 0
    return bytes, states(decoded), states(1)[0], states(len(m))


@torch.library.register_fake("snn_kernels::neuron")
def _neuron_fake(currents, amplitudes, eta, model, offsets, scale, parameters, x, v, m, momentum, nesterov, backend):
    return _outputs(currents, len(eta), model, m, neuron_order(currents[0]))


@torch.library.impl("snn_kernels::neuron", "CompositeExplicitAutograd")
def _neuron(currents, amplitudes, eta, model, offsets, scale, parameters, x, v, m, momentum, nesterov, backend):
    order = neuron_order(currents[0])
    outputs = bytes, x_out, v_out, m_out = _outputs(currents, len(eta), model, m, order)
    operands = Operands(offsets, scale, parameters)
    filter = Momentum(momentum, nesterov)
    if backend == "reference":
        if amplitudes:
            currents = [dense_currents(bits, len(eta), worth) for bits, worth in zip(currents, amplitudes)]
        spikes, state = neuron_loop(currents, eta, model, operands, State(tuple(x), v, tuple(m)), filter)
        bytes.copy_(torch.ops.snn_kernels.pack(spikes, "reference"))
        for out, value in zip((*x_out, v_out, *m_out), (*state.x, state.v, *state.m)):
            out.copy_(value)
        return outputs
    for out, value in zip(m_out, m):
        out.copy_(value)
    if v_out.numel():
        run = _run_triton if backend == "triton" else _run_extension
        worths = [as_operand(worth, v_out.shape, order) for worth in amplitudes]
        worths = worths or [Operand(eta, 1, 1)] * len(currents)  # which dense currents leave unread
        received = [(*flat_steps(current, order), worth) for current, worth in zip(currents, worths)]
        run(received, eta, model, operands, x, v, filter, order, outputs)
    return outputs


def _run_extension(received, eta, model, operands, x, v, momentum, order, outputs) -> None:
    arguments, _alive = neuron_arguments(
        model,
        len(eta),
        [input_argument(*source) for source in received],
        eta,
        operands,
        x,
        v,
        momentum,
        order,
        outputs,
    )
    run_extension("neuron", arguments, v.device)


def _run_triton(*arguments) -> None:
    from .triton_kernel import neuron_triton

    neuron_triton(*arguments)
