"""A population of signGD neurons in a converted network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from snn_kernels import NeuronState, SpikeTrain, signgd, signgd_binary
from snn_kernels.activations import ActivationSpec, resolve

from .packed import Current, Emission, Product, Ramp, as_dense, as_received

__all__ = ["Population", "chase"]


def chase(
    x: Sequence[Tensor], eta: Tensor, activation: ActivationSpec, scale: Tensor, v: Tensor
) -> tuple[SpikeTrain, Tensor]:
    """Neurons whose decoded inputs are constant: no current and no offset leave them as they are, bit for bit."""
    neurons = torch.broadcast_tensors(*x)[0]
    silence = torch.zeros_like(neurons).expand(len(eta), *neurons.shape)
    neuron = {"scale": scale, "state": NeuronState(x[0] if len(x) == 1 else tuple(x), v)}
    if len(x) == 1:
        train, state = signgd(silence, eta, activation, offset=0.0, **neuron)
    else:
        train, state = signgd_binary(silence, silence, eta, activation, offset=(0.0, 0.0), **neuron)
    return train, state.v


class Population(nn.Module):
    """Neurons that chase one nonlinearity of one place in the network.

    Called like the nonlinearity it stands for, it computes ``h`` exactly: a network of populations is still the ANN.
    :meth:`advance` runs the neurons.

    Attributes:
        activation: name of ``h`` in ``snn_kernels.ACTIVATIONS``; ``parameters_`` are its parameters.
        scale, v0: output scale ``c`` and initial estimate; broadcast against one sample.
        offset_0, offset_1: the current with every feeding neuron firing plus the one with none firing, per input.
        channel_dims: the dimensions of the output that a per-channel scale runs along.
        batch_dim: the dimension that holds the samples.
        rectifies: whether the output follows a clipped ReLU, whatever ``h`` is.
        product_method: how a product of packed trains in front of it is taken: these trains are half full.

    Whatever precision the network is brought to, all of this stays float32. A lower precision rounds the scale to a
    value that it holds, so that what a spike is worth to the neuron and to those it feeds is one number.
    """

    product_method = "dense"
    rectifies = False

    def __init__(self, activation: ActivationSpec, arity: int = 1, channel_dim: int | Sequence[int] = 1):
        super().__init__()
        row, values = resolve(activation, arity)
        self.activation = row.name
        self._function = row.function
        self.constants = [f"constant_{i}" for i in range(len(values))]
        for name, value in zip(self.constants, values):
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32))
        self._prepare(arity, channel_dim)

    def _prepare(self, arity: int, channel_dim: int | Sequence[int]) -> None:
        dims = (channel_dim,) if isinstance(channel_dim, int) else channel_dim
        self.arity, self.channel_dims = arity, tuple(dims)
        self.batch_dim = 0
        self.register_buffer("scale", torch.ones((), dtype=torch.float32))
        self.register_buffer("v0", torch.zeros((), dtype=torch.float32))
        for k in range(arity):
            self.register_buffer(f"offset_{k}", torch.zeros((), dtype=torch.float32))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Population:
        precision = fn(torch.empty_like(self.scale)).dtype
        super()._apply(_moving_alone(fn), recurse)
        if precision != torch.float32:
            self.scale = self.scale.to(precision).float()
        return self

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest: Any) -> None:
        """What was calibrated is taken in the shape it comes in: a number, one a channel or one a neuron."""
        for name in self._buffers.keys() - set(self.constants):
            found = state_dict.get(prefix + name)
            if isinstance(found, Tensor):
                setattr(self, name, torch.empty_like(found, dtype=torch.float32, device=self.scale.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def settings(self) -> dict[str, Any]:
        """Everything but the tensors, in numbers, strings and lists: what :meth:`from_settings` takes."""
        shared = {"arity": self.arity, "channel_dims": list(self.channel_dims), "batch_dim": self.batch_dim}
        return {"activation": self.activation, "constants": [list(c.shape) for c in self._constants()], **shared}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Population:
        """A population like the one whose settings these are; its tensors are yet to be loaded."""
        activation = (settings["activation"], *map(torch.zeros, settings["constants"]))
        return cls(activation, settings["arity"], settings["channel_dims"])._in_batch(settings)

    def _in_batch(self, settings: dict[str, Any]) -> Population:
        self.batch_dim = settings["batch_dim"]
        return self

    @property
    def offsets(self) -> list[Tensor]:
        return [getattr(self, f"offset_{k}") for k in range(self.arity)]

    def set_offsets(self, offsets: Sequence[Tensor]) -> None:
        for k, offset in enumerate(offsets):
            setattr(self, f"offset_{k}", offset)

    def _constants(self) -> list[Tensor]:
        return [getattr(self, name) for name in self.constants]

    def parameter_values(self) -> list[Tensor]:
        """The parameters of the function that distinguish it from others of its name."""
        return self._constants()

    def forward(self, *x: Tensor) -> Tensor:
        return self._function(*x, *self._constants())

    def initial_state(self, x: Sequence[Tensor]) -> NeuronState:
        """The state before the first step, from the decoded inputs ``L(v0)``."""
        shape = torch.broadcast_shapes(*(xi.shape for xi in x))
        return NeuronState(tuple(xi.expand(shape) for xi in x), self.v0.expand(shape))

    def begin(self, x: Sequence[Tensor], offsets: Sequence[Tensor]) -> NeuronState:
        """The state before the first step, where the inputs deliver ``offsets``."""
        return self.initial_state(x)

    def offset_of(self, firing: Tensor, silent: Tensor) -> Tensor:
        """An input's offset, from its current with every feeding neuron firing and with none."""
        return firing + silent

    def estimate_after(self, v: Tensor, step: Tensor, spike: Tensor) -> Tensor:
        """The estimate after a step of size ``step`` from ``v``, with (1) or without (0) a spike."""
        return v - step * self.scale * (2 * spike - 1)

    def advance(
        self, currents: Sequence[Current], eta: Tensor, state: NeuronState, offsets: Sequence[Tensor]
    ) -> tuple[Emission, NeuronState]:
        """Run ``len(eta)`` steps from ``state``; currents may be what a population sends, or products not yet taken."""
        activation = (self.activation, *self._constants())
        if self.arity == 2:
            pair, amplitude = _alike(*currents)
            neuron = {"amplitude": amplitude, "offset": tuple(offsets), "scale": self.scale, "state": state}
            train, state = signgd_binary(*pair, eta, activation, **neuron)
            return Emission.of(train, self.scale), state
        (current,), (offset,) = currents, offsets
        neuron = {"offset": offset, "scale": self.scale, "state": NeuronState(state.x[0], state.v)}
        if isinstance(current, Product):
            train, after = current.fires(eta, activation, **neuron)
        elif isinstance(current, Ramp):
            train, after = _fires_along(current, eta, activation, **neuron)
        else:
            received, amplitude = as_received(current)
            train, after = signgd(received, eta, activation, amplitude=amplitude, **neuron)
        return Emission.of(train, self.scale), NeuronState((after.x,), after.v)

    def chase(self, x: Sequence[Tensor], eta: Tensor, v: Tensor, timesteps: int) -> tuple[SpikeTrain, Tensor]:
        """Run ``len(eta)`` of ``timesteps`` steps from the estimate ``v`` while the decoded inputs stay as they are.

        Returns:
            The spikes and the estimate after them.
        """
        return chase(x, eta, (self.activation, *self._constants()), self.scale, v)

    def extra_repr(self) -> str:
        low, high = self.scale.min().item(), self.scale.max().item()
        return f"{self.activation}, scale {low:.3g}..{high:.3g}"


