"""Running a signGD neuron, comparing two runs bit for bit, and proving that a flipped spike is a crossing."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from snn_kernels import ACTIVATIONS, signgd, signgd_binary
from snn_kernels.activations import resolve
from snn_kernels.ops.neuron.reference import Operands, State, signgd_step

EXACT = [name for name, row in ACTIVATIONS.items() if row.exact]
TRANSCENDENTAL = [name for name, row in ACTIVATIONS.items() if not row.exact]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
STEPS = [0, 1, 7, 8, 9, 33]
SIZES = [1, 7, 63, 500]


class Run(NamedTuple):
    """What a call returns, the decoded inputs always as a tuple."""

    bytes: Tensor
    x: tuple[Tensor, ...]
    v: Tensor
    spikes: Tensor


def seeded(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def digest(tensors: Iterable[Tensor]) -> str:
    return hashlib.sha256(b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)).hexdigest()


def assert_instruction_sets_agree(outputs: Callable[[], Iterable[Tensor]]) -> None:
    """The same bits at most at each instruction set, which a process chooses once."""
    module, name = outputs.__module__, outputs.__name__
    code = f"import {module}, signgd_helpers as h; print(h.digest({module}.{name}()))"
    for isa in ("portable", "avx2", "avx512", "amx"):
        environment = {**os.environ, "SNN_KERNELS_ISA": isa, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == digest(outputs()), isa


def run(activation, currents: list[Tensor], eta: Tensor, backend: str | None = None, **arguments) -> Run:
    """One call; ``offset`` and ``bias`` are given per input, as lists."""
    if len(currents) == 1:
        singles = {name: arguments.pop(name)[0] for name in ("offset", "bias") if name in arguments}
        train, state = signgd(*currents, eta, activation, backend=backend, **singles, **arguments)
        return Run(train.bytes, (state.x,), state.v, train.unpack(torch.bool))
    pairs = {name: tuple(arguments.pop(name)) for name in ("offset", "bias") if name in arguments}
    train, state = signgd_binary(*currents, eta, activation, backend=backend, **pairs, **arguments)
    return Run(train.bytes, state.x, state.v, train.unpack(torch.bool))


def bits(tensor: Tensor) -> Tensor:
    """The bits of float32 numbers; every NaN counts as one (its sign and payload are the processor's)."""
    return torch.where(tensor.isnan(), torch.full_like(tensor, float("nan")), tensor).view(torch.int32)


def assert_same(a: Run, b: Run) -> None:
    assert torch.equal(a.bytes, b.bytes)
    assert torch.equal(bits(a.v), bits(b.v))
    assert len(a.x) == len(b.x)
    for xa, xb in zip(a.x, b.x):
        assert torch.equal(bits(xa), bits(xb))


def arguments_for(row, shape: tuple[int, ...], timesteps: int, dtype=torch.float32, seed: int = 0) -> dict:
    """Currents and per-neuron operands that make most activations fire and rest."""
    inputs = range(row.arity)
    return {
        "currents": [seeded(timesteps, *shape, seed=seed + k).to(dtype) for k in inputs],
        "eta": 0.5 * 0.9 ** torch.arange(timesteps, dtype=torch.float32),
        "offset": [0.3 * seeded(*shape, seed=seed + 10 + k) for k in inputs],
        "bias": [seeded(*shape, seed=seed + 20 + k).abs() + 0.5 for k in inputs],
        "scale": seeded(*shape, seed=seed + 30).abs() + 0.1,
        "v0": seeded(*shape, seed=seed + 40),
    }


def broadcast_call(name: str, shape: tuple[int, ...], channels_last: bool) -> tuple:
    """An activation with its parameters, and arguments for ``[9, 2, 3, 5, 7]``, all operands of ``shape``."""
    row = ACTIVATIONS[name]
    arguments = arguments_for(row, (2, 3, 5, 7), 9)
    if channels_last:
        order = (0, 1, 3, 4, 2)
        arguments["currents"] = [
            current.permute(order).contiguous().permute(0, 1, 4, 2, 3) for current in arguments["currents"]
        ]
    for operand in ("offset", "bias"):
        arguments[operand] = [seeded(*shape, seed=9 + k) for k in range(row.arity)]
    arguments |= {"scale": seeded(*shape, seed=3).abs() + 0.1, "v0": seeded(*shape, seed=4)}
    activation = (name, -seeded(*shape, seed=5).abs(), seeded(*shape, seed=6).abs()) if row.parameters else name
    return activation, arguments


def assert_flips_are_crossings(activation, result: Run, currents, eta, offset, bias, scale, v0) -> None:
    """Replay the run from its own spikes and allow each of them only what ``Activation.band`` does.

    ``x`` depends on the currents alone and ``v`` on the spikes, both in exactly rounded operations; so the replay is
    exact and the real ``h(x)``, taken in float64, decides every single spike up to the band.
    """
    row, parameters = resolve(activation, len(currents))
    parameters = [torch.as_tensor(p, dtype=torch.float32) for p in parameters]
    as_field = [torch.as_tensor(o, dtype=torch.float32) for o in (*offset, *bias, scale, v0)]
    offset, bias, (scale, v) = as_field[: row.arity], as_field[row.arity : 2 * row.arity], as_field[-2:]
    x = tuple(b.expand(currents[0].shape[1:]) for b in bias)
    v = v.expand(currents[0].shape[1:])
    for t, spike in enumerate(result.spikes):

        def given(*_, spike=spike, v=v):
            """A target that makes the reference's step fire as the kernel did."""
            return torch.where(spike, v, torch.full_like(v, float("nan")))

        before = v
        after = signgd_step([c[t] for c in currents], eta[t], given, Operands(offset, scale), State(x, v))[1]
        x, v = after.x, after.v
        exact = [p.double() for p in parameters]
        h = row.function(*(xi.double() for xi in x), *exact)
        agrees = spike == (before.double() >= h)
        crossing = (before.double() - h).abs() <= row.band(h, *exact)
        assert (agrees | crossing).all(), f"{activation}: a spike at step {t} is no crossing"
    for ours, theirs in zip((*x, v), (*result.x, result.v)):
        assert torch.equal(bits(ours), bits(theirs))
