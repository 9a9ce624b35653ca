"""What a converted network's neurons and synapses do on given inputs, and what that costs beside the ANN."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text
from torch import Tensor, fx

from snn_kernels import SpikeTrain

from .files import replacing
from .nodes import apart, population_name
from .packed import Emission, Product
from .run import Run
from .samples import count_samples
from .staggered import StaggeredRun
from .synapses import Work, feeders, work_of_synapses

if TYPE_CHECKING:
    from .model import SpikingModel

__all__ = ["ENERGY_PER_AC", "ENERGY_PER_MAC", "Profile", "Row", "counts_in_words", "profile"]

# Picojoules of a 32-bit floating-point multiplication with addition (3.7 + 0.9) and of an addition in 45 nm CMOS:
# M. Horowitz, "Computing's Energy Problem (and what we can do about it)", ISSCC 2014.
ENERGY_PER_MAC, ENERGY_PER_AC = 4.6, 0.9
COUNTED = (
    "A MAC is a multiplication by a weight with its addition (4.6 pJ); an AC is the addition of one weight for one "
    "spike (0.9 pJ): 32-bit floating point in 45 nm, Horowitz, ISSCC 2014. They are counted exactly from the graph, "
    "products with padding left out on both sides, and a convolution with the average of it is the one convolution "
    "that they come to, in the ANN as well. What lies before the first neurons is computed once (direct "
    "encoding), and what lies behind the last is applied once to their estimates: MACs, as in the ANN. A map that "
    "follows another map without neurons between receives analog currents: MACs at every step; so does a product of "
    "two activations, whose decoded operands change at every step (once, where windows open when their input is "
    "complete). Not counted, on either side: biases, sums of branches and within pooling, factors per channel, "
    "normalisations and other nonlinear functions; nor the updates of the neurons themselves, one of each a step, "
    "which the ANN does not have, nor memory traffic."
)


@dataclass(frozen=True)
class Row:
    """A population with the synapses that lead to it, or the read-out. Operations and energies are a sample's.

    Attributes:
        neurons: of one sample; 0 for the read-out.
        firing_rate: share of its neurons and steps with a spike; ``None`` for the read-out.
        silent_bytes: share of the bytes of its packed trains (eight steps of a neuron) without a spike.
        products: how the packed products in front of it were taken, and how often (many steps are one call): ``fused``
            with the neurons, ``dense``, ``event`` (for sparse trains) or ``unpack``, see
            :func:`snn_kernels.spike_linear`. Empty where what arrives is no product of a packed train.
        synaptic_operations: spikes that arrive, each times the weights that it meets (AC).
        macs, ann_macs: multiplications with weights or between activations, in all steps and in the ANN.
        energy, ann_energy: picojoules.
    """

    name: str
    function: str
    neurons: int
    firing_rate: float | None
    silent_bytes: float | None
    products: Mapping[str, int]
    synaptic_operations: float
    macs: float
    ann_macs: float
    energy: float = field(init=False)
    ann_energy: float = field(init=False)

    def __post_init__(self) -> None:
        energy = ENERGY_PER_AC * self.synaptic_operations + ENERGY_PER_MAC * self.macs
        object.__setattr__(self, "energy", energy)
        object.__setattr__(self, "ann_energy", ENERGY_PER_MAC * self.ann_macs)


@dataclass(frozen=True)
class Profile:
    """The rows of a network, in its order, and what they add up to. Prints as a table, in a terminal and as text."""

    timesteps: int
    samples: int
    rows: tuple[Row, ...]

    @property
    def total(self) -> Row:
        """Sums over all rows; rates over all neurons."""
        neurons = sum(row.neurons for row in self.rows)

        def share(name: str) -> float | None:
            return (
                sum(getattr(row, name) * row.neurons for row in self.rows if row.neurons) / neurons if neurons else None
            )

        sums = {
            name: sum(getattr(row, name) for row in self.rows) for name in ("synaptic_operations", "macs", "ann_macs")
        }
        products = dict(sum((Counter(row.products) for row in self.rows), Counter()))
        return Row("total", "", neurons, share("firing_rate"), share("silent_bytes"), products, **sums)

    @property
    def verdict(self) -> str:
        """What the totals mean, in words."""
        total = self.total
        energies = f"{_joules(total.energy)} a sample against {_joules(total.ann_energy)}"
        if not total.ann_energy:
            return f"At T = {self.timesteps}: {energies}; the ANN multiplies nothing."
        ratio = total.energy / total.ann_energy
        head = f"At T = {self.timesteps} the spiking network takes {ratio:.3g} times the energy of the ANN ({energies})"
        if ratio > 1:
            return f"{head}: this configuration costs more than the ANN.{self._break_even()}"
        return f"{head}: it saves {1 - ratio:.0%} of it, by these counts."

    def _break_even(self) -> str:
        rate = self.total.firing_rate
        if not rate:
            return ""
        steps = ENERGY_PER_MAC / (ENERGY_PER_AC * rate)
        return (
            f" Its neurons fire in {rate:.0%} of all steps: at that rate a layer's ACs alone outweigh the ANN's MACs "
            f"from T = {int(steps) + 1} on."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings."""
        constants = {"energy_per_mac_pj": ENERGY_PER_MAC, "energy_per_ac_pj": ENERGY_PER_AC}
        rows = {"rows": [asdict(row) for row in self.rows], "total": asdict(self.total)}
        words = {"verdict": self.verdict, "counted": COUNTED}
        return {"timesteps": self.timesteps, "samples": self.samples, **constants, **rows, **words}

    def to_json(self, path: str | Path) -> None:
        """Write :meth:`to_dict` to a file, whole or not at all."""
        with replacing(Path(path)) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(title=f"T = {self.timesteps}, mean of {self.samples} samples", show_footer=False)
        table.add_column("population", overflow="fold")
        table.add_column("function")
        for head in ("neurons", "firing", "silent bytes", "products", "AC", "MAC", "ANN MAC", "energy", "ANN energy"):
            table.add_column(head, justify="right")
        for row in self.rows:
            table.add_row(*_cells(row))
        table.add_section()
        table.add_row(*_cells(self.total), style="bold")
        yield table
        yield Text(self.verdict, style="bold")
        yield Text(COUNTED, style="dim")

    def __str__(self) -> str:
        console = Console(width=120, no_color=True)
        with console.capture() as capture:
            console.print(self)
        return capture.get()


