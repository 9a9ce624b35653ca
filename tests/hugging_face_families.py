"""Further families of Hugging Face models, a row each: the classes of model and configuration, and the inputs."""

from __future__ import annotations

from functools import partial

import torch

from hugging_face import BERT, TWO_STAGES, VIT, images, sentences, tf

DECODER = BERT | {"num_key_value_heads": 1, "use_cache": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LONGER = BERT | {"max_position_embeddings": 16}  # positions begin behind the padding
PYRAMID = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 8, 8], "num_attention_heads": [1, 1, 2, 2], "num_labels": 5}
SEQUENCE = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "vocab_size": 50, "use_cache": False, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
LARGER = partial(images, size=32)


def tokens(count=6, seed=1):
    return {"input_ids": sentences(count, seed=seed)["input_ids"]}


def features(*shape, name="input_values"):
    def make(count=6, seed=1):
        return {name: torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))}

    return make


def model(name, config, inputs=sentences, part=None, **options):
    """Makes the model ``name``, or a part of it, of a configuration, and what gives its inputs."""

    def make():
        whole = getattr(tf, name)(getattr(tf, config)(**options))
        return getattr(whole, part)() if part else whole

    return make, inputs


FAMILIES = {
    # Text.
    "roberta": model("RobertaModel", "RobertaConfig", **LONGER),
    "xlm roberta": model("XLMRobertaForSequenceClassification", "XLMRobertaConfig", **LONGER),
    "bert, masked words": model("BertForMaskedLM", "BertConfig", **BERT),
    "electra": model("ElectraModel", "ElectraConfig", embedding_size=8, **BERT),
    "deberta": model("DebertaModel", "DebertaConfig", tokens, **BERT),
    "deberta v2": model("DebertaV2Model", "DebertaV2Config", tokens, **BERT),
    "modernbert": model("ModernBertModel", "ModernBertConfig", local_attention=4, pad_token_id=0, **BERT),
    "squeezebert": model(
        "SqueezeBertModel", "SqueezeBertConfig", embedding_size=16, q_groups=2, k_groups=2, v_groups=2,
        post_attention_groups=2, intermediate_groups=2, output_groups=2, **BERT,
    ),
    "mobilebert": model(
        "MobileBertModel", "MobileBertConfig", embedding_size=16, intra_bottleneck_size=16, true_hidden_size=16, **BERT
    ),
    "convbert": model("ConvBertModel", "ConvBertConfig", embedding_size=16, head_ratio=1, **BERT),
    "fnet": model(
        "FNetModel", "FNetConfig", tokens, **{k: v for k, v in BERT.items() if k != "num_attention_heads"}
    ),
    "funnel": model(
        "FunnelBaseModel", "FunnelConfig", vocab_size=50, block_sizes=[1, 1], num_decoder_layers=1, d_model=16,
        n_head=2, d_head=8, d_inner=24,
    ),
    "t5": model("T5EncoderModel", "T5Config", vocab_size=50, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2),
    "bart": model("BartModel", "BartConfig", part="get_encoder", max_position_embeddings=16, **SEQUENCE),
    "gpt neox": model("GPTNeoXModel", "GPTNeoXConfig", use_cache=False, **BERT),
    "opt": model(
        "OPTModel", "OPTConfig", vocab_size=50, hidden_size=16, num_hidden_layers=2, ffn_dim=24, num_attention_heads=2,
        max_position_embeddings=16, word_embed_proj_dim=16, use_cache=False,
    ),
    "llama, next words": model("LlamaForCausalLM", "LlamaConfig", **DECODER),
    "mistral": model("MistralModel", "MistralConfig", **DECODER),
    "qwen 3": model("Qwen3Model", "Qwen3Config", head_dim=8, **DECODER),
    "gemma 2": model("Gemma2Model", "Gemma2Config", head_dim=8, **DECODER),
    "phi": model("PhiModel", "PhiConfig", **DECODER),
    "olmo 2": model("Olmo2Model", "Olmo2Config", **DECODER),
    "mamba": model(
        "MambaModel", "MambaConfig", tokens, vocab_size=50, hidden_size=16, state_size=4, num_hidden_layers=1,
        use_cache=False,
    ),
    # Images.
    "resnet of bottlenecks": model(
        "ResNetForImageClassification", "ResNetConfig", images, layer_type="bottleneck", embedding_size=8, **TWO_STAGES
    ),
    "regnet with gates": model(
        "RegNetForImageClassification", "RegNetConfig", images, groups_width=4, layer_type="y", embedding_size=8,
        **TWO_STAGES,
    ),
    "big transfer": model(
        "BitForImageClassification", "BitConfig", images, embedding_size=8, hidden_sizes=[32, 32], depths=[1, 1],
        num_groups=4, num_labels=5,
    ),
    "mobilenet v1": model(
        "MobileNetV1ForImageClassification", "MobileNetV1Config", LARGER, depth_multiplier=0.1, min_depth=4,
        num_labels=5,
    ),
    "mobilevit": model(
        "MobileViTForImageClassification", "MobileViTConfig", LARGER, image_size=32, hidden_sizes=[8, 12, 16],
        neck_hidden_sizes=[4, 4, 8, 8, 12, 12, 16], num_attention_heads=2, num_labels=5,
    ),
    "mobilevit v2": model(
        "MobileViTV2ForImageClassification", "MobileViTV2Config", partial(images, size=64), image_size=64,
        width_multiplier=0.1, num_labels=5,
    ),
    "beit": model("BeitForImageClassification", "BeitConfig", images, **VIT),
    "dino v2": model(
        "Dinov2Model", "Dinov2Config", images, mlp_ratio=2, use_swiglu_ffn=True,
        **{k: v for k, v in VIT.items() if k != "intermediate_size"},
    ),
    "clip, images": model("CLIPVisionModel", "CLIPVisionConfig", images, **VIT),
    "clip, text": model("CLIPTextModel", "CLIPTextConfig", **BERT | {"pad_token_id": 0, "eos_token_id": 2}),
    "siglip": model("SiglipVisionModel", "SiglipVisionConfig", images, **VIT),
    "segformer, segmentation": model(
        "SegformerForSemanticSegmentation", "SegformerConfig", LARGER, decoder_hidden_size=8, **PYRAMID
    ),
    "pvt v2": model("PvtV2ForImageClassification", "PvtV2Config", LARGER, image_size=32, **PYRAMID),
    "levit": model(
        "LevitForImageClassification", "LevitConfig", partial(images, size=64), image_size=64,
        hidden_sizes=[16, 16, 16], num_attention_heads=[2, 2, 2], depths=[1, 1, 1], key_dim=[8, 8, 8], num_labels=5,
    ),
    "focalnet": model(
        "FocalNetForImageClassification", "FocalNetConfig", LARGER, image_size=32, patch_size=4, embed_dim=8,
        depths=[1, 1], hidden_sizes=[8, 16], focal_levels=[2, 2], focal_windows=[3, 3], num_labels=5,
    ),
    "hiera": model(
        "HieraForImageClassification", "HieraConfig", LARGER, image_size=[32, 32], embed_dim=8, depths=[1, 1],
        num_heads=[1, 2], masked_unit_size=[2, 2], query_stride=[2, 2], num_query_pool=1, num_labels=5,
    ),
    "yolos": model("YolosModel", "YolosConfig", LARGER, num_detection_tokens=3, **VIT | {"image_size": [32, 32]}),
    "depth": model(
        "DPTForDepthEstimation", "DPTConfig", LARGER, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=24, image_size=32, patch_size=8, backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
    ),
    # Sound.
    "wav2vec 2": model(
        "Wav2Vec2Model", "Wav2Vec2Config", features(400), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=24, conv_dim=(8, 8), conv_stride=(5, 2), conv_kernel=(10, 3), num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, mask_time_prob=0.0,
    ),
    "whisper": model(
        "WhisperModel", "WhisperConfig", features(8, 32, name="input_features"), part="get_encoder", num_mel_bins=8,
        max_source_positions=16, max_target_positions=16, **SEQUENCE,
    ),
    "spectrograms": model(
        "ASTForAudioClassification", "ASTConfig", features(32, 16), hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=24, patch_size=8, max_length=32, num_mel_bins=16, frequency_stride=8,
        time_stride=8, num_labels=5,
    ),
}  # fmt: skip
