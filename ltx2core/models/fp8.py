"""Weights that a file holds in fewer bits: which formats are read, and how fp8 becomes numbers again.

An fp8 file keeps `X.weight` in float8 beside `X.weight_scale` (Lightricks, diffusers) or `X.scale_weight` (ComfyUI): one float32 for
the tensor, or one for each row. `X.input_scale` is for products in fp8, which training does not do. Files without scales hold
plain casts. 4-bit and int8 files are made for inference kernels and are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from ltx2core.models.safetensors_header import Entry

FP8 = ("F8_E4M3", "F8_E5M2")
_SCALES = (".weight_scale", ".scale_weight")
_BESIDE_WEIGHTS = (*_SCALES, ".weight_scale_2", ".input_scale", ".scale_input", ".comfy_quant", "scaled_fp8")


def describes_weights(key: str) -> bool:
    """Whether a key is no tensor of the model, but tells how one was quantised."""
    return key.endswith(_BESIDE_WEIGHTS)


def scale_key(key: str, entries: Mapping[str, Entry]) -> str | None:
    """The key of the scale of an fp8 weight; None for other tensors and for plain casts."""
    if not key.endswith(".weight") or entries[key].dtype not in FP8:
        return None
    return next((found for suffix in _SCALES if (found := key.removesuffix(".weight") + suffix) in entries), None)


def dequantise(weight: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """The numbers of an fp8 tensor in float32, weight x scale. scale: one element, or one a row ([rows] or [rows, 1])."""
    if scale is None:
        return weight.float()
    if scale.numel() not in (1, weight.shape[0]):
        raise ValueError(f"a scale of {[*scale.shape]} for a weight of {[*weight.shape]}")
    return weight.float().mul_(scale.float().reshape(-1, *(1,) * (weight.dim() - 1)))


def refuse_unreadable_formats(path: Path, entries: Mapping[str, Entry]) -> None:
    """Raise CheckpointError for a file whose weights are in 4 bits, in int8, or in fp8 with a scale for each small block."""
    for key, entry in entries.items():
        if not key.endswith(".weight"):
            continue
        if entry.dtype in ("U8", "F4"):
            raise CheckpointError(
                f"{path} holds 4-bit weights (nvfp4), which cannot be trained on.", fix="Use the bf16 or the fp8 file of the model."
            )
        if entry.dtype == "I8":
            raise CheckpointError(
                f"{path} holds int8 weights, which cannot be trained on.", fix="Use the bf16 or the fp8 file of the model."
            )
        scale = scale_key(key, entries)
        if scale is not None and entries[scale].shape not in ((), (1,), (1, 1), entry.shape[:1], (*entry.shape[:1], 1)):
            raise CheckpointError(
                f"{path} holds fp8 weights with scales for blocks ({scale} {[*entries[scale].shape]}); one a tensor or a row can be read.",
                fix="Use the bf16 file of the model, or Lightricks' own fp8 file.",
            )
