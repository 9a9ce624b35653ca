"""Every experiment, what it asks, and which of its baselines is the honest one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .conversion import conversion
from .dynamics import dynamics
from .networks import networks
from .neuron import functions, growth, neuron
from .overhead import overhead
from .packing import packing
from .products import convolution, density, fused, linear
from .recipes import recipes
from .runner import Comparison, Setting
from .scaling import scaling

__all__ = ["EXPERIMENTS", "Experiment"]


@dataclass(frozen=True)
class Experiment:
    """A row of the list.

    Attributes:
        comparisons: makes what is compared, one after the other.
        summary: what it measures, in a line.
        honest: which baseline is what a competent user would run, and what the others are for.
        full: only ``--full`` runs it.
        plotted: what the plot shows: ``p50`` or the name of a fact.
    """

    comparisons: Callable[[Setting], Iterator[Comparison]]
    summary: str
    honest: str
    full: bool = False
    plotted: str = "p50"


LOOP = (
    "The honest baseline is the compiled loop: the whole loop over time under torch.compile, which is what a competent "
    "user would run. The eager loop is what published code runs; it is the slowest."
)
EAGER = (
    "The baseline here is the eager loop over time, the slowest there is: the ratios compare cases with each other and "
    "are no claim. What a compiled loop reaches is in the experiment neuron."
)

EXPERIMENTS = {
    "neuron": Experiment(
        neuron,
        "the signGD neuron with relu against eager and compiled loops, and a copy of its currents",
        f"{LOOP} SpikingJelly's FlexSN, given the same step, is the other library's way to have kernels generated; on "
        "a CPU it is a loop too. copy_ only moves the currents: a floor, not a competitor. A CUDA graph is the same "
        "kernel without its launch from Python.",
    ),
    "functions": Experiment(functions, "the signGD neuron for every function", EAGER),
    "growth": Experiment(growth, "cost of the signGD neuron against T and against N", EAGER),
    "dynamics": Experiment(
        dynamics,
        "the other neurons: subgradient, integrate-and-fire, parallel, momentum, whole-vector targets, products",
        f"{LOOP} SpikingJelly, snnTorch and Norse have integrate-and-fire neurons and are trained with, so that they "
        "keep spikes as floats; here they run without gradients.",
    ),
    "packing": Experiment(
        packing,
        "dense spikes to packed trains and back",
        "The honest baseline is PyTorch's own shifts and sums, eager or under torch.compile, the faster of the two.",
    ),
    "linear": Experiment(
        linear,
        "products of packed trains with weights",
        "The honest baseline is torch.mm in float32 on spikes that are dense already: unpacking is not counted against "
        "it. bfloat16 rounds weights and results to 8 bits, which the kernels do not. Operations are those of the "
        "dense product, which the kernels do without multiplying: their share of the ceiling may exceed 1.",
    ),
    "density": Experiment(
        density,
        "dense and event-driven products against the share of spikes",
        "Both are ours: the question is where one overtakes the other.",
    ),
    "convolution": Experiment(
        convolution,
        "convolutions of packed trains",
        "The honest baseline is F.conv2d in float32 on spikes that are dense already.",
    ),
    "fused": Experiment(
        fused,
        "product and neuron in one op: time and peak memory, of one layer and of a stack",
        "The honest baseline is the same two kernels apart; PyTorch's product followed by the neuron kernel is what a "
        "user would run who has only the neuron.",
    ),
    "overhead": Experiment(
        overhead,
        "what a call of each op costs at tiny sizes",
        "The baseline, one addition of PyTorch, is the least that any operation costs; an eager loop over eight steps "
        "makes dozens of such calls.",
    ),
    "recipes": Experiment(
        recipes,
        "time-steps until the output is the ANN's to within 1%, by recipe",
        "The honest baseline is the ANN itself: it is exact, and on a CPU or a GPU the faster one too. "
        "A recipe that does not get there in the steps tried has no time.",
        plotted="steps",
    ),
    "networks": Experiment(
        networks,
        "whole converted networks against the plain loop of the same dynamics and the ANN: time an image, peak memory",
        "The single-step loop is what published code runs, one network pass a step. The ANN is there to say what the "
        "same answer costs without spikes. Operations are those of a network pass a step. Weights are random: spikes "
        "at a tie go either way by rounding, and what deep networks make of that is told beside the error.",
    ),
    "scaling": Experiment(
        scaling,
        "cost of a whole converted network against T, batch, width and depth",
        "The honest baseline is the ANN, without spikes: what is compared is the growth, and the ratio is its price.",
    ),
    "conversion": Experiment(
        conversion,
        "how long convert takes, up to BERT-base and ConvNeXt-T",
        "There is no competitor; the ANN's own pass over the calibration batch is the unit.",
        full=True,
    ),
}
