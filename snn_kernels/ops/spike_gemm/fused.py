"""A spike product and the neuron behind it in one op: from train to train, with no currents in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ...activations import ActivationSpec, resolve
from ...backends import C, choose
from ...checks import Field, checked_eta, checked_field
from ...layout import Order, empty_steps
from ...quantized_weight import QuantizedWeight
from ...spike_train import SpikeTrain, groups_of
from ..neuron import run_neuron
from ..neuron.extension import neuron_arguments
from ..neuron.reference import Momentum, Operands, State
from ..neuron.state import NeuronState, checked_state
from . import gpu
from .checks import GPU_BACKENDS, checked_convolution, checked_linear, features_last, is_by_neuron, is_by_row
from .cpu import Arguments, convolution_arguments, linear_arguments, takes_scaled
from .residual import Residual, checked_residual
from .rows import convolution_shape
from .scaled import scaled_convolution, scaled_linear
from .synapses import Synapses

__all__ = ["spike_conv2d_signgd", "spike_linear_signgd"]

POINTS = ([1, 1], [0, 0], [1, 1])  # stride, padding and dilation of a projection


def spike_linear_signgd(
    train: SpikeTrain,
    weight: Tensor | QuantizedWeight,
    bias: Tensor | None,
    eta: Tensor,
    activation: ActivationSpec,
    *,
    amplitude: Field | None = None,
    residual: Tensor | SpikeTrain | None = None,
    residual_amplitude: Field | None = None,
    residual_weight: Tensor | QuantizedWeight | None = None,
    offset: Field = 1.0,
    x0: Field = 0.0,
    scale: Field = 1.0,
    v0: Field = 0.0,
    state: NeuronState | None = None,
    backend: str | None = None,
) -> tuple[SpikeTrain, NeuronState]:
    """:func:`~snn_kernels.spike_linear` (dense method) followed by :func:`~snn_kernels.signgd`, fused.

    The currents of a block of neurons for eight steps exist in the cache (on a GPU: in registers) alone; on one backend
    the spikes are those of the two ops apart, bit for bit. With an amplitude for each row the ``cuda`` and ``triton``
    backends run them apart, with one for each neuron all do where ``spike_linear`` does not take ``dense``.

    Args:
        train, weight, bias, amplitude: as in ``spike_linear``: ``[*batch, K]`` to ``[*batch, N]``.
        residual: what a shortcut adds to the product's currents: currents ``[T, *batch, N]`` in float32, a train of
            ``T`` steps of shape ``[*batch, N]``, which is not unpacked, or ``None``.
        residual_amplitude: what a spike of that train is worth: a number or ``[N]``, 1 if it is ``None``, or what
            broadcasts to the neurons, for which the train is unpacked but where ``amplitude`` is one for each neuron,
            too. The fused spikes are those with the currents ``residual_amplitude * spike`` as residual, bit for bit.
        residual_weight: ``[N, M]``, a linear map (of images: a 1x1 convolution) of a residual train ``[*batch, M]``
            with ``residual_amplitude`` of its features or neurons, as where a shortcut projects: a second product,
            whose currents are added. It is part of the fused op on the ``cpu`` backend where both products are of one
            kind, with amplitudes of neurons (the same for all samples) or without; else it runs before it.
        eta, activation, offset, scale, v0, state: as in ``signgd``; ``x0`` is the decoded input before the first step.
        backend: ``None`` for the fastest here, or a name that runs or raises.

    Returns:
        The spikes of the ``[*batch, N]`` neurons and their state, without gradients. In memory the neurons lie feature
        by feature on the ``cpu`` and ``reference`` backends, row by row on ``cuda`` and ``triton`` and with an
        amplitude for each neuron.

    Raises:
        TypeError, ValueError: an argument that does not fit; it is named.
    """
    synapses, amplitude = checked_linear(train, weight, bias, amplitude)
    shape = (*train.shape[:-1], synapses.outputs)
    added = checked_residual(residual, residual_amplitude, train, shape, -1, residual_weight)
    neuron = _checked_neuron(train, shape, eta, activation, offset, x0, scale, v0, state)
    backend = choose(backend, train.device)
    with torch.no_grad():
        bytes, x, v = torch.ops.snn_kernels.spike_linear_signgd(
            train.bytes, train.timesteps, *synapses, amplitude, *added, *neuron, backend
        )
    return SpikeTrain(bytes, train.timesteps), NeuronState(x, v)


def spike_conv2d_signgd(
    train: SpikeTrain,
    weight: Tensor | QuantizedWeight,
    bias: Tensor | None,
    eta: Tensor,
    activation: ActivationSpec,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    amplitude: Field | None = None,
    residual: Tensor | SpikeTrain | None = None,
    residual_amplitude: Field | None = None,
    residual_weight: Tensor | QuantizedWeight | None = None,
    offset: Field = 1.0,
    x0: Field = 0.0,
    scale: Field = 1.0,
    v0: Field = 0.0,
    state: NeuronState | None = None,
    backend: str | None = None,
) -> tuple[SpikeTrain, NeuronState]:
    """:func:`~snn_kernels.spike_conv2d` and :func:`~snn_kernels.signgd`, fused: see :func:`spike_linear_signgd`.

    ``[B, C, H, W]`` to ``[B, N, H', W']``; in memory the neurons lie channel by channel, on ``cuda`` and ``triton``
    and with an amplitude for each neuron channels last. On ``cpu`` the two ops run apart with ``groups`` above 1.
    """
    synapses, amplitude, geometry = checked_convolution(
        train, weight, bias, amplitude, stride, padding, dilation, groups
    )
    size = convolution_shape(train.shape[2:], weight.shape[2:], *geometry)
    shape = (train.shape[0], synapses.outputs, *size)
    added = checked_residual(residual, residual_amplitude, train, shape, 1, residual_weight)
    neuron = _checked_neuron(train, shape, eta, activation, offset, x0, scale, v0, state)
    backend = choose(backend, train.device)
    with torch.no_grad():
        bytes, x, v = torch.ops.snn_kernels.spike_conv2d_signgd(
            train.bytes, train.timesteps, *synapses, amplitude, *added, *geometry, groups, *neuron, backend
        )
    return SpikeTrain(bytes, train.timesteps), NeuronState(x, v)


def _checked_neuron(train, shape, eta, activation, offset, x0, scale, v0, state) -> tuple:
    """The neuron's arguments in the order of the op's schema."""
    row, parameters = resolve(activation, 1)
    checked_eta(eta, train.timesteps, train.device)
    checked_state(state)
    x0, v0 = (x0, v0) if state is None else (state.x, state.v)

    def field(name: str, value: Field) -> Tensor:
        return checked_field(name, value, shape, train.device)

    return (
        eta,
        field("offset", offset),
        field("x0" if state is None else "state.x", x0),
        field("scale", scale),
        [field(f"{row.name}'s {name}", value) for (name, _), value in zip(row.parameters, parameters)],
        field("v0" if state is None else "state.v", v0),
        row.name,
    )


PRODUCT_SCHEMA = (
    "Tensor bytes, int timesteps, Tensor weight, Tensor? weight_scale, Tensor? bias, Tensor? amplitude, "
    "Tensor? residual, Tensor? residual_amplitude, Tensor? residual_weight, Tensor? residual_scale"
)
NEURON_SCHEMA = "Tensor eta, Tensor offset, Tensor x, Tensor scale, Tensor[] parameters, Tensor v, str activation"
torch.library.define(
    "snn_kernels::spike_linear_signgd",
    f"({PRODUCT_SCHEMA}, {NEURON_SCHEMA}, str backend) -> (Tensor, Tensor, Tensor)",
)
torch.library.define(
    "snn_kernels::spike_conv2d_signgd",
    f"({PRODUCT_SCHEMA}, int[] stride, int[] padding, int[] dilation, int groups, {NEURON_SCHEMA}, str backend) "
    "-> (Tensor, Tensor, Tensor)",
)


def _outputs(bytes: Tensor, timesteps: int, shape: Sequence[int], order: Order) -> tuple[Tensor, Tensor, Tensor]:
    train = empty_steps(groups_of(timesteps), shape, order, torch.uint8, bytes.device)
    x, v = (empty_steps(1, shape, order, torch.float32, bytes.device)[0] for _ in range(2))
    return train, x, v


def _linear_outputs(bytes, timesteps, weight, amplitude, backend) -> tuple[Order, tuple[Tensor, Tensor, Tensor]]:
    """Features slowest on the CPU: rows are the lanes of the kernel, and a feature's rows are written side by side.

    Features fastest on tensor cores, where the inputs of a row are what the next product reads side by side, and with
    an amplitude for each neuron, where outputs are the lanes.
    """
    shape = (*bytes.shape[1:-1], weight.shape[0])
    last = features_last(amplitude, backend, feature_dim=-1)
    order = tuple(range(len(shape))) if last else (len(shape) - 1, *range(len(shape) - 1))
    return order, _outputs(bytes, timesteps, shape, order)


def _convolution_outputs(
    bytes, timesteps, weight, amplitude, geometry, backend
) -> tuple[Order, tuple[Tensor, Tensor, Tensor]]:
    size = convolution_shape(bytes.shape[-2:], weight.shape[-2:], *geometry)
    order = (0, 2, 3, 1) if features_last(amplitude, backend, feature_dim=1) else (1, 0, 2, 3)
    return order, _outputs(bytes, timesteps, (bytes.shape[1], weight.shape[0], *size), order)


@torch.library.register_fake("snn_kernels::spike_linear_signgd")
def _linear_fake(bytes, timesteps, weight, weight_scale, bias, amplitude, *residual_neuron_and_backend):
    return _linear_outputs(bytes, timesteps, weight, amplitude, residual_neuron_and_backend[-1])[1]


@torch.library.register_fake("snn_kernels::spike_conv2d_signgd")
def _convolution_fake(bytes, timesteps, weight, weight_scale, bias, amplitude, *rest):
    return _convolution_outputs(bytes, timesteps, weight, amplitude, rest[4:7], backend=rest[-1])[1]


def _with_projection(
    added: Residual, synapses: Synapses | None, product: Callable | None, scaled: bool, current: Callable[[str], Tensor]
) -> tuple[Residual, list[Arguments]]:
    """The residual and, where synapses project it, one more product of the fused op, if there is one of its kind.

    ``product`` makes the operands of such a product, ``current`` takes it by itself.
    """
    if synapses is None:
        return added, []
    of_neuron = added.amplitude is not None and added.amplitude.ndim > 1
    if product is not None and of_neuron == scaled and not (scaled and len(added.amplitude) != 1):
        return added.nothing(), [product(added.value, added.timesteps, synapses, added.amplitude)]
    return added._replace(value=current("auto" if of_neuron else "dense"), amplitude=None), []


@torch.library.impl("snn_kernels::spike_linear_signgd", "CompositeExplicitAutograd")
def _linear(bytes, timesteps, weight, weight_scale, bias, amplitude, residual, residual_amplitude, *rest):
    residual_weight, residual_scale, *neuron, backend = rest
    synapses = Synapses(weight, weight_scale, bias)
    projection = None if residual_weight is None else Synapses(residual_weight, residual_scale, None)
    order, outputs = _linear_outputs(bytes, timesteps, weight, amplitude, backend)
    if not outputs[2].numel():
        return outputs
    of_neuron = is_by_neuron(amplitude, feature_dim=-1)
    product = None
    if backend == "cpu" and of_neuron and takes_scaled(amplitude, timesteps, bytes.shape[1], len(weight)):
        product = scaled_linear
    elif backend == "cpu" and timesteps and not of_neuron:
        product = linear_arguments

    def projected(method: str) -> Tensor:
        return torch.ops.snn_kernels.spike_linear(residual, timesteps, *projection, residual_amplitude, method, backend)

    added = Residual(residual, residual_amplitude, timesteps, feature_dim=-1)
    added, more = _with_projection(added, projection, product, of_neuron, projected)
    if product is not None:
        products = [product(bytes, timesteps, synapses, amplitude), *more]
        _fused(products, timesteps, added, neuron, order, outputs, scaled=of_neuron)
    elif backend in GPU_BACKENDS and not of_neuron and not is_by_row(amplitude):
        operands = (bytes, timesteps, synapses, amplitude)
        gpu.linear_signgd(backend, *operands, added.by_feature(), neuron, order, outputs)
    else:
        current = torch.ops.snn_kernels.spike_linear(bytes, timesteps, *synapses, amplitude, "auto", backend)
        _apart(added.added_to(current), neuron, outputs, backend)
    return outputs


@torch.library.impl("snn_kernels::spike_conv2d_signgd", "CompositeExplicitAutograd")
def _convolution(bytes, timesteps, weight, weight_scale, bias, amplitude, residual, residual_amplitude, *rest):
    residual_weight, residual_scale, *geometry_and_groups = rest[:6]
    (*geometry, groups), (*neuron, backend) = geometry_and_groups, rest[6:]
    synapses = Synapses(weight, weight_scale, bias)
    order, outputs = _convolution_outputs(bytes, timesteps, weight, amplitude, geometry, backend)
    if not outputs[2].numel():
        return outputs
    of_neuron = is_by_neuron(amplitude, feature_dim=1)
    product = None
    if backend == "cpu" and of_neuron and takes_scaled(amplitude, timesteps, bytes.shape[1], len(weight), groups):
        product = scaled_convolution
    elif backend == "cpu" and timesteps and groups == 1 and not of_neuron:
        product = convolution_arguments
    projection = None
    if residual_weight is not None:
        projection = Synapses(residual_weight[:, :, None, None], residual_scale, None)

    def projected(method: str) -> Tensor:
        how = (*POINTS, 1, method, backend)
        return torch.ops.snn_kernels.spike_conv2d(residual, timesteps, *projection, residual_amplitude, *how)

    added = Residual(residual, residual_amplitude, timesteps, feature_dim=2)
    at_points = None if product is None else partial(product, geometry=POINTS)
    added, more = _with_projection(added, projection, at_points, of_neuron, projected)
    if product is not None:
        products = [product(bytes, timesteps, synapses, amplitude, geometry), *more]
        _fused(products, timesteps, added, neuron, order, outputs, scaled=of_neuron)
    elif backend in GPU_BACKENDS and not of_neuron:
        operands = (bytes, timesteps, synapses, amplitude)
        gpu.convolution_signgd(backend, *operands, geometry, groups, added.by_feature(), neuron, order, outputs)
    else:
        current = torch.ops.snn_kernels.spike_conv2d(
            bytes, timesteps, *synapses, amplitude, *geometry, groups, "auto", backend
        )
        _apart(added.added_to(current), neuron, outputs, backend)
    return outputs


def _apart(current: Tensor, neuron: Sequence, outputs: tuple, backend: str) -> None:
    eta, offset, x, scale, parameters, v, activation = neuron
    operands = Operands([offset], scale, parameters)
    bytes, after = run_neuron([current], eta, activation, operands, State((x,), v), Momentum(), backend)
    for out, value in zip(outputs, (bytes, after.x[0], after.v)):
        out.copy_(value)


def _fused(
    products: Sequence[Arguments],
    timesteps: int,
    residual: Residual,
    neuron: Sequence,
    order: Order,
    outputs: tuple[Tensor, Tensor, Tensor],
    scaled: bool,
) -> None:
    eta, offset, x, scale, parameters, v, activation = neuron
    numbers = [arguments for arguments, _alive in products]
    bytes, x_out, v_out = outputs
    arguments, _alive_too = neuron_arguments(
        activation,
        timesteps,
        [("float32", 0, 0, (0, 1, 1))],  # of no currents: they stay in the caches
        eta,
        Operands([offset], scale, parameters),
        [x],
        v,
        Momentum(),
        order,
        (bytes, [x_out], v_out, []),
    )
    if scaled:
        current, train, _alive_as_well = residual.of_samples()
        C.scaled_gemm_signgd_cpu(numbers, current, train, arguments, torch.get_num_threads())
    else:
        current, train, _alive_as_well = residual.by_feature().arguments()
        C.spike_gemm_signgd_cpu(numbers, current, train, arguments, torch.get_num_threads())
