"""The LoRA file that ComfyUI, diffusers and the official pipelines load: written with official names, then read back and compared.

None of them looks for an alpha in an LTX-2 file, so alpha / rank is folded into B. Weights are bf16, as the official trainer saves.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.caching.tensors import read_tensors, write_tensors
from ltx2core.errors import CheckpointError, StorageError
from ltx2core.models.names import to_official

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

_PREFIX = "diffusion_model."


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraInfo:
    """What a LoRA file holds. `targets` are the kinds of layers (`attn1.to_q`), blocks left out."""

    path: str
    file_bytes: int
    tensors: int
    rank: int
    dtype: str
    targets: tuple[str, ...]
    has_audio: bool
    metadata: dict[str, str]


def export_lora(path: Path, adapter: Mapping[str, Tensor], *, rank: int, alpha: float, metadata: Mapping[str, str]) -> None:
    """Write the adapter (names as training/adapter.py gives them) as a LoRA file, and check it by reading it back.

    Raises StorageError when it cannot be written or does not read back as it was written.
    """
    import torch

    tensors = {
        official_key(name): (tensor.detach().float().cpu() * (alpha / rank if ".lora_B." in name else 1.0)).to(torch.bfloat16).contiguous()
        for name, tensor in adapter.items()
    }
    write_tensors(path, tensors, metadata={**metadata, "rank": str(rank), "alpha": str(rank), "trained_alpha": f"{alpha:g}"})
    written = read_tensors(path)
    if written is None or written.keys() != tensors.keys() or any(not torch.equal(written[key], tensors[key]) for key in tensors):
        raise StorageError(f"{path} does not read back as it was written.", fix="Check the disk, then export again: checkpoints are kept.")


def official_key(name: str) -> str:
    """`transformer_blocks.0.attn1.to_q.lora_A.weight` -> `diffusion_model.transformer_blocks.0.attn1.to_q.lora_A.weight`."""
    return to_official(name, "transformer").removeprefix("model.")


def lora_info(path: Path) -> LoraInfo:
    """What a LoRA file says of itself. Raises CheckpointError for a file that is no LoRA in the official layout."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            metadata = dict(file.metadata() or {})
            views = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
            shapes = {key: (tuple(view.get_shape()), str(view.get_dtype())) for key, view in views.items()}
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} does not exist.", fix="Check the path; a run's file is runs/<name>/lora/<name>.safetensors."
        ) from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file.", fix="Export it again from its run.") from error
    lowered = {key: value for key, value in shapes.items() if key.endswith(".lora_A.weight")}
    if not lowered:
        raise CheckpointError(f"{path} holds no LoRA: no key ends with .lora_A.weight.", fix="Give a LoRA file, not a model.")
    ranks = {shape[0] for shape, _ in lowered.values()}
    modules = [key.removeprefix(_PREFIX).removesuffix(".lora_A.weight") for key in lowered]
    return LoraInfo(
        path=str(path),
        file_bytes=path.stat().st_size,
        tensors=len(shapes),
        rank=max(ranks),
        dtype=next(iter(lowered.values()))[1],
        targets=tuple(sorted({re.sub(r"^transformer_blocks\.\d+\.", "", module) for module in modules})),
        has_audio=any("audio" in module for module in modules),
        metadata=metadata,
    )


def training_metadata(
    *, base_model: str, base_version: str, targets: list[str], buckets: list[str], rates: list[float], trigger: str, steps: int, seed: int
) -> dict[str, str]:
    """The header of an exported file: what it was trained on and how to use it."""
    from importlib.metadata import version

    return {
        "base_model": base_model,
        "base_model_version": base_version,
        "targets": json.dumps(targets),
        "buckets": json.dumps(buckets),
        "frame_rate": ", ".join(f"{rate:g}" for rate in rates),
        "trigger": trigger,
        "steps": str(steps),
        "seed": str(seed),
        "software": f"ltx2tui {version('ltx2tui')}",
    }
