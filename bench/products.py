"""Linear maps and convolutions of packed trains, and their fusion with the neuron."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

import snn_kernels as sk

from .dynamics import same_spikes
from .neuron import dense_loop
from .runner import Comparison, Setting, Work, compiled

__all__ = ["convolution", "density", "fused", "linear"]

STEPS = 32
LAYERS = 4  # of a stack
SPIKING = 0.47  # the share of ones in a signGD train


def _linear(setting: Setting) -> tuple[tuple[int, int, int], ...]:
    """Rows (samples x steps), inputs and outputs."""
    return setting.choose(
        ((64, 40, 70), (64, 33, 33)),
        ((4096, 512, 512), (32768, 256, 256)),
        ((8192, 1024, 1024), (4096, 2048, 512)),
        tuple(tuple((STEPS * 4096, n, n) for n in sizes) for sizes in ((256, 768, 3072), (512, 1024, 2048, 4096))),
    )


def _convolutions(setting: Setting) -> tuple[tuple[int, int], ...]:
    """Channels and size."""
    return setting.choose(((16, 4),), ((64, 16), (256, 8)), ((64, 32),), (((64, 64), (256, 32)), ((512, 16),)))


def _train(*shape: int, device: str, density: float = SPIKING) -> sk.SpikeTrain:
    generator = torch.Generator(device).manual_seed(0)
    return sk.pack(torch.rand(STEPS, *shape, generator=generator, device=device) < density)


def _weight(*shape: int, device: str) -> Tensor:
    """On a GPU in bfloat16, which its tensor cores take and its users have."""
    generator = torch.Generator(device).manual_seed(1)
    weight = torch.randn(*shape, generator=generator, device=device) / shape[1] ** 0.5
    return weight.bfloat16() if device == "cuda" else weight


def _near(wanted: Tensor, of_torch: torch.dtype = torch.float32) -> Callable[[str, Tensor], str]:
    """The tolerance of a float32 matrix product: its rounding grows with the root of the number of summands.

    PyTorch's own, which returns ``of_torch``, keeps what that keeps.
    """

    def accept(name: str, output: Tensor) -> str:
        error = ((output.double().reshape(wanted.shape) - wanted).norm() / wanted.norm()).item()
        # bfloat16 keeps 8 bits of weights and results, weights of 8 bits have a 254th of the largest for an error.
        rounds = "bfloat16" in name or (of_torch == torch.bfloat16 and not name.startswith("spike"))
        # Tensor cores cut sums off where other units round them.
        if not error < (2e-2 if "int8" in name else 1e-2 if rounds else 5e-5 if wanted.is_cuda else 1e-5):
            raise AssertionError(f"relative error {error:.1e}")
        return f"relative error {error:.1e}"

    return accept


def _methods(setting: Setting, methods: tuple[str, ...] = ("dense", "event")) -> dict[str, dict[str, str]]:
    """Ways to take a product, by name: methods, and on a GPU the kernels."""
    if setting.device == "cpu":
        return {method: {"method": method} for method in methods}
    ways = [(backend, method) for method in methods for backend in setting.kernels]
    return {f"{backend} {method}": {"backend": backend, "method": method} for backend, method in ways}


def _fusing(setting: Setting) -> dict[str, str | None]:
    """What stands behind the name of a variant, and its backend: nothing where there is one."""
    return {"": None} if setting.device == "cpu" else {f" {backend}": backend for backend in setting.kernels}


def _product_work(train: sk.SpikeTrain, weight: Tensor, rows: int) -> Work:
    """Packed bytes and weights are read, float32 currents written; a product is a multiplication and an addition."""
    outputs = len(weight)
    return Work(train.bytes.nbytes + weight.nbytes + 4 * rows * outputs, 2 * rows * weight[0].numel() * outputs)


def linear(setting: Setting) -> Iterator[Comparison]:
    """Against ``torch.mm`` on spikes that are dense already: unpacking is not counted against it."""
    device = setting.device
    for rows, inputs, outputs in _linear(setting):
        for share in setting.choose((SPIKING,), (SPIKING, 0.05)):
            train = _train(rows // STEPS, inputs, device=device, density=share)
            weight = _weight(outputs, inputs, device=device)
            dense = train.unpack().reshape(rows, inputs)
            half, half_weight, sparse = dense.bfloat16(), weight.bfloat16(), dense.to_sparse_csr()
            single = weight.float()
            variants = {
                "torch.mm": lambda dense=dense, weight=single: dense @ weight.t(),
                "torch.mm bfloat16": lambda dense=half, weight=half_weight: dense @ weight.t(),
                "torch sparse CSR": lambda sparse=sparse, weight=single: sparse @ weight.t(),
            }
            # On a GPU events of such trains are far from where they belong, and long.
            methods = ("dense",) if device == "cuda" and share == SPIKING else ("dense", "event")
            ways = {**_methods(setting, methods), "auto": {}}
            for tag, of_bits in (("", weight), (" int8", sk.quantize_weight(weight))):
                for name, how in ways.items():
                    variants[f"spike_linear {name}{tag}"] = partial(sk.spike_linear, train, of_bits, **how)
            yield Comparison(
                f"rows={rows}, K={inputs}, N={outputs}, density={share}",
                variants,
                "torch.mm" if device == "cpu" else "torch.mm bfloat16",
                _near(dense.double() @ weight.double().t()),
                shape=(rows, inputs, outputs),
                dtype=weight.dtype,
                timesteps=STEPS,
                work=_product_work(train, weight, rows),
                facts={"density": share},
            )


def density(setting: Setting) -> Iterator[Comparison]:
    """Where the event method overtakes the dense one, in a linear map and in a 3x3 convolution."""
    rows, inputs, outputs = setting.choose((64, 40, 70), (4096, 512, 512), (), ((STEPS * 4096, 1024, 1024), ()))
    channels, size = setting.choose((16, 4), (64, 16), (), ((256, 32), ()))
    weight = _weight(outputs, inputs, device=setting.device)
    kernel = _weight(channels, channels, 3, 3, device=setting.device)
    for share in setting.choose((0.01, 0.3), (0.01, 0.05, 0.1, 0.2, 0.5), (0.001, 0.02, 0.15, 0.3)):
        train = _train(rows // STEPS, inputs, device=setting.device, density=share)
        variants = {
            name: lambda t=train, how=how: sk.spike_linear(t, weight, **how) for name, how in _methods(setting).items()
        }
        wanted = train.unpack().reshape(rows, inputs).double() @ weight.double().t()
        case = f"rows={rows}, K={inputs}, N={outputs}, density={share}"
        yield _at_density(case, variants, wanted, train, weight, (rows, inputs, outputs), rows, share)

        image = _train(8, channels, size, size, device=setting.device, density=share)
        variants = {
            f"{name} 3x3": lambda t=image, how=how: sk.spike_conv2d(t, kernel, padding=1, **how)
            for name, how in _methods(setting).items()
        }
        wanted = F.conv2d(image.unpack().flatten(0, 1).double(), kernel.double(), padding=1)
        case = f"3x3, {channels}->{channels}, {size}x{size}, batch 8, density={share}"
        shape = (8, channels, size, size)
        yield _at_density(case, variants, wanted, image, kernel, shape, 8 * STEPS * size * size, share)


def _at_density(
    case: str,
    variants: dict,
    wanted: Tensor,
    train: sk.SpikeTrain,
    weight: Tensor,
    shape: tuple[int, ...],
    rows: int,
    share: float,
) -> Comparison:
    return Comparison(
        case,
        variants,
        next(iter(variants)),
        _near(wanted),
        shape=shape,
        dtype=weight.dtype,
        timesteps=STEPS,
        work=_product_work(train, weight, rows),
        sweep="density",
        facts={"density": share},
    )


def convolution(setting: Setting) -> Iterator[Comparison]:
    """3x3 convolutions against ``F.conv2d`` on spikes that are dense already."""
    for channels, size in _convolutions(setting):
        for groups in (1, channels):
            train = _train(8, channels, size, size, device=setting.device)
            weight = _weight(channels, channels // groups, 3, 3, device=setting.device)
            dense, options = train.unpack(weight.dtype).flatten(0, 1), {"padding": 1, "groups": groups}
            variants = {"F.conv2d": lambda dense=dense, weight=weight, o=options: F.conv2d(dense, weight, **o)}
            for tag, of_bits in (("", weight), (" int8", sk.quantize_weight(weight))):
                for name, how in _methods(setting, ("dense",)).items():
                    variants[f"spike_conv2d {name}{tag}"] = partial(sk.spike_conv2d, train, of_bits, **how, **options)
            yield Comparison(
                f"3x3{' depthwise' if groups > 1 else ''}, {channels}->{channels}, {size}x{size}, batch 8, T={STEPS}",
                variants,
                "F.conv2d",
                _near(F.conv2d(dense.double(), weight.double(), **options), weight.dtype),
                shape=(8, channels, size, size),
                dtype=weight.dtype,
                timesteps=STEPS,
                work=_product_work(train, weight, 8 * STEPS * size * size),
            )
    if setting.device == "cpu":  # elsewhere such trains are unpacked
        for channels, size in _convolutions(setting):
            yield _scaled(channels, size)


def _scaled(channels: int, size: int) -> Comparison:
    """The same where each neuron has an amplitude of its own."""
    train, weight = _train(8, channels, size, size, device="cpu"), _weight(channels, channels, 3, 3, device="cpu")
    amplitude = torch.rand(channels, size, size, generator=torch.Generator().manual_seed(2))
    dense, how = train.unpack().mul_(amplitude).flatten(0, 1), {"amplitude": amplitude, "method": "dense"}
    variants = {
        "F.conv2d": lambda: F.conv2d(dense, weight, padding=1),
        "spike_conv2d dense": lambda: sk.spike_conv2d(train, weight, padding=1, **how),
    }
    return Comparison(
        f"3x3, an amplitude for each neuron, {channels}->{channels}, {size}x{size}, batch 8, T={STEPS}",
        variants,
        "F.conv2d",
        _near(F.conv2d(dense.double(), weight.double(), padding=1)),
        shape=(8, channels, size, size),
        dtype=weight.dtype,
        timesteps=STEPS,
        work=_product_work(train, weight, 8 * STEPS * size * size),
    )


def fused(setting: Setting) -> Iterator[Comparison]:
    """Product and neuron in one op against the two apart, and against PyTorch's product and the neuron.

    On a GPU the honest baseline is PyTorch's bfloat16 product of dense spikes with the neuron's loop compiled.
    """
    eta = sk.schedules.Exponential().table(STEPS).to(setting.device)

    def apart(train: sk.SpikeTrain, weight: Tensor, backend: str | None) -> tuple:
        current = sk.spike_linear(train, weight, method="dense", backend=backend)
        return sk.signgd(current, eta, "relu", backend=backend)

    def in_one(train: sk.SpikeTrain, weight: Tensor, backend: str | None) -> tuple:
        return sk.spike_linear_signgd(train, weight, None, eta, "relu", backend=backend)

    ways = _fusing(setting).items()
    layers = {f"apart{tag}": partial(apart, backend=backend) for tag, backend in ways}
    layers |= {f"fused{tag}": partial(in_one, backend=backend) for tag, backend in ways}
    loop = compiled(dense_loop)
    for rows, inputs, outputs in _linear(setting):
        train = _train(rows // STEPS, inputs, device=setting.device)
        weight = _weight(outputs, inputs, device=setting.device)
        dense = train.unpack(weight.dtype)
        variants = {"torch.mm, signgd": lambda d=dense, w=weight: sk.signgd(d @ w.t(), eta, "relu")}
        if setting.device == "cuda" and setting.compiles:
            variants["torch.mm, compiled loop"] = lambda d=dense, w=weight: loop([d @ w.t()], eta, torch.relu)
        variants |= {name: partial(layer, train, weight) for name, layer in layers.items()}
        eighth = sk.quantize_weight(weight)
        variants |= {f"{name} int8": partial(layer, train, eighth) for name, layer in layers.items()}
        case = f"linear rows={rows}, K={inputs}, N={outputs}"
        yield _fused(case, variants, train, weight, (rows, inputs, outputs), rows)
        if inputs == outputs:
            stacks = {name: partial(_stack, layer, train, weight) for name, layer in layers.items()}
            case = f"{LAYERS} linear layers, rows={rows}, K=N={inputs}"
            yield _fused(case, stacks, train, weight, (rows, inputs, outputs), rows, LAYERS)
    for channels, size in _convolutions(setting):
        train = _train(8, channels, size, size, device=setting.device)
        weight = _weight(channels, channels, 3, 3, device=setting.device)
        dense = train.unpack(weight.dtype).flatten(0, 1)
        variants = {
            "F.conv2d, signgd": lambda d=dense, w=weight: sk.signgd(
                F.conv2d(d, w, padding=1).unflatten(0, (STEPS, -1)), eta, "relu"
            )
        }
        for bits, of_bits in (("", weight), (" int8", sk.quantize_weight(weight))):
            for tag, backend in ways:
                variants[f"apart{tag}{bits}"] = lambda t=train, w=of_bits, b=backend: sk.signgd(
                    sk.spike_conv2d(t, w, padding=1, method="dense", backend=b), eta, "relu", backend=b
                )
                variants[f"fused{tag}{bits}"] = lambda t=train, w=of_bits, b=backend: sk.spike_conv2d_signgd(
                    t, w, None, eta, "relu", padding=1, backend=b
                )
        case = f"conv 3x3, {channels}->{channels}, {size}x{size}, batch 8"
        yield _fused(case, variants, train, weight, (8, channels, size, size), 8 * STEPS * size * size)


def _stack(layer: Callable[..., tuple], train: sk.SpikeTrain, weight: Tensor) -> tuple:
    """A layer fed with its own spikes, several times over: what the last one returns."""
    for _ in range(LAYERS):
        train, state = layer(train, weight)
    return train, state


def _fused(
    case: str, variants: dict, train: sk.SpikeTrain, weight: Tensor, shape: tuple, rows: int, layers: int = 1
) -> Comparison:
    ours = next(name for name in variants if name.startswith("apart"))
    honest = "torch.mm, compiled loop" if "torch.mm, compiled loop" in variants else ours
    of_bits = {bits: variants[ours + bits]()[0].unpack(torch.bool) for bits in ("", " int8") if ours + bits in variants}

    def accept(name: str, output: tuple) -> str:
        bits = " int8" if name.endswith(" int8") else ""
        wanted = of_bits[bits]
        spikes = output[0].unpack(torch.bool) if isinstance(output[0], sk.SpikeTrain) else output[0].bool()
        if name.startswith(("torch", "F.")):
            # PyTorch's product adds in another order, which moves a current by an ulp and so a spike at a tie;
            # in bfloat16 it rounds the currents themselves.
            return same_spikes(spikes, wanted, 1e-3 if weight.dtype == torch.float32 else 0.2)
        # Sums of whole numbers are exact on every backend.
        return same_spikes(spikes, wanted, 0.0 if bits or name.endswith(ours.removeprefix("apart")) else 1e-3)

    product = _product_work(train, weight, rows)
    # Of the output a bit a step is written, in place of a float32 current.
    moved = product.bytes - 4 * rows * len(weight) + rows * len(weight) // 8
    work = Work(layers * moved, layers * product.operations)
    facts = {"shape": shape, "dtype": weight.dtype, "timesteps": STEPS, "work": work, "memory": True}
    return Comparison(case, variants, honest, accept, **facts)