def _cells(row: Row) -> list[str]:
    rates = ["" if rate is None else f"{rate:.1%}" for rate in (row.firing_rate, row.silent_bytes)]
    counts = [_count(count) for count in (row.synaptic_operations, row.macs, row.ann_macs)]
    neurons = f"{row.neurons:,}" if row.neurons else ""
    products = counts_in_words(row.products)
    return [row.name, row.function, neurons, *rates, products, *counts, _joules(row.energy), _joules(row.ann_energy)]


def counts_in_words(counts: Mapping[str, int]) -> str:
    """``{"event": 3, "dense": 1}`` as ``3 event, 1 dense``."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _count(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def _joules(picojoules: float) -> str:
    for size, unit in ((1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ")):
        if picojoules >= size:
            return f"{picojoules / size:.3g} {unit}"
    return f"{picojoules:.3g} pJ"


class Counting:
    """A run that keeps the number of spikes of every neuron, and of the bytes of trains that hold none."""

    def __init__(self, model: SpikingModel, inputs: list[Any]):
        self.fired: dict[fx.Node, Tensor] = {}
        self.bytes: dict[fx.Node, int] = {}
        self.silent: dict[fx.Node, int] = {}
        self.products: dict[fx.Node, Counter[str]] = {}
        super().__init__(model, inputs, self._keep)

    def _keep(self, node: fx.Node, train: SpikeTrain) -> None:
        self.fired[node] = self.fired.get(node, 0) + train.unpack().sum(0)
        self.bytes[node] = self.bytes.get(node, 0) + train.bytes.numel()
        self.silent[node] = self.silent.get(node, 0) + int((train.bytes == 0).sum())


class CountingRun(Counting, Run):
    """Counts the spikes of an encoded input too, and how products were taken."""

    def _advance(self, eta: Tensor, node: fx.Node, currents: list) -> Emission | Tensor:
        emission = super()._advance(eta, node, currents)
        if node.op == "placeholder" and self.model.encoder in ("spike", "stochastic"):
            self.fired[node] = self.fired.get(node, 0) + emission.sum(0)
        taken = Counter(current.taken for current in currents if isinstance(current, Product))
        self.products[node] = self.products.get(node, Counter()) + taken
        return emission


class CountingStaggeredRun(Counting, StaggeredRun):
    """Here an encoded input sends its estimates, which are analog."""


@apart()
def profile(snn: SpikingModel, *args: Any, **kwargs: Any) -> Profile:
    """Run ``snn`` on one batch and count what its neurons send and its synapses take.

    Returns:
        Means over the samples of the batch; what is counted stands in the printed table and in the JSON.

    Raises:
        TypeError, ValueError: the inputs do not fit the network.
    """
    engine, inputs = snn.engine, snn.flat_inputs(args, kwargs)
    samples = count_samples(inputs)
    if not samples:
        raise ValueError("inputs: expected at least one sample, got none")
    run = (CountingStaggeredRun if snn.onset_delay else CountingRun)(snn, inputs)
    run.advance_to(snn.latency)
    values = engine.start(inputs, lambda population, x: population(*x))
    # A window that opens when its input is complete finds analog values that stay as they are.
    evaluations = 1 if snn.onset_delay >= snn.timesteps else snn.timesteps
    work = work_of_synapses(engine, values, run.fired, evaluations)
    return Profile(snn.timesteps, samples, tuple(_rows(snn, run, work, samples)))


def _rows(snn: SpikingModel, run: Counting, work: dict[fx.Node, Work], samples: int) -> Iterator[Row]:
    """Every map belongs to the first population that it leads to."""
    engine, left = snn.engine, dict(work)
    for node in (*engine.neurons, engine.output):
        done = Work()
        for source in (*feeders(node), node):
            done += left.pop(source, Work())
        operations = (done.accumulates / samples, done.macs / samples, done.ann_macs / samples)
        if node.op == "call_module":
            fired, count = run.fired[node], run.fired[node].numel()
            rate = fired.sum(dtype=torch.float64).item() / (snn.timesteps * count)
            name, function = population_name(node), engine.population(node).activation
            silent, products = run.silent[node] / run.bytes[node], dict(run.products.get(node, {}))
            yield Row(name, function, count // samples, rate, silent, products, *operations)
        elif node is engine.output:
            yield Row("read-out", "", 0, None, None, {}, *operations)
