"""The other neurons of the family, from dense currents: the same comparison as for the plain signGD neuron."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import snn_kernels as sk
from snn_kernels.ops.neuron.reference import MODELS, Momentum, Operands, State, signgd_step
from snn_kernels.ops.parallel.reference import count_reference
from snn_kernels.ops.vector.reference import vector_target

from .libraries import others
from .runner import Comparison, Setting, Work, compiled

__all__ = ["dynamics"]

TAU, LEVEL = 2.0, 0.5  # of the leaky neurons: time constant and threshold
BETA = 0.9


@dataclass
class Dynamics:
    """A neuron: its call, the plain loop of its definition, and the roundings in which backends may differ.

    Attributes:
        call: ``call(current, eta, backend=...)``.
        loop: ``loop(current, eta, dtype=torch.bool)``, spikes ``[T, *shape]`` of that dtype.
        operations: of one neuron in one step, its target's own not counted.
        flips: the share of spikes that may differ.
        form: what is compiled, where it is not the loop.
        hard: the reset that other libraries' neurons are asked for; ``None`` where they have no such neuron.
    """

    call: Callable
    loop: Callable[..., Tensor]
    operations: int
    flips: float = 0.0
    tau: float | None = None
    threshold: float = 1.0
    hard: bool | None = None
    form: Callable[..., Tensor] | None = None


def unrolled(step: Callable[[Tensor, Tensor, State], tuple[Tensor, State]], decodes: bool, gradients: int = 0):
    """The loop over time of a step, with its spikes stacked at the end: eager as it stands, and fit to compile."""

    def loop(current: Tensor, eta: Tensor, dtype: torch.dtype = torch.bool) -> Tensor:
        zero = torch.zeros(current.shape[1:], device=current.device)
        state, spikes = State((zero,) * decodes, zero, (zero,) * gradients), []
        for t in range(len(current)):
            spike, state = step(current[t], eta[t], state)
            spikes.append(spike.to(dtype))
        return torch.stack(spikes)

    return loop


def _model(name: str, scale: float = 1.0, offset: float = 1.0, parameters: Sequence[float] = (), beta: float = 0.0):
    def step(current: Tensor, eta: Tensor, state: State) -> tuple[Tensor, State]:
        values = [torch.tensor(value, device=current.device) for value in (offset, scale, *parameters)]
        operands = Operands(values[:1], values[1], values[2:])
        return MODELS[name].step([current], eta, operands, state, Momentum(beta))

    return unrolled(step, MODELS[name].decodes, 2 if beta else 0)


def _count(current: Tensor, eta: Tensor, dtype: torch.dtype = torch.bool) -> Tensor:
    half, zero = (torch.full((), value, device=current.device) for value in (0.5, 0.0))
    return count_reference(current, half, zero).to(dtype)


def _count_of_sum(current: Tensor, eta: Tensor, dtype: torch.dtype) -> Tensor:
    """The same with PyTorch's sum, whose order is its own."""
    steps = torch.arange(1, len(current) + 1, device=current.device).reshape(-1, *[1] * (current.ndim - 1))
    return (steps <= current.sum(0) / 0.5 + 0.5).to(dtype)


def _vector(name: str, eps: float = 0.0):
    def step(current: Tensor, eta: Tensor, state: State) -> tuple[Tensor, State]:
        zero, one = (torch.full((), value, device=current.device) for value in (0.0, 1.0))
        return signgd_step([current], eta, vector_target(name, one, zero, eps), Operands([one], one), state)

    return unrolled(step, decodes=True)


def _product() -> Dynamics:
    """Of matrices of 64 vectors with their transposes, as in attention."""

    def matrices(current: Tensor) -> Tensor:
        return current.unflatten(-2, (-1, 64))

    def step(current: Tensor, eta: Tensor, state: State) -> tuple[Tensor, State]:
        one = torch.ones((), device=current.device)
        return signgd_step([current], eta, lambda x: x @ x.mT, Operands([one], one), state)

    loop = unrolled(step, decodes=True)
    return Dynamics(
        lambda c, eta, backend: sk.signgd_matmul(matrices(c), matrices(c).mT, eta, backend=backend)[0],
        lambda c, eta, dtype=torch.bool: loop(matrices(c), eta, dtype),
        operations=8 + 2 * 64,
        flips=1e-3,  # sums in another order, as below
    )


def _membrane(call: Callable, name: str, tau: float | None, hard: bool) -> Dynamics:
    threshold = 1.0 if tau is None else LEVEL
    leading, parameters = ((), ()) if tau is None else ((tau,), (1 / tau, 0.0))
    options = {"threshold": threshold, "reset": "hard" if hard else "soft"}
    return Dynamics(
        lambda current, eta, backend: call(current, *leading, **options, backend=backend)[0],
        _model(f"{name} with hard reset" if hard else name, threshold, 0.0, parameters),
        operations=3 if tau is None else 6,
        tau=tau,
        threshold=threshold,
        hard=hard,
    )


