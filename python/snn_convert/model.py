"""The converted network as a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from snn_kernels import SpikeTrain
from snn_kernels.checks import kind
from snn_kernels.schedules import Schedule

from . import storage
from .arguments import as_calibrated
from .checks import steps_up_to
from .early_exit import Decided, check_classes, check_steps, run_until_sure
from .engine import Engine
from .nodes import PRECISIONS, apart, population_name
from .population import Population
from .recipes import timing
from .rest import Rest
from .run import Run, Watch
from .samples import BATCHES, Samples, count_samples, holds
from .staggered import StaggeredRun
from .summary import summary
from .trace import Traced

if TYPE_CHECKING:
    from .profile import Profile

__all__ = ["SpikingModel"]


class SpikingModel(nn.Module):
    """A spiking network that computes what the ANN it was converted from computes.

    Called like the ANN, it runs :attr:`latency` time-steps and returns the ANN's output structure. Memory does not
    grow with the time-steps: eight at a time go through the network layer by layer, and every population keeps only
    its state between two rounds.

    ``to``, ``half`` and the like move weights and currents; decoded inputs, estimates, scales, offsets and step sizes
    are float32 always. In half precision it takes inputs and gives outputs of that precision, as the ANN would.

    Attributes:
        timesteps: the number of steps ``T`` that every population makes.
        onset_delay: the steps between a population's first and those of the populations it feeds.
        schedule: the step sizes; :meth:`set_schedule` changes these three.
        dynamics: the neurons' model, see :class:`~snn_convert.recipes.Recipe`.
        encoder: how the input enters (``direct``, ``float``, ``spike`` or ``stochastic``).
        network: affine operations and :class:`Population` modules; called by itself it is the ANN.
    """

    def __init__(
        self,
        traced: Traced,
        timesteps: int,
        schedule: Schedule,
        encoder: str,
        onset_delay: int,
        dynamics: str,
    ):
        super().__init__()
        self.network = traced.network
        self.input_spec, self.output_spec = traced.input_spec, traced.output_spec
        self.encoder = encoder
        self.engine = Engine(self.network, encoded=encoder != "direct")
        self.rest, self.samples = Rest(self.engine), Samples(self.engine)
        self.measures_each_run = False
        self.dynamics = dynamics
        self.register_buffer("eta", torch.empty(0), persistent=False)  # where the network is
        self.set_schedule(schedule, timesteps, onset_delay)
        self.register_load_state_dict_post_hook(lambda module, _: module.refresh())

    @property
    def timesteps(self) -> int:
        return len(self.eta)

    @property
    def schedule(self) -> Schedule:
        return self._schedule

    @property
    def onset_delay(self) -> int:
        return self._onset_delay

    def set_schedule(self, schedule: Schedule, timesteps: int, onset_delay: int | None = None) -> None:
        """Use other step sizes, another number of steps or, if it is given, another onset delay.

        Raises:
            TypeError, ValueError: see :func:`~snn_convert.recipes.timing`; or ``schedule`` has fewer steps.
        """
        if onset_delay is None and self.dynamics != "parallel":  # whose delay is their number of steps
            onset_delay = self.onset_delay
        timesteps, onset_delay = timing(self.dynamics, schedule, timesteps, onset_delay)
        self.eta = schedule.table(timesteps).to(self.eta.device)
        self._schedule, self._onset_delay = schedule, onset_delay

    @property
    def onsets(self) -> dict[str, int]:
        """The step after which each population starts: ``onset_delay`` after the latest of those that feed it."""
        depths = self.engine.depths
        return {population_name(node): self.onset_delay * depths[node] for node in depths if node.op == "call_module"}

    @property
    def latency(self) -> int:
        """Steps until the output is complete: the last population's onset, and its :attr:`timesteps`."""
        return self.timesteps + self.onset_delay * max(self.engine.depths.values(), default=0)

    def start(self, *args: Any, **kwargs: Any) -> Run:
        """A run on these inputs, to be taken through its time-steps by hand.

        ``run.step()`` makes one of :attr:`latency` steps, ``run.advance_to(n)`` those up to ``n``, and ``run.output()``
        is what the network has come to. Any way to the last step gives the output of a call, up to the order in which
        float32 sums are added.

        Raises:
            TypeError, ValueError: the inputs do not fit the ANN's.
        """
        return self._run(self.flat_inputs(args, kwargs))

    def run_until(self, *args: Any, confidence: float, steps: Sequence[int] | None = None, **kwargs: Any) -> Decided:
        """A run in which each sample stops as soon as the network is sure of its class.

        Samples that have stopped leave the batch, so that the rest runs faster; where a population has the batch merged
        with another dimension (windows), they stay in it and only their answer is kept.

        Args:
            confidence: the softmax probability of the top class at which a sample stops.
            steps: when to look; by default every eight steps, with an onset delay from eight steps after the last
                population's first. Whoever is not sure by then stops after :attr:`latency`.

        Returns:
            The output, each sample as it stopped, and the steps (int64 ``[B]``) after which they did.

        Raises:
            ValueError: ``confidence`` is not in (0, 1], a step is not between 1 and :attr:`latency`, or the output is
                not one tensor ``[B, classes]``.
        """
        check_classes(self)
        if not isinstance(confidence, (int, float)) or not 0 < confidence <= 1:
            raise ValueError(f"confidence: expected a probability above 0 and up to 1, got {confidence!r}")
        checks = check_steps(self, steps)
        return run_until_sure(self._run(self.flat_inputs(args, kwargs)), confidence, checks)

    def _run(self, leaves: list[Any], watch: Watch | None = None) -> Run:
        with apart():
            return (StaggeredRun if self.onset_delay else Run)(self, leaves, watch)

    def populations(self) -> Iterator[tuple[str, Population]]:
        """Every population with its name, in the order of the network."""
        for node in self.engine.neurons:
            if node.op == "call_module":
                yield population_name(node), self.engine.population(node)

    @torch.compiler.disable(reason="a spiking network runs its own kernels, layer by layer")
    @apart()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The ANN's output structure, after :attr:`latency` steps.

        ``torch.compile`` leaves this call as it is, whose steps run in kernels already, and compiles what is around it.
        """
        run = self._run(self.flat_inputs(args, kwargs))
        run.advance_to(self.latency)
        return run.output()

    @apart()
    def outputs_at(self, *args: Any, steps: Sequence[int], **kwargs: Any) -> list[Any]:
        """The output after each of ``steps``, in their order, from one run of ``max(steps)`` steps.

        With an onset delay they are steps of the whole network: the populations that have not started by then count
        with their initial estimates.

        Raises:
            ValueError: a step is not between 1 and :attr:`latency`, which is :attr:`timesteps` without an onset delay.
            TypeError: the inputs are not structured as the ANN's were.
        """
        steps = steps_up_to(self.latency, "latency" if self.onset_delay else "timesteps", steps)
        outputs = {}
        run = self._run(self.flat_inputs(args, kwargs))
        for step in sorted(set(steps)):
            run.advance_to(step)
            outputs[step] = run.output()
        return [outputs[step] for step in steps]

    @apart()
    def firing_rates(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The share of steps at which the neurons of each population fire.

        Raises:
            ValueError: the batch is empty; also, with ``TypeError``, the inputs do not fit the network.
        """
        leaves = self.flat_inputs(args, kwargs)
        if not count_samples(leaves):
            raise ValueError("inputs: expected at least one sample, got none")
        fired: dict[str, Tensor] = {}
        neurons: dict[str, int] = {}

        def count(node: fx.Node, train: SpikeTrain) -> None:
            name = population_name(node)
            fired[name], neurons[name] = fired.get(name, 0) + train.count(), train.shape.numel()

        self._run(leaves, count).advance_to(self.latency)
        return {name: count.item() / (neurons[name] * self.timesteps) for name, count in fired.items()}

    @apart()
    def spikes(self, *args: Any, **kwargs: Any) -> dict[str, SpikeTrain]:
        """The train of each population, :attr:`timesteps` of ``[B, *]``.

        A population is called by the path of its module, with ``_`` for the dots, and from the second of a module on by
        their number: ``3_2``. Max pooling is a tree of maxima of two, a population a level; where one has several of
        a window, they lie along a dimension before the channels, as in ``[B, 2, C, H, W]``.
        """
        pieces: dict[str, list[SpikeTrain]] = {}
        run = self._run(
            self.flat_inputs(args, kwargs), lambda n, train: pieces.setdefault(population_name(n), []).append(train)
        )
        run.advance_to(self.latency)
        return {name: SpikeTrain.join(found) for name, found in pieces.items()}

    def profile(self, *args: Any, **kwargs: Any) -> Profile:
        """Count spikes, operations and energy on one batch: see :func:`snn_convert.profile.profile`."""
        from .profile import profile

        return profile(self, *args, **kwargs)

    @apart()
    def measure_offsets(self, *args: Any, **kwargs: Any) -> None:
        """Measure what every neuron's inputs deliver with all feeding neurons firing plus with none (two probes).

        Where they depend on the sample (masks), its place or the number of samples, every run measures its own.

        Raises:
            ValueError: the network takes several samples, but no single one.
        """
        leaves = self.flat_inputs(args, kwargs)
        inputs = [leaf[:1] if isinstance(leaf, Tensor) and leaf.ndim else leaf for leaf in leaves]
        try:
            values = self.engine.start(inputs, lambda population, x: population(*x))
        except RuntimeError as error:
            raise ValueError(
                f"model: expected one that takes any number of samples; of one it says: {error}"
            ) from error
        offsets = self.engine.offsets(values)
        for node, measured in offsets.items():
            self.engine.population(node).set_offsets(measured)
        self.measures_each_run = self.engine.has_coefficients(values) or not self._fit_every_batch(offsets)
        self._plan(values)

    def _fit_every_batch(self, offsets: dict[fx.Node, list[Tensor]]) -> bool:
        """Whether offsets that were measured on one sample are those of more."""
        inputs = self.engine.example_inputs(self.eta.device, max(BATCHES))
        more = self.engine.offsets(self.engine.start(inputs, lambda population, x: population(*x)))
        return all(holds(*pair) for node in offsets for pair in zip(offsets[node], more[node]))

    @apart()
    def refresh(self, offsets: bool = False) -> None:
        """Choose kernels for the present device and scales and, if asked to, measure the offsets again."""
        inputs = self.engine.example_inputs(self.eta.device)
        values = self.engine.start(inputs, lambda population, x: population(*x))
        for node, measured in self.engine.offsets(values).items() if offsets else ():
            self.engine.population(node).set_offsets(measured)
        self._plan(values)

    def _plan(self, values: dict[fx.Node, Any]) -> None:
        self.engine.plan_products(values)
        self.rest.forget()

    def save(self, path: str | PathLike) -> None:
        """Write the network to one file: see :func:`snn_convert.storage.save`."""
        storage.save(self, path)

    @staticmethod
    def load(path: str | PathLike) -> SpikingModel:
        """Read a network that :meth:`save` wrote: see :func:`snn_convert.storage.load`."""
        return storage.load(path)

    def get_extra_state(self) -> dict[str, Any]:
        """What :meth:`state_dict` holds beside tensors."""
        schedule = storage.schedule_to_json(self.schedule, self.timesteps)
        flags = {"encoder": self.encoder, "dynamics": self.dynamics, "measures_each_run": self.measures_each_run}
        flags["weight_bits"] = self.engine.weight_bits
        return {"timesteps": self.timesteps, "onset_delay": self.onset_delay, "schedule": schedule, **flags}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        for name in ("encoder", "dynamics"):
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"{name}: expected the state of a network with {getattr(self, name)!r}, got {state[name]!r}"
                )
        self.measures_each_run, self.engine.weight_bits = state["measures_each_run"], state.get("weight_bits")
        self.set_schedule(storage.schedule_from_json(state["schedule"]), state["timesteps"], state["onset_delay"])

    def __repr__(self) -> str:
        return summary(self)

    def __reduce__(self) -> tuple:
        return storage.assemble, (*storage.describe(self), self.training)

    def __deepcopy__(self, memo: dict) -> SpikingModel:
        return storage.copy_of(self)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SpikingModel:
        device, precision = self.eta.device, fn(torch.empty_like(self.eta)).dtype
        if precision not in PRECISIONS:
            raise TypeError(f"dtype: expected float32, float16 or bfloat16, got {precision}")
        super()._apply(fn, recurse)
        self.set_schedule(self.schedule, self.timesteps)  # step sizes are float32 in any precision
        moved, rounded = device != self.eta.device, precision != self.engine.precision
        if moved:
            self.engine.move(self.eta.device)
        if moved or rounded or precision != torch.float32:  # into which what follows from the weights was cast
            self.engine.precision = precision
            self.refresh(offsets=rounded)
        return self

    def flat_inputs(self, args: tuple, kwargs: dict) -> list[Any]:
        """The leaves of the ANN's arguments, of which those it was calibrated with by position may come by name.

        Raises:
            TypeError: they are not structured as the ANN's were, or of another dtype.
            ValueError: a tensor of another shape, apart from the batch, or on another device; or an argument that is no
                tensor, whose value the network was traced with, has another.
        """
        names = [node.target for node in self.engine.inputs]
        leaves, spec = pytree.tree_flatten(as_calibrated(args, kwargs, self.input_spec, names))
        if spec != self.input_spec:
            raise TypeError(f"inputs: expected the structure {self.input_spec}, got {spec}")
        for node, leaf in zip(self.engine.inputs, leaves):
            expected = node.meta["val"]
            if not isinstance(expected, Tensor):
                if isinstance(leaf, Tensor) or leaf != expected:
                    raise ValueError(f"{node.target}: expected {expected!r} (fixed at conversion), got {leaf!r}")
                continue
            dtype = self.engine.precision if expected.is_floating_point() else expected.dtype
            if not isinstance(leaf, Tensor) or leaf.dtype != dtype:
                raise TypeError(f"{node.target}: expected a tensor of {dtype}, got {kind(leaf)}")
            sizes = ["any" if not isinstance(size, int) else size for size in expected.shape]
            fits = leaf.ndim == len(sizes) and all(a in ("any", b) for a, b in zip(sizes, leaf.shape))
            if not fits or leaf.device != self.eta.device:
                raise ValueError(f"{node.target}: expected shape {sizes} on {self.eta.device}, got {kind(leaf)}")
        return leaves
