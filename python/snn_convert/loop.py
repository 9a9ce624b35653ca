"""The converted network as a plain PyTorch loop: the baseline that the kernels are measured against.

One network pass a step, one tensor operation a line of the dynamics, as published code runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from snn_kernels.ops.signgd.reference import signgd_step

from .encoders import encode
from .engine import Engine, Kind, call_node
from .model import SpikingModel

__all__ = ["single_step_loop"]

Record = Callable[[int, str, tuple[Tensor, ...], Tensor, Tensor, Tensor], None]


@torch.no_grad()
def single_step_loop(snn: SpikingModel, *args: Any, timesteps: int | None = None, record: Record | None = None) -> Any:
    """Run ``snn``'s dynamics step by step in PyTorch and return the decoded output.

    Args:
        snn: the converted network.
        args: its inputs.
        timesteps: how many steps; all of them by default.
        record: called as ``record(t, population, x, target, v, spike)`` for every population and step, with ``v`` the
            estimate that was compared with the target.
    """
    engine, inputs = snn.engine, snn.flat_inputs(args, {})
    values = engine.start(inputs, lambda population, x: population.v0.expand(population(*x).shape))
    still = _still_values(engine, values)
    state = {
        node: (tuple(values[source] for source in node.args), values[node])
        for node in engine.neurons
        if node.op == "call_module"
    }
    estimate = {node: values[node] for node in engine.neurons if node.op == "placeholder"}
    offsets = _output_offsets(engine, values, still)
    decoded = _leaves(values[engine.output])

    for t, eta in enumerate(snn.eta[:timesteps]):

        def emit(node: fx.Node, currents: Sequence[Tensor], t: int = t, eta: Tensor = eta) -> Tensor:
            if node.op == "placeholder":
                x = inputs[engine.inputs.index(node)]
                emission, estimate[node] = encode(snn.encoder, x, estimate[node], eta.unsqueeze(0))
                return emission[0]
            population, (x, v) = engine.population(node), state[node]
            spike, x, new_v = signgd_step(currents, eta, population, population.offsets, population.scale, x, v)
            if record is not None:
                record(t, node.target.removeprefix("populations."), x, population(*x), v, spike)
            state[node] = (x, new_v)
            return spike.float() * population.scale

        currents = _leaves(_network_pass(engine, still, emit))
        decoded = [y - eta * (2 * current - offset) for y, current, offset in zip(decoded, currents, offsets)]
    return pytree.tree_unflatten(decoded, snn.output_spec)


def _still_values(engine: Engine, values: dict) -> dict:
    """What does not change from step to step; what depends on the input alone delivers no current."""
    kinds = engine.kinds
    fixed = {node: value for node, value in values.items() if kinds[node] == Kind.FIXED}
    return fixed | {node: torch.zeros_like(values[node]) for node in values if kinds[node] == Kind.STATIC}


def _network_pass(engine: Engine, still: dict, emit: Callable[[fx.Node, list[Tensor]], Tensor]) -> Any:
    env = dict(still)
    for node in engine.nodes:
        if engine.kinds[node] == Kind.NEURON:
            env[node] = emit(node, [env[source] for source in node.all_input_nodes])
        elif engine.kinds[node] == Kind.CURRENT and node.op == "call_function":
            env[node] = call_node(node, env)
    return fx.node.map_arg(engine.output.args[0], env.__getitem__)


def _output_offsets(engine: Engine, values: dict, still: dict) -> list[Tensor]:
    """The output's current with every neuron firing plus the one with none."""

    def firing(node: fx.Node, _: list[Tensor]) -> Tensor:
        scale = engine.population(node).scale if node.op == "call_module" else torch.ones_like(values[node])
        return scale.expand_as(values[node])

    def silent(node: fx.Node, _: list[Tensor]) -> Tensor:
        return torch.zeros_like(values[node])

    passes = (_leaves(_network_pass(engine, still, emit)) for emit in (firing, silent))
    return [a + b for a, b in zip(*passes)]


def _leaves(output: Any) -> list[Tensor]:
    return pytree.tree_leaves(output)