def _neurons() -> dict[str, Dynamics]:
    leaky, plain = "leaky_integrate_and_fire", "integrate_and_fire"
    return {
        "subgradient": Dynamics(
            lambda c, eta, backend: sk.subgradient(c, eta, backend=backend)[0], _model("subgradient", offset=0.0), 9
        ),
        plain: _membrane(sk.integrate_and_fire, plain, None, hard=False),
        f"{plain}, hard reset": _membrane(sk.integrate_and_fire, plain, None, hard=True),
        leaky: _membrane(sk.leaky_integrate_and_fire, leaky, TAU, hard=False),
        f"{leaky}, hard reset": _membrane(sk.leaky_integrate_and_fire, leaky, TAU, hard=True),
        "parallel_spikes": Dynamics(
            lambda c, eta, backend: sk.parallel_spikes(c, 0.5, backend=backend),
            _count,
            operations=2,
            form=_count_of_sum,
        ),
        "signgd relu, momentum": Dynamics(
            lambda c, eta, backend: sk.signgd(c, eta, "relu", momentum=BETA, backend=backend)[0],
            _model("relu", beta=BETA),
            operations=12,
        ),
        **{
            # Sums in another order: a spike may flip where estimate and target meet within their rounding.
            f"signgd_vector {name}": Dynamics(
                lambda c, eta, backend, name=name: sk.signgd_vector(c, eta, name, backend=backend)[0],
                _vector(name, eps),
                operations=8,
                flips=1e-3,
            )
            for name, eps in (("softmax", 0.0), ("layer_norm", 1e-5))
        },
        "signgd_matmul": _product(),
    }


def dynamics(setting: Setting) -> Iterator[Comparison]:
    """Every neuron of the family in float32, as vectors of 64 where it is one of vectors."""
    # A loop over 32 steps takes a quarter of a minute to compile.
    on_gpu = (((8, 2**18),), ((32, 2**18),))
    for timesteps, vectors in setting.choose(((9, 64),), ((8, 2**12),), ((32, 2**12),), on_gpu):
        generator = torch.Generator(setting.device).manual_seed(0)
        eta = sk.schedules.Exponential().table(timesteps).to(setting.device)
        current = torch.rand(timesteps, vectors, 64, generator=generator, device=setting.device)
        for name, neuron in _neurons().items():
            yield _comparison(name, neuron, current, eta, setting)


def _comparison(name: str, neuron: Dynamics, current: Tensor, eta: Tensor, setting: Setting) -> Comparison:
    wanted = neuron.loop(current, eta).bool()
    variants = {"eager loop": lambda: neuron.loop(current, eta)}
    if setting.compiles:
        # Spikes as floats are what the compiler makes most of.
        loop = compiled(neuron.form or neuron.loop)
        variants["compiled loop"] = lambda: loop(current, eta, torch.float32)
    for backend in setting.kernels:
        variants[f"snn_kernels {backend}"] = lambda backend=backend: neuron.call(current, eta, backend=backend)
    if neuron.hard is not None:
        variants |= dict(others(current, neuron.tau, neuron.threshold, neuron.hard))
    ours = {"eager loop", *(f"snn_kernels {backend}" for backend in setting.kernels)}

    def accept(variant: str, output: Tensor | sk.SpikeTrain) -> str:
        spikes = output.unpack(torch.bool) if isinstance(output, sk.SpikeTrain) else output.bool()
        # Compilers fuse and reassociate, and other libraries' tests and updates are rounded otherwise.
        return same_spikes(spikes, wanted, neuron.flips if variant in ours else 1e-3)

    timesteps, count = len(current), current[0].numel()
    work = Work(current.nbytes + timesteps * count // 8, neuron.operations * timesteps * count)
    return Comparison(
        f"{name}, T={timesteps}, N={count}",
        variants,
        "compiled loop" if setting.compiles else "eager loop",
        accept,
        shape=tuple(current.shape[1:]),
        timesteps=timesteps,
        work=work,
    )


def same_spikes(spikes: Tensor, wanted: Tensor, limit: float) -> str:
    """How many spikes differ, in words; raises above ``limit``."""
    wrong = (spikes != wanted).float().mean().item()
    if not wrong <= limit:
        raise AssertionError(f"{wrong:.2%} of the spikes differ from the reference")
    return f"{wrong:.1e} of the spikes differ" if wrong else "the reference's spikes"
