"""Checks of the arguments of spike products."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from ...backends import choose
from ...checks import DTYPES, checked_field, kind
from ...quantized_weight import QuantizedWeight
from ...spike_train import SpikeTrain
from .rows import convolution_shape
from .synapses import Synapses

__all__ = [
    "GPU_BACKENDS",
    "METHODS",
    "check_method",
    "checked_convolution",
    "checked_linear",
    "checked_weight",
    "choose_product",
    "features_last",
    "folded_amplitude",
    "is_by_neuron",
    "is_by_row",
    "pair",
]

METHODS = ("auto", "dense", "event", "unpack")
GPU_BACKENDS = ("cuda", "triton")
SPATIAL = {1: ("L", "k"), 2: ("H, W", "kh, kw")}  # sizes of a convolution's images and windows in messages
GPU_METHODS = ("auto", "dense", "event")


def checked_linear(
    train: SpikeTrain, weight: Tensor | QuantizedWeight, bias: Tensor | None, amplitude: Tensor | float | None
) -> tuple[Synapses, Tensor | None]:
    """Check the arguments of a linear map; the amplitude as ``[K]``, ``[*batch, 1]``, ``[1 or B, *rest, K]`` or
    ``None``."""
    synapses = _checked_synapses(train, weight, bias, ndim=2)
    if train.bytes.ndim < 2 or train.shape[-1] != weight.shape[1]:
        given = kind(synapses.weight)
        raise ValueError(f"weight: expected [N, K] for a train of shape {tuple(train.shape)}, got {given}")
    amplitude, scale = folded_amplitude("amplitude", amplitude, synapses.scale, train.shape, -1, train.device)
    return synapses._replace(scale=scale), amplitude


def is_by_row(amplitude: Tensor | None) -> bool:
    """Whether the checked amplitude of a linear map is what the spikes of each row are worth."""
    return amplitude is not None and amplitude.ndim > 1 and amplitude.shape[-1] == 1


def is_by_neuron(amplitude: Tensor | None, feature_dim: int) -> bool:
    """Whether a checked amplitude is what the spikes of each neuron are worth."""
    return amplitude is not None and amplitude.ndim > 1 and (feature_dim == 1 or amplitude.shape[-1] != 1)


def features_last(amplitude: Tensor | None, backend: str, feature_dim: int) -> bool:
    """Whether a product's outputs lie side by side: on tensor cores, and where they are the lanes of the kernel."""
    return backend in GPU_BACKENDS or is_by_neuron(amplitude, feature_dim)


def check_method(method: str, backend: str, amplitude: Tensor | None, feature_dim: int, groups: int = 1) -> None:
    """Refuse a method that does not know the amplitude."""
    if method in ("auto", "unpack") or not is_by_neuron(amplitude, feature_dim):
        return
    if method == "event" or backend != "cpu" or groups > 1:
        raise ValueError(
            "method: expected auto, unpack or, on the cpu backend and without groups, dense with an amplitude for each "
            f"neuron; got {method!r}"
        )
    if len(amplitude) != 1:
        raise ValueError(
            f"amplitude: expected size 1 in dimension 0 for the method dense, got shape {tuple(amplitude.shape)}"
        )


def checked_convolution(
    train: SpikeTrain,
    weight: Tensor | QuantizedWeight,
    bias: Tensor | None,
    amplitude: Tensor | float | None,
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    dims: int = 2,
) -> tuple[Synapses, Tensor | None, list[list[int]]]:
    """Check the arguments of a convolution over ``dims`` dimensions; the amplitude as ``[C]``, ``[1 or B, C, *size]``
    or ``None``, and the geometry as one number a dimension."""
    size, window = SPATIAL[dims]
    synapses = _checked_synapses(train, weight, bias, ndim=2 + dims)
    given = kind(synapses.weight)
    if train.bytes.ndim != 3 + dims:
        raise ValueError(f"train: expected shape [B, C, {size}], got {tuple(train.shape)}")
    channels, outputs = train.shape[1], weight.shape[0]
    (groups,) = _integers("groups", groups, 1, least=1)
    if outputs % groups or weight.shape[1] * groups != channels:
        raise ValueError(
            f"weight: expected [N, {channels} / groups, {window}], N a multiple of groups={groups}, got {given}"
        )
    geometry = [
        _integers("stride", stride, dims, least=1),
        _integers("padding", padding, dims, least=0),
        _integers("dilation", dilation, dims, least=1),
    ]
    if min(convolution_shape(train.shape[2:], weight.shape[2:], *geometry)) < 1:
        raise ValueError(f"weight: its window does not fit into a train of shape {tuple(train.shape)}: {given}")
    amplitude, scale = folded_amplitude("amplitude", amplitude, synapses.scale, train.shape, 1, train.device)
    return synapses._replace(scale=scale), amplitude, geometry


