"""Hugging Face models from small configurations: they convert, compute the ANN, and run as the plain loop does."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from models import as_trained
from snn_convert import convert
from snn_convert.loop import single_step_loop
from snn_kernels.schedules import Exponential

tf = pytest.importorskip("transformers", reason="the test extra brings transformers")

VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 16,
       "patch_size": 8, "num_labels": 5}  # fmt: skip
TWO_STAGES = {"hidden_sizes": [8, 12], "depths": [1, 1], "num_labels": 5}
STAGES = {"embedding_size": 8, **TWO_STAGES}
TEXT = {"vocab_size": 50, "max_position_embeddings": 8}


def images(count=6, size=16, seed=1):
    return {"pixel_values": torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))}


def sentences(count=6, length=7, seed=1):
    """Token numbers, and attention masks of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, length + 1, (count, 1), generator=generator)
    tokens = torch.randint(1, 50, (count, length), generator=generator)
    return {"input_ids": tokens, "attention_mask": (torch.arange(length) < lengths).long()}


MODELS = {
    "resnet": (lambda: tf.ResNetForImageClassification(tf.ResNetConfig(layer_type="basic", **STAGES)), images),
    "regnet": (lambda: tf.RegNetForImageClassification(tf.RegNetConfig(groups_width=4, **STAGES)), images),
    "mobilenet v2": (
        lambda: tf.MobileNetV2ForImageClassification(
            tf.MobileNetV2Config(
                depth_multiplier=0.1, min_depth=4, depth_divisible_by=4, expand_ratio=2, output_stride=8, num_labels=5
            )
        ),
        partial(images, size=32),
    ),
    "convnext": (
        lambda: tf.ConvNextForImageClassification(
            tf.ConvNextConfig(num_stages=2, layer_scale_init_value=0.5, **TWO_STAGES)
        ),
        images,
    ),
    "convnext v2": (
        lambda: tf.ConvNextV2ForImageClassification(tf.ConvNextV2Config(num_stages=2, **TWO_STAGES)),
        images,
    ),
    "vit": (lambda: tf.ViTForImageClassification(tf.ViTConfig(**VIT)), images),
    "deit": (lambda: tf.DeiTForImageClassification(tf.DeiTConfig(**VIT)), images),
    "swin": (
        lambda: tf.SwinForImageClassification(
            tf.SwinConfig(
                image_size=16, patch_size=2, embed_dim=8, depths=[2], num_heads=[2], window_size=4, num_labels=5
            )
        ),
        images,
    ),
    "bert": (
        lambda: tf.BertModel(
            tf.BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, **TEXT)
        ),
        sentences,
    ),
    "distilbert": (
        lambda: tf.DistilBertModel(tf.DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=24, **TEXT)),
        sentences,
    ),
}  # fmt: skip


BATCH_NORMALISED = ("resnet", "regnet", "mobilenet v2")  # the same in both forms

# Steps, their sizes, and the relative error allowed after them. The last step is 1e-3 of a channel's range, and errors
# of that size add up over the layers. Decomposed, reciprocal roots and quotients of estimates that still move enlarge
# them; 35 layers in a row, each of which waits for the one before, need more steps.
SHALLOW = {"vector": (96, Exponential(0.25, 0.945), 0.05), "decomposed": (160, Exponential(0.25, 0.965), 0.15)}
DEEP = (256, Exponential(0.3, 0.97), 0.3)


def built(name) -> tuple[nn.Module, dict, dict]:
    torch.manual_seed(0)
    make, data = MODELS[name]
    calibration = data(24, seed=2)
    return as_trained(make(), calibration), data(), calibration


def relative_error(output, wanted) -> float:
    pairs = list(zip(pytree.tree_leaves(output), pytree.tree_leaves(wanted)))
    assert all(a.shape == b.shape and torch.isfinite(a).all() for a, b in pairs)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


@pytest.mark.parametrize(
    ("name", "normalisation"),
    [(name, "vector") for name in MODELS] + [(name, "decomposed") for name in MODELS if name not in BATCH_NORMALISED],
)
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
