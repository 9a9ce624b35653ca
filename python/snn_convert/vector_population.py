"""Neurons whose target is a function of more than their own decoded inputs: a product, a softmax, a normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from snn_kernels import NeuronState, SpikeTrain, decode, signgd_matmul, signgd_target, signgd_vector

from .packed import Current, Emission, as_received
from .population import Population, chase

__all__ = ["VECTOR_FUNCTIONS", "VectorPopulation"]


def _masked_softmax(x: Tensor, keep: Tensor, *, dim: int) -> Tensor:
    """Softmax over the elements where ``keep`` is 1; 0 elsewhere, and in rows that keep none."""
    e = torch.softmax(x.masked_fill(keep == 0, -math.inf), dim)
    return torch.where(keep.amax(dim, keepdim=True) > 0, e, 0.0)


def _group_norm(x: Tensor, *, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    return F.group_norm(x.contiguous(), groups, weight, bias, eps)  # which knows no other memory format under vmap


VECTOR_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "matmul": torch.matmul,
    "einsum": lambda a, b, *, equation: torch.einsum(equation, a, b),
    "softmax": lambda x, *, dim: torch.softmax(x, dim),
    "masked_softmax": _masked_softmax,
    "log_softmax": lambda x, *, dim: torch.log_softmax(x, dim),
    "layer_norm": lambda x, *, shape, weight, bias, eps: F.layer_norm(x, shape, weight, bias, eps),
    "rms_norm": lambda x, *, shape, weight, eps: F.rms_norm(x, shape, weight, eps),
    "group_norm": _group_norm,
}


class VectorPopulation(Population):
    """Neurons that chase one function of whole decoded operands, one neuron an element of its value.

    With operands ``x_k`` and a function ``h``, for every step::

        x_k <- x_k - eta[t] * (2 * current_k[t] - offset_k)
        s[t] = 1 if v >= h(x_1, x_2, ...) else 0                elementwise, against each neuron's own element
        v <- v - eta[t] * scale * (2 * s[t] - 1)

    This is the signGD neuron of Oh & Lee with a target that its neighbours share: for ``matmul`` the product of the
    two decoded matrices. An operand that no neuron feeds has no current and keeps its value.

    Softmax and the normalisations over one dimension are kernels; for the others the operands of all steps are decoded,
    then their targets computed by PyTorch, then the neurons run.
    """

    def __init__(self, function: str, arity: int, channel_dim: int | Sequence[int], **parameters: Any):
        super(Population, self).__init__()
        self.activation, self.constants, self.parameters_ = function, [], {}
        for name, value in parameters.items():
            if isinstance(value, Tensor):
                self.register_buffer(name, value.detach())
                self.constants.append(name)
            else:
                self.parameters_[name] = value
        self._prepare(arity, channel_dim)

    def settings(self) -> dict[str, Any]:
        parameters = {**self.parameters_, **{name: list(getattr(self, name).shape) for name in self.constants}}
        return {**super().settings(), "parameters": parameters, "constants": self.constants}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> VectorPopulation:
        shapes = {name: settings["parameters"][name] for name in settings["constants"]}
        tensors = {name: torch.empty(shape, dtype=torch.float32) for name, shape in shapes.items()}
        parameters = {**settings["parameters"], **tensors}
        return cls(settings["activation"], settings["arity"], settings["channel_dims"], **parameters)._in_batch(
            settings
        )

    def parameter_values(self) -> list[Tensor]:
        return []  # whole tensors of weights

    def forward(self, *x: Tensor) -> Tensor:
        tensors = {name: getattr(self, name) for name in self.constants}
        return VECTOR_FUNCTIONS[self.activation](*x, **self.parameters_, **tensors)

    def initial_state(self, x: Sequence[Tensor]) -> NeuronState:
        return NeuronState(tuple(x), self.v0.expand(self(*x).shape))

    def advance(
        self, currents: Sequence[Current], eta: Tensor, state: NeuronState, offsets: Sequence[Tensor]
    ) -> tuple[Emission, NeuronState]:
        values, amplitudes = zip(*map(as_received, currents))
        fused = self._fused_function(state)
        if fused is not None:
            neuron = {"offset": offsets[0], "scale": self.scale, "state": NeuronState(state.x[0], state.v)}
            train, after = signgd_vector(values[0], eta, fused, amplitude=amplitudes[0], **neuron)
            return Emission.of(train, self.scale), NeuronState((after.x, *state.x[1:]), after.v)
        if self.activation == "matmul":
            neurons = {"offset": tuple(offsets), "scale": self.scale, "state": state}
            train, after = signgd_matmul(*values, eta, amplitude=amplitudes, **neurons)
            return Emission.of(train, self.scale), after
        operands = zip(values, amplitudes, offsets, state.x)
        decoded = [decode(value, eta, amplitude=a, offset=offset, bias=x) for value, a, offset, x in operands]
        state_of_v = NeuronState(None, state.v)
        train, after = signgd_target(torch.vmap(self)(*decoded), eta, scale=self.scale, state=state_of_v)
        return Emission.of(train, self.scale), NeuronState(tuple(x[-1].clone() for x in decoded), after.v)

    def _fused_function(self, state: NeuronState) -> tuple | None:
        """The target as :func:`snn_kernels.signgd_vector` takes it; ``None`` if it is not one of its functions."""
        given = {**self.parameters_, **{name: getattr(self, name) for name in self.constants}}
        if self.activation in ("softmax", "masked_softmax") and given["dim"] in (-1, state.x[0].ndim - 1):
            return ("softmax", *state.x[1:])
        if self.activation == "layer_norm" and len(given["shape"]) == 1:
            return ("layer_norm", _or(given["weight"], 1.0), _or(given["bias"], 0.0), given["eps"])
        if self.activation == "rms_norm" and len(given["shape"]) == 1:
            eps = torch.finfo(torch.float32).eps if given["eps"] is None else given["eps"]
            return ("rms_norm", _or(given["weight"], 1.0), eps)
        return None

    def chase(self, x: Sequence[Tensor], eta: Tensor, v: Tensor, timesteps: int) -> tuple[SpikeTrain, Tensor]:
        return chase([self(*x)], eta, "identity", self.scale, v)  # one target for all steps


def _or(value: Any, default: float) -> Any:
    return default if value is None else value
