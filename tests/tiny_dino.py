"""A DINOv2 of two layers with random weights, saved as transformers saves them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from pathlib import Path


def save_tiny_dino(folder: Path, *, seed: int = 0) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(seed)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14)
    model = Dinov2Model(config)
    with torch.no_grad():
        for parameter in model.parameters():  # far from its start, whose scales make every patch alike
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder, safe_serialization=True)
    return folder
