"""Linear maps and convolutions of packed trains, and their fusion with the neuron."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

import snn_kernels as sk

from .runner import Comparison

__all__ = ["convolution", "density", "fused", "linear"]

LINEAR = ((4096, 512, 512), (8192, 1024, 1024), (4096, 2048, 512), (32768, 256, 256))
CONVOLUTION = ((64, 32), (256, 8))
STEPS = 32
SPIKING = 0.47  # the share of ones in a signGD train


def _train(*shape: int, density: float = SPIKING) -> sk.SpikeTrain:
    generator = torch.Generator().manual_seed(0)
    return sk.pack(torch.rand(STEPS, *shape, generator=generator) < density)


def _weight(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator) / shape[1] ** 0.5


def _near(wanted: Tensor) -> Callable[[str, Tensor], None]:
    """The tolerance of a float32 matrix product: its rounding grows with the root of the number of summands."""

    def accept(name: str, output: Tensor) -> None:
        error = (output.double().reshape(wanted.shape) - wanted).norm() / wanted.norm()
        if not error < 1e-5:
            raise AssertionError(f"relative error {error:.1e}")

    return accept


def linear(densities: tuple[float, ...] = (SPIKING, 0.05)) -> Iterator[Comparison]:
    """Against ``torch.mm`` on spikes that are dense already: unpacking is not counted against it."""
    for rows, inputs, outputs in LINEAR:
        for share in densities:
            train, weight = _train(rows // STEPS, inputs, density=share), _weight(outputs, inputs)
            dense = train.unpack().reshape(rows, inputs)
            wanted = dense.double() @ weight.double().t()
            variants = {"torch.mm": lambda dense=dense, weight=weight: dense @ weight.t()}
            for method in ("dense", "event", "auto"):
                variants[f"spike_linear {method}"] = lambda t=train, w=weight, m=method: sk.spike_linear(t, w, method=m)
            case = f"rows={rows}, K={inputs}, N={outputs}, density={share}"
            yield Comparison(case, variants, "torch.mm", _near(wanted), {"macs": rows * inputs * outputs})


def density() -> Iterator[Comparison]:
    """Where the event method overtakes the dense one."""
    rows, inputs, outputs = 4096, 512, 512
    for share in (0.001, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5):
        train, weight = _train(rows // STEPS, inputs, density=share), _weight(outputs, inputs)
        wanted = train.unpack().reshape(rows, inputs).double() @ weight.double().t()
        variants = {
            method: lambda t=train, w=weight, m=method: sk.spike_linear(t, w, method=m) for method in ("dense", "event")
        }
        yield Comparison(f"density={share}", variants, "dense", _near(wanted), {"density": share})


def convolution() -> Iterator[Comparison]:
    """3x3 convolutions against ``F.conv2d`` on spikes that are dense already."""
    for channels, size, groups in (*((*shape, 1) for shape in CONVOLUTION), (64, 32, 64), (256, 8, 256)):
        train, weight = _train(8, channels, size, size), _weight(channels, channels // groups, 3, 3)
        dense, options = train.unpack().flatten(0, 1), {"padding": 1, "groups": groups}
        wanted = F.conv2d(dense.double(), weight.double(), **options)
        variants = {
            "F.conv2d": lambda dense=dense, weight=weight, o=options: F.conv2d(dense, weight, **o),
            "spike_conv2d dense": lambda t=train, w=weight, o=options: sk.spike_conv2d(t, w, **o, method="dense"),
        }
        depthwise = " depthwise" if groups > 1 else ""
        case = f"3x3{depthwise}, {channels}->{channels}, {size}x{size}, batch 8, T={STEPS}"
        yield Comparison(case, variants, "F.conv2d", _near(wanted))


def fused() -> Iterator[Comparison]:
    """Product and neuron in one op against the two apart, and against PyTorch's product and the neuron kernel."""
    eta = sk.schedules.Exponential().table(STEPS)
    for rows, inputs, outputs in LINEAR:
        train, weight = _train(rows // STEPS, inputs), _weight(outputs, inputs)
        dense = train.unpack()
        wanted = sk.signgd(sk.spike_linear(train, weight, method="dense"), eta, "relu")[0]
        variants = {
            "torch.mm, signgd": lambda d=dense, w=weight: sk.signgd(d @ w.t(), eta, "relu"),
            "apart": lambda t=train, w=weight: sk.signgd(sk.spike_linear(t, w, method="dense"), eta, "relu"),
            "fused": lambda t=train, w=weight: sk.spike_linear_signgd(t, w, None, eta, "relu"),
        }
        yield Comparison(f"linear rows={rows}, K={inputs}, N={outputs}", variants, "apart", _same_train(wanted))
    for channels, size in CONVOLUTION:
        train, weight = _train(8, channels, size, size), _weight(channels, channels, 3, 3)
        dense = train.unpack().flatten(0, 1)
        wanted = sk.signgd(sk.spike_conv2d(train, weight, padding=1, method="dense"), eta, "relu")[0]
        variants = {
            "F.conv2d, signgd": lambda d=dense, w=weight: sk.signgd(
                F.conv2d(d, w, padding=1).unflatten(0, (STEPS, -1)), eta, "relu"
            ),
            "apart": lambda t=train, w=weight: sk.signgd(sk.spike_conv2d(t, w, padding=1, method="dense"), eta, "relu"),
            "fused": lambda t=train, w=weight: sk.spike_conv2d_signgd(t, w, None, eta, "relu", padding=1),
        }
        yield Comparison(f"conv {channels}->{channels}, {size}x{size}", variants, "apart", _same_train(wanted))


def _same_train(wanted: sk.SpikeTrain) -> Callable[[str, tuple], None]:
    def accept(name: str, output: tuple) -> None:
        different = (output[0].unpack(torch.bool) != wanted.unpack(torch.bool)).float().mean().item()
        # PyTorch's product adds in another order, which moves a current by an ulp and so a spike at a tie.
        if different > (1e-3 if name.endswith(", signgd") else 0.0):
            raise AssertionError(f"{different:.2%} of the spikes differ")

    return accept
