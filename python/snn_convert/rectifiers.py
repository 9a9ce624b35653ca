"""Populations that follow a clipped ReLU: subgradient, integrate-and-fire and parallel spiking neurons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from snn_kernels import NeuronState, SpikeTrain, integrate_and_fire, pack, parallel_spikes, subgradient

from .packed import Current, Emission, as_dense
from .population import Population
from .qcfs import qcfs_op

__all__ = [
    "DYNAMICS",
    "IntegrateAndFirePopulation",
    "ParallelPopulation",
    "QCFSPopulation",
    "SubgradientPopulation",
]


class DrivenState(NamedTuple):
    """The state of neurons whose current is that of the feeding neurons and a ``drive`` that no neuron carries.

    ``x`` is the decoded input (the membrane potential in integrate-and-fire neurons), ``v`` the own output estimate.
    """

    x: Tensor
    v: Tensor
    drive: Tensor


class Rectifier(Population):
    """A population whose output estimate follows ``clip(x, 0, scale)``.

    Its offset is the current with no feeding neuron firing. What reaches it through no neuron, such as the input of
    the first layer, is part of the current at every step: the drive.
    """

    product_method = "auto"  # such trains are sparse
    rectifies = True
    learned = False  # whether the scale came with the network and is not to be calibrated

    def offset_of(self, firing: Tensor, silent: Tensor) -> Tensor:
        return silent

    def drive(self, x: Tensor, offset: Tensor) -> Tensor:
        """What ``x``, the input with every feeding neuron's estimate 0, holds beside the neurons' affine map."""
        return x - offset


class SubgradientPopulation(Rectifier):
    """Subgradient neurons (Oh & Lee, ICML 2024), see :func:`snn_kernels.subgradient`."""

    def begin(self, x: Sequence[Tensor], offsets: Sequence[Tensor]) -> DrivenState:
        return DrivenState(x[0], self.v0.expand(x[0].shape), self.drive(x[0], offsets[0]))

    def advance(
        self, currents: Sequence[Current], eta: Tensor, state: DrivenState, offsets: Sequence[Tensor]
    ) -> tuple[Emission, DrivenState]:
        current = as_dense(currents[0]) + state.drive
        train, after = subgradient(current, eta, scale=self.scale, state=NeuronState(state.x, state.v))
        return Emission.of(train, self.scale), state._replace(x=after.x, v=after.v)

    def chase(self, x: Sequence[Tensor], eta: Tensor, v: Tensor, timesteps: int) -> tuple[SpikeTrain, Tensor]:
        current = x[0].expand(len(eta), *x[0].shape)
        train, after = subgradient(current, eta, scale=self.scale, state=NeuronState(x[0], v))
        return train, after.v

    def estimate_after(self, v: Tensor, step: Tensor, spike: Tensor) -> Tensor:
        return v - step * (v - self.scale * spike)


class IntegrateAndFirePopulation(Rectifier):
    """Integrate-and-fire neurons with a soft reset, see :func:`snn_kernels.integrate_and_fire`.

    The threshold is the scale and the membrane starts at half of it, so that the spike count is rounded, not cut. The
    estimate is ``scale`` times the firing rate so far.
    """

    def begin(self, x: Sequence[Tensor], offsets: Sequence[Tensor]) -> DrivenState:
        start = (0.5 * self.scale).expand(x[0].shape)
        return DrivenState(start, self.v0.expand(x[0].shape), self.drive(x[0], offsets[0]))

    def advance(
        self, currents: Sequence[Current], eta: Tensor, state: DrivenState, offsets: Sequence[Tensor]
    ) -> tuple[Emission, DrivenState]:
        current, membrane = as_dense(currents[0]) + state.drive, NeuronState(None, state.x)
        train, after = integrate_and_fire(current, threshold=self.scale, state=membrane)
        v = state.v
        for step, spike in zip(eta, train.unpack()):
            v = v - step * (v - self.scale * spike)
        return Emission.of(train, self.scale), state._replace(x=after.v, v=v)


class ParallelPopulation(Rectifier):
    """Parallel spiking neurons (Hao et al., ICML 2025), see :func:`snn_kernels.parallel_spikes`.

    They read the mean of a complete current, and their estimate is ``(scale + post) * count / T``. ``pre`` is added to
    the current; ``pre`` and ``post`` are the corrections of DA-QCFS. Step sizes are ``1 / T``.
    """

    def _prepare(self, arity: int, channel_dim: int | Sequence[int]) -> None:
        super()._prepare(arity, channel_dim)
        self.register_buffer("pre", torch.zeros((), dtype=torch.float32))
        self.register_buffer("post", torch.zeros((), dtype=torch.float32))

    def quantised(self, x: Tensor, timesteps: int) -> Tensor:
        """The estimate after all steps of the mean current ``x``."""
        eta = torch.full((timesteps,), 1.0 / timesteps, dtype=torch.float32, device=x.device)
        return self.chase([x], eta, torch.zeros_like(x), timesteps)[1]

    def chase(self, x: Sequence[Tensor], eta: Tensor, v: Tensor, timesteps: int) -> tuple[SpikeTrain, Tensor]:
        amplitude = self.scale + self.post
        current = x[0].expand(timesteps, *x[0].shape)
        train = parallel_spikes(current, self.scale, shift=self.pre)
        count = train.unpack().sum(0)
        if len(eta) < timesteps:
            # Spikes come first, so those still owed are the next ones.
            owed = count - (v * timesteps / amplitude).round()
            steps = torch.arange(len(eta), device=eta.device).reshape(-1, *[1] * v.ndim)
            train = pack(steps < owed)
            count = count - (owed - len(eta)).clamp(min=0)
        return train, amplitude * (count / timesteps)


class QCFSPopulation(ParallelPopulation):
    """Parallel spiking neurons in place of a :class:`~snn_convert.QCFS`, with its threshold."""

    learned = True

    def __init__(self, threshold: Tensor, levels: int, channel_dim: int | Sequence[int]):
        super(Population, self).__init__()
        self.activation, self.constants, self.levels = "qcfs", [], levels
        self._prepare(1, channel_dim)
        self.scale = threshold.detach().float()

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "levels": self.levels}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> QCFSPopulation:
        return cls(torch.ones(()), settings["levels"], settings["channel_dims"])._in_batch(settings)

    def forward(self, x: Tensor) -> Tensor:
        return qcfs_op(x, self.scale, self.levels)


# What a recipe may name as its dynamics beside signGD.
DYNAMICS: dict[str, Callable[..., Population]] = {
    "signgd": Population,
    "subgradient": SubgradientPopulation,
    "integrate_and_fire": IntegrateAndFirePopulation,
    "parallel": ParallelPopulation,
}
