"""The signGD neuron: all steps of a population in one call, from dense currents."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import snn_kernels as sk
from snn_kernels.ops.neuron.reference import Momentum, Operands, State, neuron_loop

from .dynamics import same_spikes
from .graphs import graphs
from .libraries import flexsn
from .runner import Comparison, Missing, Setting, Variant, Work, compiled

__all__ = ["dense_loop", "functions", "growth", "neuron"]

SCHEDULE = sk.schedules.Exponential()


def _loop(currents, eta, activation, parameters):
    zero, one = (torch.full((), value, device=eta.device) for value in (0.0, 1.0))
    operands = Operands([one] * len(currents), one, parameters)
    return neuron_loop(currents, eta, activation, operands, State((zero,) * len(currents), zero), Momentum())


def dense_loop(currents, eta, function):
    """The loop in the form that ``torch.compile`` makes most of: spikes as floats, stacked at the end."""
    x, v, spikes = [torch.zeros_like(current[0], dtype=torch.float32) for current in currents], 0.0, []
    for t in range(len(eta)):
        x = [xi - eta[t] * (2 * current[t].float() - 1.0) for xi, current in zip(x, currents)]
        spike = (v >= function(*x)).float()
        v = v - eta[t] * (2 * spike - 1)
        spikes.append(spike)
    return torch.stack(spikes), x, v


def _case(
    activation: str,
    timesteps: int,
    neurons: int,
    setting: Setting,
    dtype: torch.dtype = torch.float32,
    rivals: bool = False,
    sweep: str = "",
) -> Comparison:
    row = sk.ACTIVATIONS[activation]
    generator = torch.Generator(setting.device).manual_seed(0)
    of = {"generator": generator, "device": setting.device}
    currents = [torch.rand(timesteps, neurons, **of).to(dtype) for _ in range(row.arity)]
    eta = SCHEDULE.table(timesteps).to(setting.device)
    parameters = [torch.tensor(default, device=setting.device) for _, default in row.parameters]
    call = sk.signgd if row.arity == 1 else sk.signgd_binary
    wanted, _ = _loop(currents, eta, activation, parameters)
    read = sum(current.nbytes for current in currents)

    def accept(name: str, output) -> str:
        if name == "copy_":
            return "not compared"
        spikes = output[0] if isinstance(output, tuple) else output
        spikes = spikes.unpack(torch.bool) if isinstance(spikes, sk.SpikeTrain) else spikes
        # Compilers fuse and reassociate, FlexSN multiplies its step size from step to step, and the transcendental
        # functions may decide otherwise where estimate and target meet within a few ulps.
        limit = 0.0 if row.ulps == 0 else 1e-4
        return same_spikes(spikes, wanted, limit if name.startswith(("eager loop", "snn_kernels")) else 1e-3)

    variants = {"eager loop": lambda: _loop(currents, eta, activation, parameters)}
    for backend in setting.kernels:
        variants[f"snn_kernels {backend}"] = lambda b=backend: call(*currents, eta, activation, backend=b)
    if rivals:
        variants |= graphs(variants, setting.device)
        variants |= _rivals(currents, eta, lambda *x: row.function(*x, *parameters), setting)
    return Comparison(
        f"{activation}, T={timesteps}, N={neurons}, {str(dtype).removeprefix('torch.')}",
        variants,
        "compiled loop" if "compiled loop" in variants else "eager loop",
        accept,
        shape=(neurons,),
        dtype=dtype,
        timesteps=timesteps,
        # Four operations an input, four for the estimate; those of the function are not counted.
        work=Work(read + timesteps * neurons // 8, (4 + 4 * row.arity) * timesteps * neurons),
        sweep=sweep,
        facts={"T": timesteps, "N": neurons},
    )


def _rivals(
    currents: list[Tensor], eta: Tensor, function: Callable[..., Tensor], setting: Setting
) -> dict[str, Callable | Variant | Missing]:
    """What else there is for a function of one input, and a copy of the currents."""
    copy = torch.empty_like(currents[0])
    found = {
        "SpikingJelly FlexSN": flexsn(currents[0], SCHEDULE, function),
        "copy_": Variant(lambda: copy.copy_(currents[0]), Work(2 * copy.nbytes)),
    }
    if setting.compiles:
        loop = compiled(dense_loop)
        found["compiled loop"] = lambda: loop(currents, eta, function)
    return found


def neuron(setting: Setting) -> Iterator[Comparison]:
    """ReLU, and on a GPU GELU, at the sizes of the design document, with every baseline."""
    on_gpu = (((32, 2**24),), ((8, 2**24), (128, 2**24)))
    for timesteps, neurons in setting.choose(((9, 33),), ((32, 2**20),), ((8, 2**20),), on_gpu):
        for activation in setting.choose(("relu",), ("relu",), (), (("relu", "gelu"), ())):
            for dtype in (torch.float32, torch.bfloat16):
                yield _case(activation, timesteps, neurons, setting, dtype=dtype, rivals=True)


def functions(setting: Setting) -> Iterator[Comparison]:
    """Every function, against the eager loop."""
    for timesteps, neurons in setting.choose(((9, 33),), ((32, 2**16),), ((32, 2**20),), (((32, 2**22),), ())):
        for activation in sk.ACTIVATIONS:
            yield _case(activation, timesteps, neurons, setting)


def growth(setting: Setting) -> Iterator[Comparison]:
    """Cost against T and against N."""
    for timesteps in setting.choose((1, 9), (8, 32, 128, 512), (16, 64, 256, 800)):
        (neurons,) = setting.choose((33,), (2**14,), (), ((2**20,), ()))
        yield _case("relu", timesteps, neurons, setting, sweep="T")
    on_gpu = ((2**20, 2**22, 2**24), (2**19, 2**21, 2**23, 2**25))
    for neurons in setting.choose((7, 33), (2**12, 2**16, 2**18), (2**15, 2**17, 2**19, 2**20), on_gpu):
        yield _case("relu", setting.choose((8,), (32,))[0], neurons, setting, sweep="N")
