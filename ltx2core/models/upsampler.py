"""LTX-2's latent upsampler: latents of a video to those of one twice as wide and high. A file of its own, beside the checkpoint.

Its shape is read from the tensors in the file, so that those of 2.0 and of later versions load alike. Names are diffusers' own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from ltx2core.errors import CheckpointError
from ltx2core.models.safetensors_header import read_header

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from diffusers.pipelines.ltx2 import LTX2LatentUpsamplerModel
    from torch import Tensor

    from ltx2core.models.checkpoint import Checkpoint


def check_upsampler(path: Path, checkpoint: Checkpoint) -> None:
    """Raise CheckpointError unless the file is a spatial upsampler by two for this model's latents. Reads no tensor."""
    channels = _arguments(path)["in_channels"]
    wanted = _latent_channels(checkpoint)
    if channels != wanted:
        raise CheckpointError(f"{path} is for latents of {channels} channels, the model's have {wanted}.", fix="Use the model's own.")


def load_upsampler(path: Path, *, device: torch.device, dtype: torch.dtype) -> LTX2LatentUpsamplerModel:
    """The upsampler of a file. Raises CheckpointError for one that is none."""
    from diffusers.pipelines.ltx2 import LTX2LatentUpsamplerModel
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = LTX2LatentUpsamplerModel(**_arguments(path))
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(path, device=str(device)).items()}
    try:
        model.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{path} is no whole upsampler: {str(error).splitlines()[-1].strip()}", fix="Download it again.") from error
    return model.eval().requires_grad_(False)


@torch.no_grad()
def upsample(model: LTX2LatentUpsamplerModel, latents: Tensor, checkpoint: Checkpoint) -> Tensor:
    """Normalised latents [1, C, f, 2 h, 2 w], float32, of normalised ones [1, C, f, h, w]: the upsampler takes them as the VAE has them."""
    mean, std = (part.to(latents.device).float().view(1, -1, 1, 1, 1) for part in video_statistics(checkpoint))
    weight = next(model.parameters())
    found: Tensor = model((latents.float() * std + mean).to(weight.device, weight.dtype)).float()
    return (found.to(latents.device) - mean) / std


def video_statistics(checkpoint: Checkpoint) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of the video VAE's latents, [C], without loading it."""
    names = ("latents_mean", "latents_std")
    found = dict(checkpoint.tensors("video_vae", wanted=lambda name: name in names))
    return found["latents_mean"], found["latents_std"]


def _latent_channels(checkpoint: Checkpoint) -> int:
    return int(video_statistics(checkpoint)[0].shape[0])


def _arguments(path: Path) -> dict[str, Any]:
    """Arguments of diffusers' class, from the shapes in the file's header."""
    _, entries = read_header(path)
    shapes = {name: tuple(entry.shape) for name, entry in entries.items()}
    first, last = shapes.get("initial_conv.weight"), _upscaling(shapes)
    if first is None or last is None:
        raise CheckpointError(f"{path} is no latent upsampler.", fix="Use ltx-2-spatial-upscaler-x2-1.0.safetensors, or the model's own.")
    rational, times, dims = last
    if dims != 2 or times != 4:
        raise CheckpointError(f"{path} does not upsample by two in width and height.", fix="Use a spatial upscaler x2.")
    blocks = {match[1] for name in shapes if (match := re.match(r"res_blocks\.(\d+)\.", name))}
    return {
        "in_channels": first[1],
        "mid_channels": first[0],
        "num_blocks_per_stage": len(blocks),
        "dims": len(first) - 2,
        "spatial_upsample": True,
        "temporal_upsample": False,
        "rational_spatial_scale": 2.0,
        "use_rational_resampler": rational,
    }


def _upscaling(shapes: Mapping[str, tuple[int, ...]]) -> tuple[bool, int, int] | None:
    """Of the layer that makes more of less: whether it is the rational one, how many times more channels, in how many dimensions."""
    for name, rational in (("upsampler.conv.weight", True), ("upsampler.0.weight", False)):
        if (shape := shapes.get(name)) is not None:
            return rational, shape[0] // shape[1], len(shape) - 2
    return None
