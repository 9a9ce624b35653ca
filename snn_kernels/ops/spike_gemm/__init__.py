"""Linear maps and convolutions that read packed spike trains: checks, torch registration and the choice of method."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...layout import empty_steps
from ...quantized_weight import QuantizedWeight
from ...spike_train import SpikeTrain
from . import gpu
from .checks import (
    GPU_BACKENDS,
    check_method,
    checked_convolution,
    checked_linear,
    choose_product,
    features_last,
    is_by_neuron,
)
from .cpu import convolution_cpu, linear_cpu, resolve_method, takes_scaled
from .fused import spike_conv2d_signgd, spike_linear_signgd
from .reference import convolution_reference, linear_reference
from .rows import convolution_shape
from .scaled import scaled_convolution, scaled_linear, write_currents
from .synapses import Synapses

__all__ = ["spike_conv1d", "spike_conv2d", "spike_conv2d_signgd", "spike_linear", "spike_linear_signgd"]


def spike_linear(
    train: SpikeTrain,
    weight: Tensor | QuantizedWeight,
    bias: Tensor | None = None,
    *,
    amplitude: Tensor | float | None = None,
    method: str = "auto",
    backend: str | None = None,
) -> Tensor:
    """A linear map of a packed spike train, without unpacking it.

    ``current[t, ..., n] = bias[n] + sum_k weight[n, k] * amplitude[k] * spike[t, ..., k]``

    Args:
        train: ``T`` steps of shape ``[*batch, K]``.
        weight: ``[N, K]`` float32, float16 or bfloat16, or a :class:`~snn_kernels.QuantizedWeight`, of 8 bits.
        bias: ``[N]`` in one of these types, or ``None``.
        amplitude: what a spike is worth, in float32: a number, or ``[K]``, one for each input, folded into the weights;
            or one for each row, ``[*batch, 1]`` or what broadcasts to it, by which the sum is multiplied; or one for
            each neuron, ``[*batch, K]`` or what broadcasts to it. With weights of 8 bits not one for each input.
        method: ``dense`` (sums of five inputs looked up in registers, or AMX's tiles), ``event`` (only the weights of
            inputs that fire are read), ``unpack`` (PyTorch's own product of the dense spikes) or ``auto``: ``unpack``
            for fewer than 8 rows; else ``event`` for at least 128 outputs (48 of a convolution with windows) where less
            than 8% of the bits are 1 (with AMX 5%, for weights of 8 bits 2%; with AVX2 24%, without vectors 5%); else
            ``dense`` with AVX-512 or AVX2; else ``unpack``. On a GPU ``dense`` is on tensor cores and ``auto`` takes
            it: counting spikes would wait for the GPU. With an amplitude for each neuron there are ``dense``, on the
            ``cpu`` backend and where the samples (dimension 0) have the same, and ``unpack``; ``auto`` takes ``dense``
            for at least 16 steps of samples and 16 outputs, if there is AVX2.
        backend: ``None`` for the fastest here, or a name that runs or raises.

    Returns:
        Currents ``[T, *batch, N]`` in float32, which carry no gradient, by whatever method.

        ``dense`` and ``event`` round ``weight * amplitude`` once, to 32-bit fixed-point numbers. Their unit is a power
        of two for each output, at most about ``2**-30`` of the larger of the sums of its positive and of its negative
        weights. They are added exactly and the sum is rounded to float32, so both methods give the same currents, bit
        for bit, on every instruction set. An output with a weight that is not finite has NaN for all currents. With an
        amplitude for each neuron ``dense`` has a unit for each row and output, at most about ``2**-30`` of the length
        of the weights times that of the amplitudes. ``unpack`` accumulates as PyTorch does. On tensor cores weights are
        float16 numbers scaled by a power of two for each output: float16 ones exactly, bfloat16 ones up to ``2**-39``
        of the largest weight of the output, and float32 ones (or an amplitude for each input) as the sum of two, up to
        that and ``2**-23`` of the weight itself, the size of a rounding of one float32 addition.

        With weights of 8 bits, and no amplitude or a number, ``current[n] = bias[n] + (scale[n] * amplitude) * sum`` of
        an exact sum (up to ``2**17`` inputs): the same currents, bit for bit, by every method on every backend.

    Raises:
        TypeError, ValueError: an argument that does not fit; it is named.
    """
    synapses, amplitude = checked_linear(train, weight, bias, amplitude)
    backend = choose_product(method, backend, train.device)
    check_method(method, backend, amplitude, feature_dim=-1)
    with torch.no_grad():
        return torch.ops.snn_kernels.spike_linear(train.bytes, train.timesteps, *synapses, amplitude, method, backend)


def spike_conv2d(
    train: SpikeTrain,
    weight: Tensor | QuantizedWeight,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    amplitude: Tensor | float | None = None,
    method: str = "auto",
    backend: str | None = None,
) -> Tensor:
    """A 2d convolution of a packed spike train: an implicit matrix product, with no windows copied out.

    Args:
        train: ``T`` steps of shape ``[B, C, H, W]``.
        weight: ``[N, C / groups, kh, kw]``, as in :func:`spike_linear`.
        bias: ``[N]`` or ``None``.
        stride, padding, dilation, groups: as in ``torch.nn.functional.conv2d``.
        amplitude: what a spike is worth: a number, ``[C]``, or one for each neuron: ``[C, H, W]``, ``[B, C, H, W]`` or
            what broadcasts to them.
        method, backend: as in :func:`spike_linear`.

    Returns:
        Currents ``[T, B, N, H', W']`` in float32, without a gradient; in memory channels last with an amplitude for
        each neuron, and on ``cuda`` and ``triton``. There groups smaller than a tile of 32 outputs and 16 inputs are
        multiplied together, with weights of 0 between them.

    Raises:
        TypeError, ValueError: an argument that does not fit; it is named.
    """
    operands = checked_convolution(train, weight, bias, amplitude, stride, padding, dilation, groups)
    return _convolution(train, *operands, groups, method, backend)


def spike_conv1d(
    train: SpikeTrain,
    weight: Tensor | QuantizedWeight,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    amplitude: Tensor | float | None = None,
    method: str = "auto",
    backend: str | None = None,
) -> Tensor:
    """A 1d convolution of a packed spike train ``[B, C, L]`` with ``[N, C / groups, k]``: see :func:`spike_conv2d`."""
    synapses, amplitude, geometry = checked_convolution(
        train, weight, bias, amplitude, stride, padding, dilation, groups, dims=1
    )
    # An image of one row.
    image, synapses = train[:, :, None], synapses._replace(weight=synapses.weight.unsqueeze(-2))
    if amplitude is not None and amplitude.ndim > 1:  # of neurons
        amplitude = amplitude.unsqueeze(-2)
    geometry = [[of_rows, *given] for of_rows, given in zip((1, 0, 1), geometry)]
    return _convolution(image, synapses, amplitude, geometry, groups, method, backend).squeeze(-2)


def _convolution(train, synapses, amplitude, geometry, groups, method, backend) -> Tensor:
    backend = choose_product(method, backend, train.device)
    check_method(method, backend, amplitude, feature_dim=1, groups=groups)
    with torch.no_grad():
        return torch.ops.snn_kernels.spike_conv2d(
            train.bytes, train.timesteps, *synapses, amplitude, *geometry, groups, method, backend
        )


torch.library.define(
    "snn_kernels::spike_linear",
    "(Tensor bytes, int timesteps, Tensor weight, Tensor? weight_scale, Tensor? bias, Tensor? amplitude, str method, "
    "str backend) -> Tensor",
)
torch.library.define(
    "snn_kernels::spike_conv2d",
    "(Tensor bytes, int timesteps, Tensor weight, Tensor? weight_scale, Tensor? bias, Tensor? amplitude, "
    "int[] stride, int[] padding, int[] dilation, int groups, str method, str backend) -> Tensor",
)


@torch.library.register_fake("snn_kernels::spike_linear")
def _linear_fake(bytes, timesteps, weight, weight_scale, bias, amplitude, method, backend):
    return bytes.new_empty((timesteps, *bytes.shape[1:-1], weight.shape[0]), dtype=torch.float32)


@torch.library.register_fake("snn_kernels::spike_conv2d")
def _conv2d_fake(
    bytes, timesteps, weight, weight_scale, bias, amplitude, stride, padding, dilation, groups, method, backend
):
    size = convolution_shape(bytes.shape[-2:], weight.shape[-2:], stride, padding, dilation)
    return _empty_currents(bytes, (timesteps, bytes.shape[1], weight.shape[0], *size), amplitude, backend)


def _empty_currents(bytes: Tensor, shape: tuple[int, ...], amplitude: Tensor | None, backend: str) -> Tensor:
    order = (0, 2, 3, 1) if features_last(amplitude, backend, feature_dim=1) else (0, 1, 2, 3)
    return empty_steps(shape[0], shape[1:], order, torch.float32, bytes.device)


def _scaled(method: str, amplitude: Tensor, timesteps: int, bytes: Tensor, weight: Tensor, groups: int = 1) -> bool:
    automatic = method == "auto" and takes_scaled(amplitude, timesteps, bytes.shape[1], len(weight), groups)
    return method == "dense" or automatic


@torch.library.impl("snn_kernels::spike_linear", "CompositeExplicitAutograd")
def _linear(bytes, timesteps, weight, weight_scale, bias, amplitude, method, backend):
    synapses = Synapses(weight, weight_scale, bias)
    of_neuron = is_by_neuron(amplitude, feature_dim=-1)
    if of_neuron and backend == "cpu" and _scaled(method, amplitude, timesteps, bytes, weight):
        out = _linear_fake(bytes, timesteps, *synapses, amplitude, method, backend)
        if out.numel():
            write_currents(scaled_linear(bytes, timesteps, synapses, amplitude), out)
        return out
    if backend == "reference" or of_neuron:
        return linear_reference(bytes, timesteps, synapses, amplitude).contiguous()
    if backend in GPU_BACKENDS:
        return gpu.linear(backend, method, bytes, timesteps, synapses, amplitude)
    rows = bytes.shape[1:-1].numel()
    method = resolve_method(method, bytes, timesteps, rows, weight)
    if method == "unpack":
        return linear_reference(bytes, timesteps, synapses, amplitude).contiguous()
    return linear_cpu(bytes, timesteps, synapses, amplitude, method)


@torch.library.impl("snn_kernels::spike_conv2d", "CompositeExplicitAutograd")
def _conv2d(bytes, timesteps, weight, weight_scale, bias, amplitude, stride, padding, dilation, groups, *how):
    (method, backend), geometry = how, (stride, padding, dilation)
    synapses = Synapses(weight, weight_scale, bias)
    if is_by_neuron(amplitude, feature_dim=1):
        if backend == "cpu" and _scaled(method, amplitude, timesteps, bytes, weight, groups):
            out = _conv2d_fake(bytes, timesteps, *synapses, amplitude, *geometry, groups, method, backend)
            product = scaled_convolution(bytes, timesteps, synapses, amplitude, geometry)
            if out.numel():
                write_currents(product, out.permute(0, 1, 3, 4, 2))
            return out
        current = convolution_reference(bytes, timesteps, synapses, amplitude, *geometry, groups)
        return _empty_currents(bytes, current.shape, amplitude, backend).copy_(current)
    if backend == "reference":
        return convolution_reference(bytes, timesteps, synapses, amplitude, *geometry, groups).contiguous()
    size = torch.Size(convolution_shape(bytes.shape[-2:], weight.shape[-2:], *geometry))
    if backend in GPU_BACKENDS:
        out = _empty_currents(bytes, (timesteps, bytes.shape[1], weight.shape[0], *size), amplitude, backend)
        gpu.convolution(backend, method, bytes, timesteps, synapses, amplitude, geometry, groups, out)
        return out
    rows = bytes.shape[1] * size.numel()
    method = resolve_method(method, bytes, timesteps, rows, weight, groups)
    if method == "unpack":
        return convolution_reference(bytes, timesteps, synapses, amplitude, *geometry, groups).contiguous()
    return convolution_cpu(bytes, timesteps, synapses, amplitude, geometry, groups, method)
