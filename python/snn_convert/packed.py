"""What travels between the layers of a running network without being unpacked: trains, and products not yet taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from snn_kernels import (
    NeuronState,
    QuantizedWeight,
    SpikeTrain,
    spike_conv2d,
    spike_conv2d_signgd,
    spike_linear,
    spike_linear_signgd,
)
from snn_kernels.backends import choose
from snn_kernels.ops.spike_gemm.checks import GPU_BACKENDS, is_by_neuron, is_by_row, pair
from snn_kernels.ops.spike_gemm.cpu import resolve_method, takes_scaled
from snn_kernels.ops.spike_gemm.rows import convolution_shape

from .rules import argument

__all__ = [
    "JOINING",
    "LAYOUT",
    "PRODUCTS",
    "SCALING",
    "Current",
    "Emission",
    "Product",
    "Ramp",
    "as_dense",
    "as_received",
    "is_sum",
    "on_gpu",
    "with_residual",
]

aten = torch.ops.aten

# Operations that only move a population's neurons: they act on the packed bytes as they do on values.
LAYOUT = {
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.permute.default,
    aten.transpose.int,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.slice.Tensor,
    aten.select.int,
    aten.index_select.default,
}
# Operations that put populations' neurons side by side.
JOINING = {aten.cat.default, aten.stack.default}
# Operations that multiply each neuron by a constant: they act on what a spike is worth.
SCALING = {aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar, aten.neg.default}
# Affine maps that read packed trains, by the dimension of the train that an amplitude may run along.
PRODUCTS = {aten.linear.default: -1, aten.conv2d.default: 1}


class Emission:
    """What a population sends downstream in a few steps: its spikes, and what they are worth on demand.

    ``scale`` is what each of them is worth, broadcast against one step, where that is what they are worth.
    """

    def __init__(self, train: SpikeTrain, dense: Callable[[], Tensor], scale: Tensor | None = None):
        self.train, self.scale, self._make_dense, self._dense = train, scale, dense, None

    @staticmethod
    def of(train: SpikeTrain, scale: Tensor) -> Emission:
        """Spikes each worth ``scale``."""
        return Emission(train, lambda: train.unpack().mul_(scale), scale)

    @staticmethod
    def joined(parts: Sequence[Any], join: Callable[..., Tensor]) -> Emission | None:
        """Those of several populations after an operation that joins one step's values; ``None`` where what one sends
        is not spikes that are each worth a scale."""
        if not all(isinstance(part, Emission) and part.scale is not None for part in parts):
            return None
        train = SpikeTrain(torch.vmap(join)(*(part.train.bytes for part in parts)), parts[0].train.timesteps)
        return Emission.of(train, join(*(part.scale.expand(part.train.shape) for part in parts)).float())

    @property
    def shape(self) -> tuple[int, ...]:
        """``[T, B, *]``."""
        return (self.train.timesteps, *self.train.shape)

    def dense(self) -> Tensor:
        """``[T, B, *]`` float32."""
        if self._dense is None:
            self._dense = self._make_dense()
        return self._dense

    def moved(self, move: Callable[[Tensor], Tensor]) -> Emission:
        """The emission after a layout operation on one step's values."""
        over_time = torch.vmap(move)
        train = SpikeTrain(over_time(self.train.bytes), self.train.timesteps)
        scale = None if self.scale is None else move(self.scale.expand(self.train.shape)).float()
        return Emission(train, lambda: over_time(self.dense()), scale)

    def times(self, multiply: Callable[[Tensor], Tensor]) -> Emission | None:
        """The emission after a multiplication of each neuron's value by a constant, if its spikes are worth a scale."""
        if self.scale is None:
            return None
        scale = multiply(self.scale.expand(self.train.shape)).float()
        return Emission.of(self.train, scale) if scale.shape == self.train.shape else None


