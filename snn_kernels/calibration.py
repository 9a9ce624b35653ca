"""Offsets and resting inputs of the neurons in a user's own network, measured by probing it with known spikes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .modules import SignGDNeuron
from .ops.packing import pack
from .spike_train import SpikeTrain

__all__ = ["calibrate_offsets"]

Emission = Callable[[str, SignGDNeuron, Tensor], Tensor]


@torch.no_grad()
def calibrate_offsets(module: nn.Module, sample: Tensor | tuple | Mapping) -> None:
    """Set ``offset`` and ``bias`` of every :class:`SignGDNeuron` in ``module`` that a call reaches.

    Between neurons the network must be affine: a map ``M`` from the 0 and 1 that the feeding neurons emit, which holds
    their ``scale`` where that is not 1. Then ``offset = M(1) + M(0)``, the current with every neuron firing plus the
    current with none firing, and ``bias = M(v0 / scale)``, what the resting neurons feed (Oh & Lee 2024, section 4).
    They are measured, per neuron, in passes through the network in which every neuron emits what is asked for; two
    more with random spikes and their complement find out whether ``M`` is affine.

    Args:
        module: the network. It is probed in eval mode and left in the mode it was in; states are reset.
        sample: what the network is called with: a tensor, a tuple of arguments or a mapping of keyword arguments.
            Only shapes and dtypes count: floating-point tensors are taken for the spikes of an encoder with scale 1
            that starts at 0, and are replaced by ones and zeros like those of the neurons.

    The measurement is as precise as the network computes: in half precision the offsets are rounded as its sums are.

    Raises:
        ValueError: no SignGDNeuron in ``module``; one that is called more than once; currents that differ between
            steps or samples, or are no affine function of the spikes; a packed neuron in a network with ``v0`` not 0.
    """
    neurons = {name or "module": m for name, m in module.named_modules() if isinstance(m, SignGDNeuron)}
    if not neurons:
        raise ValueError("module: expected a network with at least one SignGDNeuron, found none")
    training = {m: m.training for m in module.modules()}
    module.eval()
    try:
        every = _probe(module, neurons, sample, 1.0, lambda name, neuron, like: torch.ones_like(like))
        none = _probe(module, neurons, sample, 0.0, lambda name, neuron, like: torch.zeros_like(like))
        _check_affine(module, neurons, sample, every, none)
        rest = none
        if any(bool((neuron.v0 != 0).any()) for neuron in neurons.values()):
            rest = _probe(module, neurons, sample, 0.0, _resting)
    finally:
        for m, mode in training.items():
            m.training = mode
        for neuron in neurons.values():
            neuron._probe = None
            neuron.reset()
    for name, current in every.items():
        neurons[name].offset = current + none[name]
        neurons[name].bias = rest[name]


def _resting(name: str, neuron: SignGDNeuron, like: Tensor) -> Tensor:
    if neuron.packed:
        raise ValueError(
            f"{name}: a packed neuron emits spikes only, so what v0 feeds cannot be measured; set packed=False"
        )
    return (neuron.v0 / neuron.scale).to(like.dtype).expand_as(like)


def _probe(
    module: nn.Module, neurons: Mapping[str, SignGDNeuron], sample, value: float, emit: Emission
) -> dict[str, Tensor]:
    """The current of every neuron, float32 ``[*]``, when neurons emit ``emit`` and inputs are all ``value``."""

    def is_input(leaf: object) -> bool:
        return isinstance(leaf, Tensor) and leaf.is_floating_point()

    def constant(leaf):
        return torch.full_like(leaf, value) if is_input(leaf) else leaf

    found: dict[str, Tensor] = {}

    def visit(name: str, neuron: SignGDNeuron, current: Tensor) -> Tensor | SpikeTrain:
        if name in found:
            raise ValueError(f"{name}: is called more than once, and one offset cannot serve two currents")
        found[name] = _one_current(name, current, leading=2 if neuron.step_mode == "m" else 1)
        spikes = emit(name, neuron, current)
        return pack(spikes) if neuron.packed else spikes

    for name, neuron in neurons.items():
        neuron._probe = lambda current, name=name, neuron=neuron: visit(name, neuron, current)
    sample = pytree.tree_map(constant, sample)
    if isinstance(sample, Mapping):
        module(**sample)
    else:
        module(*(sample if isinstance(sample, tuple) else (sample,)))
    return found


def _tolerance(dtype: torch.dtype) -> float:
    """Relative to the largest current: sums of a few thousand terms in float32, a few roundings of their type else."""
    return max(1e-4, 8 * torch.finfo(dtype).eps)


def _largest(tensor: Tensor) -> float:
    return tensor.abs().max().item() if tensor.numel() else 0.0


def _one_current(name: str, current: Tensor, leading: int) -> Tensor:
    """The current that all steps and samples share."""
    if current.ndim < leading or 0 in current.shape[:leading]:
        raise ValueError(f"sample: gives {name} currents of shape {tuple(current.shape)}, without a step and a sample")
    one = current[(0,) * leading]
    if not _largest(current - one) <= _tolerance(current.dtype) * _largest(current):
        raise ValueError(
            f"{name}: its current differs between steps or samples that fire alike: something is not affine"
        )
    return one.float()


def _check_affine(module, neurons, sample, every: Mapping[str, Tensor], none: Mapping[str, Tensor]) -> None:
    """``M(r) + M(1 - r) = M(1) + M(0)`` for random spikes ``r``, the same in all steps and samples."""
    drawn: dict[str, Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}

    def random(name: str, neuron: SignGDNeuron, like: Tensor) -> Tensor:
        leading = 2 if neuron.step_mode == "m" else 1
        shape = like.shape[leading:]
        generator = torch.Generator("cpu").manual_seed(len(drawn))
        drawn[name] = torch.randint(2, shape, generator=generator, device="cpu").to(like)
        dtypes[name] = like.dtype
        return drawn[name].expand_as(like)

    def complement(name: str, neuron: SignGDNeuron, like: Tensor) -> Tensor:
        return (1 - drawn[name]).expand_as(like)

    some = _probe(module, neurons, sample, 1.0, random)
    others = _probe(module, neurons, sample, 0.0, complement)
    for name, expected in every.items():
        size = max(_largest(current[name]) for current in (every, none, some, others))
        error = _largest(some[name] + others[name] - expected - none[name])
        if not error <= 4 * _tolerance(dtypes[name]) * size:
            raise ValueError(
                f"{name}: its current is no affine function of the spikes that feed it; every nonlinearity before it "
                "must be a SignGDNeuron"
            )