def _checked_synapses(train: SpikeTrain, weight: Tensor | QuantizedWeight, bias: Tensor | None, ndim: int) -> Synapses:
    if not isinstance(train, SpikeTrain):
        raise TypeError(f"train: expected a SpikeTrain, got {type(train).__name__}")
    SpikeTrain.checked(train.bytes, train.timesteps)
    values, scale = checked_weight("weight", weight)
    if values.ndim != ndim or values.device != train.device:
        raise ValueError(f"weight: expected {ndim} dimensions on {train.device}, got {kind(values)}")
    if bias is not None and (not isinstance(bias, Tensor) or bias.dtype not in DTYPES):
        raise TypeError(f"bias: expected a float32, float16 or bfloat16 tensor, got {kind(bias)}")
    if bias is not None and (bias.shape != values.shape[:1] or bias.device != train.device):
        raise ValueError(f"bias: expected shape ({values.shape[0]},) on {train.device}, got {kind(bias)}")
    return Synapses(values, scale, bias)


def checked_weight(name: str, weight: Tensor | QuantizedWeight) -> tuple[Tensor, Tensor | None]:
    """Values and, of a :class:`QuantizedWeight`, their scale."""
    if not isinstance(weight, QuantizedWeight):
        if not isinstance(weight, Tensor) or weight.dtype not in DTYPES:
            given = kind(weight)
            raise TypeError(f"{name}: expected a float32, float16 or bfloat16 tensor or a QuantizedWeight, got {given}")
        return weight, None
    values, scale = weight
    if values.dtype != torch.int8 or scale.dtype != torch.float32:
        raise TypeError(f"{name}: expected int8 values and a float32 scale, got {values.dtype} and {scale.dtype}")
    if scale.shape != values.shape[:1] or scale.device != values.device:
        raise ValueError(f"{name}: expected a scale for each output of {kind(values)}, got {kind(scale)}")
    return weight


def folded_amplitude(
    name: str,
    amplitude: Tensor | float | None,
    scale: Tensor | None,
    shape: Sequence[int],
    feature_dim: int,
    device: torch.device,
) -> tuple[Tensor | None, Tensor | None]:
    """``checked_amplitude`` and the scale of the weights, which with weights of 8 bits has a number in it."""
    checked = checked_amplitude(name, amplitude, shape, feature_dim, device)
    if scale is None or checked is None or checked.ndim > 1:
        return checked, scale
    if isinstance(amplitude, Tensor) and amplitude.numel() != 1:
        raise ValueError(
            f"{name}: expected a number, or one for each row or neuron, with a QuantizedWeight, whose inputs have no "
            f"scale of their own; got {kind(amplitude)}"
        )
    return None, scale * (amplitude.reshape(()) if isinstance(amplitude, Tensor) else amplitude)


def choose_product(method: str, backend: str | None, device: torch.device) -> str:
    """The backend for a product by ``method``; a method that does not exist, or not there, is refused."""
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}; got {method!r}")
    if backend is None and method == "unpack" and device.type != "cpu":
        return "reference"
    backend = choose(backend, device)
    if backend in GPU_BACKENDS and method not in GPU_METHODS:
        raise ValueError(f"method: the {backend} backend has {', '.join(GPU_METHODS)}; got {method!r}")
    return backend


def checked_amplitude(
    name: str, amplitude: Tensor | float | None, shape: Sequence[int], feature_dim: int, device: torch.device
) -> Tensor | None:
    """What a spike of a train of the shape is worth: ``None``; ``[K]``, by feature; ``[*, 1]``, by row, where features
    are last; or ``[1 or B, *rest]``, by neuron."""
    if amplitude is None:
        return None
    features = shape[feature_dim]
    if not isinstance(amplitude, Tensor) or amplitude.ndim < 2:
        return checked_field(name, amplitude, (features,), device).expand(features)
    value = checked_field(name, amplitude, shape, device)
    value = value[(None,) * (len(shape) - value.ndim)]
    if value.shape[feature_dim] == value.numel():
        return value.flatten().expand(features)
    if feature_dim == -1 and value.shape[-1] == 1:
        return value.expand(*shape[:-1], 1)
    return value.expand(len(value), *shape[1:])


def _integers(name: str, value: int | Sequence[int], count: int, least: int) -> list[int]:
    """One number a dimension, from one for all or one each, as PyTorch's convolutions take them."""
    values = value if isinstance(value, (tuple, list)) else (value,)
    fits = all(isinstance(number, Integral) and number >= least for number in values)
    if not fits or len(values) not in (1, count):
        more = "" if count == 1 else f" or {count} of them"
        raise ValueError(f"{name}: expected an integer >= {least}{more}, got {value!r}")
    return [int(number) for number in values] * (count // len(values))


def pair(value: int | Sequence[int]) -> list[int]:
    """One number a spatial dimension from one for both or one each."""
    return [value, value] if isinstance(value, int) else list(value)
