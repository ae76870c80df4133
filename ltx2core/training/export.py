"""What a run leaves: its LoRA file, its average's beside it, and a header that says what they are and how to use them. Loads torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ltx2core.caching.fingerprint import fingerprint
from ltx2core.lora.layers import kind_of, modality_of
from ltx2core.lora.write import pairs_of, write_lora
from ltx2core.training.export_other import other_tensors, write_other

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from ltx2core.caching.passes import CachedClip, References
    from ltx2core.data.clip import Sample
    from ltx2core.lora.write import Written
    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.training.adapter import AdapterSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """How the file is written. The file's B holds the scale that a layer of the adapter has in training."""

    adapter: AdapterSettings
    layout: Written = "official"
    dtype: torch.dtype = torch.bfloat16


def export_lora(
    path: Path,
    adapter: Mapping[str, Tensor],
    settings: ExportSettings,
    *,
    metadata: Mapping[str, str],
    transformer: nn.Module | None = None,
) -> None:
    """Write the adapter (names as training/adapter.py gives them) as a LoRA file, read it back, and compare the two.

    transformer: with the adapter on it, which the file of a DoRA needs. Raises as write_lora does: the file on disk is the adapter, or
    there is an error.
    """
    if settings.adapter.dora or settings.adapter.lokr is not None:
        if transformer is None:
            raise ValueError("expected the transformer with a DoRA or LoKr")
        tensors = other_tensors(adapter, settings.adapter, transformer, layout=settings.layout)
        write_other(path, tensors, dtype=settings.dtype, metadata=metadata)
        return
    write_lora(
        path,
        pairs_of(adapter, scale=lambda layer: settings.adapter.shape_of(layer).scale),
        layout=settings.layout,
        dtype=settings.dtype,
        metadata={**metadata, "trained_alpha": f"{settings.adapter.alpha:g}"},
    )


def average_path(path: Path) -> Path:
    """Where the average of the LoRA in `path` is written."""
    return path.with_name(f"{path.stem}-ema{path.suffix}")


def training_metadata(
    *,
    checkpoint: Checkpoint,
    layers: Sequence[str],
    clips: Sequence[CachedClip],
    trigger: str,
    steps: int,
    seed: int,
    init: str = "",
    references: References | None = None,
) -> dict[str, str]:
    """The header of an exported file. init: the LoRA that the run began with, and its fingerprint; empty for none.

    references: how reference clips were seen, which whoever draws with the LoRA must know; None where there were none.
    """
    modalities = {modality_of(layer) for layer in layers}
    metadata = {
        "base_model": checkpoint.path.name,
        "base_model_version": checkpoint.version,
        "base_model_hash": checkpoint.fingerprint("transformer"),
        "trained": "video and audio" if len(modalities) > 1 else next(iter(modalities), ""),
        "targets": json.dumps(sorted({kind_of(layer) for layer in layers})),
        "buckets": json.dumps(sorted({clip.sample.bucket.label for clip in clips})),
        **_pictures([clip.sample for clip in clips]),
        "trigger": trigger,
        "steps": str(steps),
        "seed": str(seed),
        "clips": str(len(clips)),
        "dataset": _dataset_fingerprint(clips),
        "software": f"ltx2tui {_version()}",
    }
    if init:
        metadata["init_lora"] = init
    if references is not None:  # the official names
        metadata |= {
            "reference_downscale_factor": str(references.smaller),
            "reference_temporal_scale_factor": str(references.slower),
        }
    return metadata


def _pictures(samples: Sequence[Sample]) -> dict[str, str]:
    """What the header says of the pictures that were trained on; nothing where there were none."""
    seen = [(sample.picture, sample.fps) for sample in samples if sample.picture is not None]
    if not seen:
        return {}
    return {
        "resolutions": json.dumps(sorted({f"{bucket.width}x{bucket.height}" for bucket, _ in seen})),
        "frames": json.dumps(sorted({bucket.frames for bucket, _ in seen})),
        "frame_rate": ", ".join(f"{rate:g}" for rate in sorted({fps for _, fps in seen})),
    }


def _dataset_fingerprint(clips: Sequence[CachedClip]) -> str:
    """Changes with the bytes of a clip, its captions, its bucket and how often it is shown; not with names or places of files."""
    parts = sorted(
        f"{clip.source} {clip.sample.bucket.label} {clip.sample.repeats} {' '.join(clip.sample.captions)}"
        + (f" {clip.sample.start:.3f}" if clip.sample.start else "")
        for clip in clips
    )
    return fingerprint({"clips": "\n".join(parts)})


def _version() -> str:
    """The installed program's version; a checkout that is run without being installed has none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ltx2tui")
    except PackageNotFoundError:
        return "from source"