@dataclass
class Ramp:
    """Values that change along a straight line, ``ends[0] + position[t] (ends[1] - ends[0])``: what a ``float``
    encoder sends, and what affine maps make of it, which are evaluated at the two ends in place of every step.

    ``ends`` is ``[2, B, *]``, ``position`` ``[T]``.
    """

    ends: Tensor
    position: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """``[T, B, *]``."""
        return (len(self.position), *self.ends.shape[1:])

    def dense(self) -> Tensor:
        """``[T, B, *]`` float32."""
        (values,) = self.pieces(len(self.position))
        return values

    def pieces(self, steps: int) -> Iterator[Tensor]:
        """The values of so many steps at a time, each time in the memory of those before."""
        start, end = self.ends.float()
        slope, values = end - start, start.new_empty(steps, *start.shape)
        for position in self.position.view(-1, *(1 for _ in start.shape)).split(steps):
            yield torch.addcmul(start, position, slope, out=values[: len(position)])


@dataclass
class Product:
    """A linear map or convolution of a train, taken when its currents are asked for, or never, by the fused op.

    ``residual`` is what a shortcut adds to it: a current ``[T, B, *]``; what a population sends, which stays packed
    where its spikes are each worth the ``residual_amplitude`` of their feature or neuron; or a product that projects.
    ``taken`` says how it was taken, once it has been: ``fused`` or a method of :func:`snn_kernels.spike_linear`.
    """

    train: SpikeTrain
    weight: Tensor | QuantizedWeight
    bias: Tensor | None
    geometry: tuple[Any, ...] | None  # stride, padding, dilation, groups of a convolution
    amplitude: Tensor | None
    method: str
    residual: Tensor | Emission | Product | None = None
    residual_amplitude: Tensor | None = None
    taken: str | None = None
    _dense: Tensor | None = None

    @staticmethod
    def of(
        node: fx.Node, train: SpikeTrain, amplitude: Tensor, value: Callable[[Any], Any], method: str
    ) -> Product | None:
        """The product that ``node`` takes of ``train``; ``value`` gives the value of its other arguments.

        ``None`` where each neuron has an amplitude of its own and PyTorch's product is the faster one.
        """
        weight, bias = value(node.args[1]), argument(node, 2, "bias")
        bias = None if bias is None else value(bias)
        if node.target is aten.linear.default:
            geometry = None
        else:
            defaults = (("stride", [1, 1]), ("padding", [0, 0]), ("dilation", [1, 1]), ("groups", 1))
            geometry = tuple(argument(node, 3 + i, name, default) for i, (name, default) in enumerate(defaults))
        if isinstance(weight, QuantizedWeight) and amplitude.ndim == 1:
            amplitude = None  # it is in the weights
        product = Product(train, weight, bias, geometry, amplitude, method)
        return product if product._is_worthwhile() else None

    @property
    def _by_neuron(self) -> bool:
        return is_by_neuron(self.amplitude, feature_dim=-1 if self.geometry is None else 1)

    def _is_worthwhile(self) -> bool:
        groups = self.geometry[3] if self.geometry else 1
        sizes = (self.train.timesteps, self.train.shape[0], self.weight.shape[0], groups)
        return not self._by_neuron or takes_scaled(self.amplitude, *sizes)

    def dense(self) -> Tensor:
        """The currents ``[T, B, *]``."""
        if self._dense is None:
            product = spike_linear if self.geometry is None else spike_conv2d
            geometry = self.geometry or ()
            self.taken = self._resolved_method()
            self._dense = product(
                self.train, self.weight, self.bias, *geometry, amplitude=self.amplitude, method=self.taken
            )
            if self.residual is not None:
                self._dense = self._dense + as_dense(self.residual)
        return self._dense

    def _resolved_method(self) -> str:
        if self._by_neuron or on_gpu(self.weight):
            return "dense"
        rows = math.prod(self.shape[1:]) // self.weight.shape[0]
        groups = self.geometry[3] if self.geometry else 1
        weight = self.weight.values if isinstance(self.weight, QuantizedWeight) else self.weight
        return resolve_method(self.method, self.train.bytes, self.train.timesteps, rows, weight, groups)

    @property
    def shape(self) -> tuple[int, ...]:
        """``[T, B, *]`` of the currents."""
        batch, *features = self.train.shape
        if self.geometry is None:
            return (self.train.timesteps, batch, *features[:-1], self.weight.shape[0])
        size = convolution_shape(features[1:], self.weight.shape[2:], *map(pair, self.geometry[:3]))
        return (self.train.timesteps, batch, self.weight.shape[0], *size)

    def fires(self, eta: Tensor, activation: tuple, **neuron: Any) -> tuple[SpikeTrain, NeuronState]:
        """The train of the unary neurons behind the product, whose currents never exist in memory."""
        self.taken = "fused"
        fused = spike_linear_signgd if self.geometry is None else spike_conv2d_signgd
        geometry = self.geometry or ()
        neuron["amplitude"], bias = self.amplitude, self.bias
        if isinstance(self.residual, Product):
            neuron |= self.residual._as_projection()
            biases = [bias.float() for bias in (self.bias, self.residual.bias) if bias is not None]
            bias = sum(biases) if biases else None
        elif self.residual_amplitude is not None:
            neuron |= {"residual": self.residual.train, "residual_amplitude": self.residual_amplitude}
        else:
            neuron["residual"] = as_dense(self.residual)
        return fused(self.train, self.weight, bias, eta, activation, *geometry, **neuron)

    def projects_onto(self, product: Product) -> bool:
        """Whether the fused op of ``product`` can take this one along: a linear map or 1x1 convolution of its kind."""
        if self.residual is not None or self._dense is not None or on_gpu(self.weight):
            return False
        if self._by_neuron != product._by_neuron or (self.geometry is None and is_by_row(self.amplitude)):
            return False
        if self.geometry is None or product.geometry is None:
            return self.geometry is product.geometry
        _, padding, _, groups = self.geometry
        points = self.weight.shape[2:] == (1, 1) and pair(padding) == [0, 0]
        return points and groups == 1 == product.geometry[3]

    def _as_projection(self) -> dict[str, Any]:
        """The arguments of a fused op that takes this product along."""
        train, amplitude = self.train, self.amplitude
        if self.geometry is not None:
            of_points = (..., *(slice(None, None, step) for step in pair(self.geometry[0])))
            train = SpikeTrain(train.bytes[of_points], train.timesteps)
            amplitude = amplitude[of_points] if self._by_neuron else amplitude
        return {"residual": train, "residual_amplitude": amplitude, "residual_weight": self.weight.flatten(1)}


