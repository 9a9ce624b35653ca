"""Hugging Face models: they convert, compute the ANN, and run as the value-domain oracle and the plain loop do."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.utils import _pytree as pytree

from hugging_face import MODELS, MORE, built
from hugging_face_families import FAMILIES
from models import as_trained
from snn_convert import convert
from snn_convert.loop import single_step_loop
from snn_kernels.schedules import Exponential
from witness import witnessed

BATCH_NORMALISED = ("resnet", "regnet", "mobilenet v2", "efficientnet")  # the same in both forms

# Steps, their sizes, and the relative error allowed after them. The last step is 1e-3 of a channel's range, and errors
# of that size add up over the layers. Decomposed, reciprocal roots and quotients of estimates that still move enlarge
# them; 35 layers in a row, each of which waits for the one before, need more steps.
SHALLOW = {"vector": (96, Exponential(0.25, 0.945), 0.05), "decomposed": (160, Exponential(0.25, 0.965), 0.15)}
DEEP = (256, Exponential(0.3, 0.97), 0.3)


def relative_error(output, wanted) -> float:
    pairs = list(zip(pytree.tree_leaves(output), pytree.tree_leaves(wanted)))
    assert all(a.shape == b.shape and torch.isfinite(a).all() for a, b in pairs)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def in_both_forms(names) -> list[tuple[str, str]]:
    forms = [(name, "vector") for name in names]
    return forms + [(name, "decomposed") for name in names if name not in BATCH_NORMALISED]


def name_norms(model: torch.nn.Module) -> None:
    """Let LLaMA's norms, which it writes out, be PyTorch's function, which the oracle knows as one."""
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            of, eps = module.weight, module.variance_epsilon
            module.forward = lambda x, of=of, eps=eps: of * torch.nn.functional.rms_norm(x, of.shape, None, eps)


def name_activations(model: torch.nn.Module) -> None:
    """The same for the activations that models write out."""
    for module in model.modules():
        if type(module).__name__ == "NewGELUActivation":
            module.forward = partial(torch.nn.functional.gelu, approximate="tanh")


@pytest.mark.parametrize(("name", "normalisation"), in_both_forms([*MODELS, *MORE]))
def test_agrees_with_the_value_domain(name, normalisation):
    model, x, calibration = built(name)
    # Step sizes that fall to 7e-4: by then estimates are so near their targets that a target off by 1e-4 shows.
    snn = convert(model, [calibration], timesteps=24, schedule=Exponential(0.5, 0.75), normalisation=normalisation)
    name_activations(model)
    if normalisation == "vector":
        name_norms(model)
    for output, wanted in zip(*witnessed(model, x, snn, [1, 2, 7, 8, 9, 24], normalisation)):
        # Estimates that decisions have made the same, and one affine map: a few float32 roundings.
        assert relative_error(output, wanted) < 1e-6


@pytest.mark.parametrize(("name", "normalisation"), in_both_forms(MODELS))
def test_becomes_the_same_function_and_approaches_it(name, normalisation):
    model, x, calibration = built(name)
    timesteps, schedule, bound = DEEP if name == "mobilenet v2" else SHALLOW[normalisation]
    snn = convert(model, [calibration], timesteps=timesteps, schedule=schedule, normalisation=normalisation)
    with torch.no_grad():
        wanted = model(**x)
        network = pytree.tree_unflatten(pytree.tree_leaves(snn.network(*snn.flat_inputs((), x))), snn.output_spec)
    assert type(network) is type(wanted)
    # The rewriting reorders float32 sums; nothing is approximated.
    assert relative_error(network, wanted) < 1e-4
    early, late = (relative_error(output, wanted) for output in snn.outputs_at(**x, steps=[16, timesteps]))
    assert late < bound
    assert late < early / 2


GELUS = ("gelu", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh", "quick_gelu")


@pytest.mark.parametrize("name", [*GELUS, "hardswish", "mish", "silu"])
def test_activations_are_one_population_however_they_are_written(name):
    of = pytest.importorskip("transformers.activations").ACT2CLS[name]
    of, options = of if isinstance(of, tuple) else (of, {})
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), of(**options), torch.nn.Linear(6, 2))
    assert len(list(convert(model, [torch.randn(9, 4)], timesteps=2).network.populations.children())) == 1


@pytest.mark.parametrize("normalisation", ["vector", "decomposed"])
@pytest.mark.parametrize("name", ["convnext v2", "swin", "bert"])
def test_the_engine_runs_what_the_plain_loop_runs(name, normalisation):
    """Masks, windows merged into the batch and gates, step by step."""
    model, x, calibration = built(name)
    snn = convert(model, [calibration], timesteps=12, schedule=Exponential(0.4, 0.9), normalisation=normalisation)
    # A neuron that meets its target to rounding may decide otherwise where sums are taken in another order.
    assert relative_error(single_step_loop(snn, **x), snn(**x)) < 2e-2


@pytest.mark.parametrize("name", ["swin", "bert"])
def test_samples_do_not_see_each_other(name):
    """The masks and windows of one sample are its own, whatever batch it comes in."""
    model, x, calibration = built(name)
    snn = convert(model, [calibration], timesteps=9, schedule=Exponential(0.4, 0.9))
    together = pytree.tree_leaves(snn(**x))[0]
    for sample in (0, 4):
        alone = pytree.tree_leaves(snn(**{key: value[sample : sample + 1] for key, value in x.items()}))[0]
        torch.testing.assert_close(alone, together[sample : sample + 1], rtol=2e-2, atol=2e-2)


def test_what_is_masked_has_no_influence():
    model, x, calibration = built("bert")
    snn = convert(model, [calibration], timesteps=9, schedule=Exponential(0.4, 0.9))
    changed = dict(x, input_ids=torch.where(x["attention_mask"].bool(), x["input_ids"], 3))
    assert not torch.equal(changed["input_ids"], x["input_ids"])
    kept = x["attention_mask"].bool()
    a, b = (snn(**given).last_hidden_state[kept] for given in (x, changed))
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_sixteen_steps_one_population_after_the_other(name):
    model, x, calibration = built(name)
    snn = convert(model, [calibration], timesteps=16, onset_delay=16)
    with torch.no_grad():
        wanted = model(**x)
    # Sixteen halvings leave 1e-4 of a channel's range; the rest is data beyond the range that 24 samples span.
    assert relative_error(snn(**x), wanted) < 5e-2
    run = snn.start(**x)
    run.advance_to(snn.latency // 2)
    assert run.can_select == (name != "swin")  # whose windows are merged with the samples
    if run.can_select:
        two = run.select(torch.tensor([3, 0]))
        two.advance_to(snn.latency)
        kept = [leaf[[3, 0]] for leaf in pytree.tree_leaves(snn(**x))]
        assert relative_error(two.output(), kept) < 1e-3
    else:
        with pytest.raises(ValueError, match="select: a population has the samples merged with another dimension"):
            run.select(torch.tensor([3, 0]))


@pytest.mark.filterwarnings("ignore:populations that never moved")  # so small, some attend to one place alone
@pytest.mark.parametrize("name", FAMILIES)
def test_further_families_convert(name):
    """Their populations compute the ANN, and follow it once their inputs are there."""
    torch.manual_seed(0)
    make, data = FAMILIES[name]
    x = data(8, seed=2)
    model = as_trained(make(), x)
    with torch.no_grad():
        wanted = model(**x)
        snn = convert(model, [x], timesteps=16, onset_delay=16, schedule=Exponential(0.6, 0.5))
        network = pytree.tree_unflatten(pytree.tree_leaves(snn.network(*snn.flat_inputs((), x))), snn.output_spec)
    assert type(network) is type(wanted)
    assert relative_error(network, wanted) < 1e-4  # reordered float32 sums
    # Halving steps end at 2e-5 of a range; dozens of layers enlarge errors of that size.
    assert relative_error(snn(**x), wanted) < 2e-2
