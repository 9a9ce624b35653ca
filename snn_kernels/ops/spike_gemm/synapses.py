"""What the spikes of a product are multiplied with, and what is added."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ...quantized_weight import QuantizedWeight

__all__ = ["Synapses"]


class Synapses(NamedTuple):
    """``current[n] = bias[n] + scale[n] * sum_k weight[n, k] * spike[k]``.

    The order is that of the ops' schemas.
    """

    weight: Tensor  # [N, *]; int8 if there is a scale
    scale: Tensor | None  # [N] float32
    bias: Tensor | None  # [N]

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    def values(self) -> Tensor:
        """What sums are made of, in float32, contiguous."""
        return self.weight.float().contiguous()

    def dequantized(self) -> Tensor:
        """The weights as floating-point numbers."""
        return self.weight if self.scale is None else QuantizedWeight(self.weight, self.scale).dequantize()

    def floats(self) -> tuple[Tensor | None, Tensor | None]:
        """Scale and bias in contiguous float32."""
        return tuple(None if value is None else value.float().contiguous() for value in self[1:])
