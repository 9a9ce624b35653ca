"""What a spiking network takes: synaptic operations, energy and time beside its accuracy."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from snn_convert import SpikingModel
from snn_convert.profile import counts_in_words

from .data import Split
from .training import accuracy

__all__ = ["COST_HEAD", "COUNTED_SAMPLES", "Cost", "cost_cells", "cost_of", "share_equal"]

COUNTED_SAMPLES = 32
COST_HEAD = (
    "system",
    "T",
    "latency",
    "SNN accuracy",
    "agreement",
    "firing rate",
    "products",
    "AC",
    "MAC",
    "energy / ANN",
    "seconds",
)


@dataclass(frozen=True)
class Cost:
    """A system at ``timesteps`` steps: what it gets right and what it takes.

    ``latency`` is the number of steps until the output is complete. The firing rate, ``synaptic_operations`` (additions
    of a weight for a spike), ``macs`` and the energies (picojoules) are a sample's, means of the first
    ``COUNTED_SAMPLES`` test samples, counted as :meth:`snn_convert.SpikingModel.profile` counts; ``products`` says how
    often packed trains met their weights ``fused`` with the neurons, ``dense`` or by ``event``. ``seconds`` is the
    simulator's time for the timed test samples.
    """

    network: str
    system: str
    timesteps: int
    latency: int
    snn_accuracy: float
    agreement: float
    firing_rate: float
    products: dict[str, int]
    synaptic_operations: float
    macs: float
    energy: float
    ann_energy: float
    seconds: float


def share_equal(a: Tensor, b: Tensor) -> float:
    """Share of samples for which two outputs predict the same class."""
    return (a.argmax(-1) == b.argmax(-1)).double().mean().item()


def cost_of(
    network: str, system: str, snn: SpikingModel, split: Split, output: Tensor, ann: Tensor, seconds: float
) -> Cost:
    """The costs of ``snn`` as it is set, whose output for the test images is ``output`` and the ANN's ``ann``."""
    total = snn.profile(split.test_images[:COUNTED_SAMPLES]).total
    return Cost(
        network=network,
        system=system,
        timesteps=snn.timesteps,
        latency=snn.latency,
        snn_accuracy=accuracy(output, split.test_labels),
        agreement=share_equal(output, ann),
        firing_rate=total.firing_rate,
        products=dict(total.products),
        synaptic_operations=total.synaptic_operations,
        macs=total.macs,
        energy=total.energy,
        ann_energy=total.ann_energy,
        seconds=seconds,
    )


def cost_cells(cost: Cost) -> list[str]:
    """A row as text, in the order of ``COST_HEAD``."""
    return [
        cost.system,
        str(cost.timesteps),
        str(cost.latency),
        f"{cost.snn_accuracy:.1%}",
        f"{cost.agreement:.1%}",
        f"{cost.firing_rate:.1%}",
        counts_in_words(cost.products),
        f"{cost.synaptic_operations / 1e6:.3g} M",
        f"{cost.macs / 1e6:.3g} M",
        f"{cost.energy / cost.ann_energy:.2f}",
        f"{cost.seconds:.3f}",
    ]
