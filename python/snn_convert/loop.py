"""The converted network as a plain PyTorch loop: the baseline that the kernels are measured against.

One network pass a step, one tensor operation a line of the dynamics, as published code runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from snn_kernels import SpikeTrain
from snn_kernels.ops.neuron.reference import Operands, State, signgd_step

from .encoders import encode
from .engine import Engine, Kind
from .model import SpikingModel
from .nodes import apart, call_node, population_name

__all__ = ["single_step_loop"]

Record = Callable[[int, str, tuple[Tensor, ...], Tensor, Tensor, Tensor], None]


@apart()
def single_step_loop(
    snn: SpikingModel,
    *args: Any,
    timesteps: int | None = None,
    record: Record | None = None,
    follow: Mapping[str, SpikeTrain] | None = None,
    **kwargs: Any,
) -> Any:
    """Run ``snn``'s dynamics step by step in PyTorch and return the decoded output.

    Args:
        snn: the converted network.
        args, kwargs: its inputs.
        timesteps: how many steps; all of them by default.
        record: called as ``record(t, population, x, target, v, spike)`` for every population and step, with ``v`` the
            estimate that was compared with the target.
        follow: what the populations fire in place of their own decisions, as :meth:`SpikingModel.spikes` gives it;
            ``record`` still sees their own.

    Raises:
        ValueError: the populations of ``snn`` do not start together.
    """
    if snn.onset_delay:
        raise ValueError(f"snn: expected onset_delay=0, got onset_delay={snn.onset_delay}")
    engine, inputs = snn.engine, snn.flat_inputs(args, kwargs)
    values = engine.start(inputs, lambda population, x: population.v0.expand(population(*x).shape))
    still = _still_values(engine, values)
    state = {
        node: State(tuple(values[source] for source in node.args), values[node])
        for node in engine.neurons
        if node.op == "call_module"
    }
    estimate = {node: values[node] for node in engine.neurons if node.op == "placeholder"}
    population_offsets, offsets = _offsets(engine, values, still)
    decoded = _leaves(values[engine.output])

    for t, eta in enumerate(snn.eta[:timesteps]):

        def emit(node: fx.Node, currents: Sequence[Tensor], t: int = t, eta: Tensor = eta) -> Tensor:
            if node.op == "placeholder":
                x = inputs[engine.inputs.index(node)]
                emission, estimate[node] = encode(snn.encoder, x, estimate[node], eta.unsqueeze(0))
                return emission[0]
            population, before = engine.population(node), state[node]
            operands = Operands(population_offsets[node], population.scale)
            spike, state[node] = signgd_step(currents, eta, population, operands, before)
            if record is not None:
                x = state[node].x
                record(t, population_name(node), x, population(*x), before.v, spike)
            if follow is not None:
                spike = follow[population_name(node)].step(t)
                state[node] = state[node]._replace(v=population.estimate_after(before.v, eta, spike.float()))
            return spike.float() * population.scale

        currents = _leaves(_network_pass(engine, still, emit))
        decoded = [y - eta * (2 * current - offset) for y, current, offset in zip(decoded, currents, offsets)]
    return pytree.tree_unflatten(decoded, snn.output_spec)


def _still_values(engine: Engine, values: dict) -> dict:
    """What does not change from step to step: coefficients, and summands that deliver no current."""
    return {node: value for node, value in values.items() if engine.kinds[node] in (Kind.FIXED, Kind.STATIC)}


def _network_pass(engine: Engine, still: dict, emit: Callable[[fx.Node, list[Tensor]], Tensor]) -> Any:
    env = dict(still)
    for node in engine.nodes:
        if engine.kinds[node] == Kind.NEURON:
            operands = [torch.zeros_like(env[s]) if s in still else env[s] for s in node.args]
            env[node] = emit(node, operands)
        elif engine.kinds[node] == Kind.CURRENT and node.op == "call_function":
            summands = [s for s in node.all_input_nodes if s in still and engine.adds(node, s)]
            silent = {s: torch.zeros_like(env[s]) for s in summands if isinstance(env[s], Tensor)}
            env[node] = call_node(node, {**env, **silent})
    return fx.node.map_arg(engine.output.args[0], env.__getitem__)


def _offsets(engine: Engine, values: dict, still: dict) -> tuple[dict[fx.Node, list[Tensor]], list[Tensor]]:
    """What the populations' inputs and the outputs receive with every neuron firing plus what they do with none."""
    received: list[dict[fx.Node, list[Tensor]]] = [{}, {}]

    def firing(node: fx.Node, currents: list[Tensor]) -> Tensor:
        received[0][node] = currents
        scale = engine.population(node).scale if node.op == "call_module" else torch.ones_like(values[node])
        return scale.expand_as(values[node])

    def silent(node: fx.Node, currents: list[Tensor]) -> Tensor:
        received[1][node] = currents
        return torch.zeros_like(values[node])

    outputs = [_leaves(_network_pass(engine, still, emit)) for emit in (firing, silent)]
    populations = {node: _sums(received[0][node], received[1][node]) for node in received[0]}
    return populations, _sums(*outputs)


def _sums(a: Sequence[Tensor], b: Sequence[Tensor]) -> list[Tensor]:
    return [x + y for x, y in zip(a, b)]


def _leaves(output: Any) -> list[Tensor]:
    return pytree.tree_leaves(output)