def _fires_along(
    ramp: Ramp, eta: Tensor, activation: ActivationSpec, state: NeuronState, **neuron: Any
) -> tuple[SpikeTrain, NeuronState]:
    """A byte of steps at a time, whose currents stay in the caches."""
    trains = []
    for current, steps in zip(ramp.pieces(8), eta.split(8)):
        train, state = signgd(current, steps, activation, state=state, **neuron)
        trains.append(train)
    return SpikeTrain.join(trains), state


def _alike(a: Current, b: Current) -> tuple[tuple, tuple]:
    """Two inputs of one shape, both trains or both dense, and what their spikes are worth."""
    values, amplitudes = zip(*map(as_received, (a, b)))
    if all(isinstance(value, SpikeTrain) for value in values):
        bytes = torch.broadcast_tensors(*(train.bytes for train in values))
        return tuple(SpikeTrain(part, train.timesteps) for part, train in zip(bytes, values)), amplitudes
    values = torch.broadcast_tensors(*map(as_dense, (a, b)))
    common = torch.promote_types(*(value.dtype for value in values))  # products are float32 whatever the precision
    return tuple(value.to(common) for value in values), (None, None)


def _moving_alone(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``fn`` without its change of precision."""

    def move(tensor: Tensor) -> Tensor:
        moved = fn(tensor)
        return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

    return move
