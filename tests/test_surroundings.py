"""What PyTorch has been told for the rest of a program changes nothing here: operations compute in their own types."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
from torch.utils import _pytree as pytree

import snn_kernels as sk
from converted import MODELS
from models import images
from neuron_models import CALLS, currents
from signgd_helpers import seeded
from snn_convert import SpikingModel, convert

T = 9
ETA = sk.schedules.Exponential(0.4, 0.9).table(T)


@contextmanager
def double_by_default() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def autocast() -> AbstractContextManager:
    return torch.autocast("cpu", torch.bfloat16)


SURROUNDINGS = [double_by_default, autocast]


def assert_the_same_in(surroundings, call) -> None:
    wanted = pytree.tree_leaves(call())
    with surroundings():
        found = pytree.tree_leaves(call())
    for a, b in zip(found, wanted, strict=True):
        assert a is b is None or (a.dtype == b.dtype and torch.equal(a, b))


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_neurons(backend, surroundings):
    current, train = currents(T, 40, 20), sk.pack(currents(T, 40, 20) > 0.5)
    transposed, square, threshold = current.transpose(1, 2), seeded(T, T), seeded(T)

    def calls():
        yield [call(current, ETA, backend=backend) for call in CALLS.values()]
        for given in (current, train):
            yield sk.decode(given, ETA, backend=backend)
            yield sk.signgd_vector(given, ETA, "layer_norm", backend=backend)
        yield sk.signgd_matmul(current, transposed, ETA, backend=backend)
        yield sk.parallel_spikes(current, backend=backend)
        yield sk.parallel_spiking_neuron(current, square, threshold, backend=backend)

    assert_the_same_in(surroundings, lambda: list(calls()))


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("amplitude", [None, 0.5, seeded(20, 5, 4, seed=6).abs()], ids=["spikes", "number", "neurons"])
def test_products(amplitude, backend, surroundings):
    train, weight, kernel = sk.pack(seeded(T, 10, 20, 5, 4) > 0), seeded(17, 4, seed=1), seeded(17, 20, 3, 3, seed=2)
    rows, shortcut = sk.pack(seeded(T, 10, 20, 5, 17) > 0), sk.pack(seeded(T, 10, 17, 5, 4) > 0)
    bias, how = seeded(17, seed=3), {"amplitude": amplitude, "backend": backend}

    def calls():
        for method in ("auto", "unpack") if backend == "cpu" else ("auto",):
            yield sk.spike_linear(train, weight, bias, method=method, **how)
            yield sk.spike_conv2d(train, kernel, bias, padding=1, method=method, **how)
        for residual in (None, rows):
            yield sk.spike_linear_signgd(train, weight, bias, ETA, "relu", residual=residual, **how)
        for residual in (None, shortcut):
            yield sk.spike_conv2d_signgd(train, kernel, bias, ETA, "relu", padding=1, residual=residual, **how)

    assert_the_same_in(surroundings, lambda: list(calls()))


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_modules(surroundings):
    current = currents(T, 2, 6)

    def call():
        neuron = sk.SignGDNeuron("relu", sk.schedules.Exponential(), scale=0.5)
        return neuron(current), neuron.scale, neuron.state

    assert_the_same_in(surroundings, call)


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
@pytest.mark.parametrize("recipe", ["default", "paper"])
@pytest.mark.parametrize("name", MODELS)
def test_converted_networks(name, recipe, surroundings, tmp_path):
    model, batch = MODELS[name]().eval(), images()

    def call():
        snn = convert(model, [batch], timesteps=T, recipe=recipe, schedule=sk.schedules.Exponential(0.3, 0.8))
        snn.save(tmp_path / "network.snn")
        again = SpikingModel.load(tmp_path / "network.snn")
        run = again.start(batch)
        run.advance_to(T)
        return snn(batch), again(batch), run.output(), snn.spikes(batch), again.to(torch.bfloat16)(batch.bfloat16())

    assert_the_same_in(surroundings, call)
