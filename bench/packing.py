"""Packing of dense spikes over time, and back."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import snn_kernels as sk
from snn_kernels.ops.packing.reference import pack_reference, unpack_reference

from .runner import Comparison, Missing, Setting, Work, compiled

__all__ = ["packing"]


def packing(setting: Setting) -> Iterator[Comparison]:
    """``pack`` and ``unpack`` against their PyTorch definitions, compiled where that is done."""
    on_gpu = (((32, 2**24),), ((8, 2**24),))
    for timesteps, neurons in setting.choose(((9, 33),), ((32, 2**20),), ((8, 2**20), (32, 2**14)), on_gpu):
        for dtype in (torch.float32, torch.bfloat16):
            generator = torch.Generator(setting.device).manual_seed(0)
            spikes = torch.rand(timesteps, neurons, generator=generator, device=setting.device) < 0.47
            spikes = spikes.to(dtype)
            yield from _both(spikes, setting)


def _both(spikes: torch.Tensor, setting: Setting) -> Iterator[Comparison]:
    timesteps, neurons = spikes.shape
    train, dtype, name = sk.pack(spikes), spikes.dtype, str(spikes.dtype).removeprefix("torch.")
    facts = {
        "shape": (neurons,),
        "dtype": dtype,
        "timesteps": timesteps,
        "work": Work(bytes=spikes.nbytes + train.bytes.nbytes),
    }
    pack = {"PyTorch": lambda: pack_reference(spikes), "snn_kernels": lambda: sk.pack(spikes).bytes}
    unpack = {
        "PyTorch": lambda: unpack_reference(train.bytes, timesteps, dtype),
        "snn_kernels": lambda: sk.unpack(train, dtype),
    }
    if setting.compiles:
        compiled_pack = compiled(pack_reference)
        compiled_unpack = compiled(unpack_reference)
        pack["PyTorch, compiled"] = lambda: compiled_pack(spikes)
        unpack["PyTorch, compiled"] = lambda: compiled_unpack(train.bytes, timesteps, dtype)
    if setting.device == "cuda":
        pack["snn_kernels"] = unpack["snn_kernels"] = Missing("no kernel of its own: it is PyTorch's")
    baseline = "PyTorch, compiled" if setting.compiles else "PyTorch"
    packed = pack_reference(spikes)
    for what, variants, wanted in (("pack", pack, packed), ("unpack", unpack, spikes)):

        def accept(_: str, output: torch.Tensor, wanted: torch.Tensor = wanted) -> str:
            if not torch.equal(output, wanted):
                raise AssertionError("not the reference's bits")
            return "the reference's bits"

        yield Comparison(f"{what}, T={timesteps}, N={neurons}, {name}", variants, baseline, accept, **facts)