# What reaches a population: currents [T, B, *], or what they are yet to be computed from.
Current = Tensor | Product | Emission | Ramp


def as_dense(value: Any) -> Any:
    """A value as the affine operations of PyTorch take it."""
    return value.dense() if isinstance(value, (Emission, Product, Ramp)) else value


def as_received(value: Any) -> tuple[SpikeTrain | Tensor, Tensor | None]:
    """What reaches a population as its neurons take it: a train and what a spike is worth, or currents."""
    if isinstance(value, Emission) and value.scale is not None:
        return value.train, value.scale
    return as_dense(value), None


def with_residual(summands: Mapping[fx.Node, Any], amplitude: Tensor | None = None) -> Product | None:
    """The sum of two currents as one product with the other as its residual; ``None`` where there is no such product:
    one that no other node reads, of the shape of the other current.

    ``amplitude`` is what a spike of the other is worth, one number a feature of the product, if that is known.
    """
    products = [node for node, value in summands.items() if isinstance(value, Product) and len(node.users) == 1]
    if len(summands) != 2 or not products:
        return None
    largest = max(products, key=lambda node: summands[node].weight.shape[1:].numel())
    ((source, other),) = ((node, value) for node, value in summands.items() if node is not largest)
    product = summands[largest]
    packed = isinstance(other, Emission) and amplitude is not None
    if not packed and not (source in products and other.projects_onto(product)):
        other = as_dense(other).float()  # like a product, whatever the precision
    if product.residual is not None or product.shape != other.shape:
        return None
    return replace(product, residual=other, residual_amplitude=amplitude if packed else None)


def is_sum(node: fx.Node) -> bool:
    """Whether the operation adds two values of the network as they are. (A number in its code is part of a current.)"""
    return node.target is aten.add.Tensor and len(node.all_input_nodes) == 2 and not node.kwargs


def on_gpu(tensor: Tensor) -> bool:
    """Whether packed products of operands beside this one are taken by a GPU's kernels."""
    return choose(None, tensor.device) in GPU_BACKENDS
