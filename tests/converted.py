"""Small converted networks that several tests share."""

from __future__ import annotations

import torch

from architectures import ViT
from models import Residual, images, pooled_cnn, randomise_batch_norm
from snn_convert import SpikingModel, convert
from snn_kernels.schedules import Exponential

MODELS = {
    "cnn": pooled_cnn,
    "residual": lambda: randomise_batch_norm(Residual()),
    "vit": ViT,
}


def converted(name: str, **options) -> SpikingModel:
    torch.manual_seed(0)
    options = {"timesteps": 9, "schedule": Exponential(0.3, 0.8), **options}
    return convert(MODELS[name]().eval(), [images()], **options)
