"""Hugging Face models from small configurations, with inputs for them."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from models import as_trained

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


# The models, and what gives their inputs.
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

BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, **TEXT}

# Further families, for places that those above do not have: gates, normalised queries and keys, relative positions, one
# layer used twice, causal masks, rotations, gelu and RMS normalisation written out, masks that are added.
MORE = {
    "efficientnet": (
        lambda: tf.EfficientNetForImageClassification(
            tf.EfficientNetConfig(
                image_size=16, width_coefficient=0.25, depth_coefficient=0.4, depth_divisor=4, kernel_sizes=[3, 5],
                in_channels=[32, 16], out_channels=[16, 32], strides=[1, 2], num_block_repeats=[1, 1],
                expand_ratios=[1, 3], hidden_dim=320, num_labels=5,
            )
        ),
        images,
    ),
    "poolformer": (
        lambda: tf.PoolFormerForImageClassification(
            tf.PoolFormerConfig(
                num_encoder_blocks=2, patch_sizes=[3, 3], strides=[2, 2], padding=[1, 1], mlp_ratio=2.0,
                layer_scale_init_value=0.5, **TWO_STAGES,
            )
        ),
        images,
    ),
    "segformer": (
        lambda: tf.SegformerForImageClassification(
            tf.SegformerConfig(
                num_encoder_blocks=2, sr_ratios=[2, 1], patch_sizes=[3, 3], strides=[2, 2], num_attention_heads=[1, 2],
                mlp_ratios=[2, 2], **TWO_STAGES,
            )
        ),
        images,
    ),
    "swin v2": (
        lambda: tf.Swinv2ForImageClassification(
            tf.Swinv2Config(
                image_size=16, patch_size=2, embed_dim=8, depths=[2], num_heads=[2], window_size=4, num_labels=5
            )
        ),
        images,
    ),
    "bert, eager": (lambda: tf.BertModel(tf.BertConfig(attn_implementation="eager", **BERT)), sentences),
    "albert": (lambda: tf.AlbertModel(tf.AlbertConfig(embedding_size=8, **BERT)), sentences),
    "mpnet": (lambda: tf.MPNetModel(tf.MPNetConfig(**BERT | {"max_position_embeddings": 16})), sentences),
    "gpt 2": (
        lambda: tf.GPT2Model(
            tf.GPT2Config(
                vocab_size=50, n_positions=8, n_embd=16, n_layer=2, n_head=2, use_cache=False, bos_token_id=0,
                eos_token_id=0,
            )
        ),
        sentences,
    ),
    "llama": (
        lambda: tf.LlamaModel(tf.LlamaConfig(num_key_value_heads=1, use_cache=False, **BERT)),
        sentences,
    ),
}  # fmt: skip


def built(name) -> tuple[nn.Module, dict, dict]:
    torch.manual_seed(0)
    make, data = (MODELS | MORE)[name]
    calibration = data(24, seed=2)
    return as_trained(make(), calibration), data(), calibration
