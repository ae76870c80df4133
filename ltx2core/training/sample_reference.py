"""The reference that samples of an IC-LoRA are drawn beside: a clip's own, in the size of the samples. Loads torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ltx2core.caching.fingerprint import Digests
from ltx2core.data.clip import Bucket
from ltx2core.data.linked import decode_linked
from ltx2core.errors import DatasetError
from ltx2core.hardware.free_memory import free_memory
from ltx2core.models.components import load_video_vae
from ltx2core.models.latents import encode_video, latent_grid, pack_video
from ltx2core.runs.events import Notice
from ltx2core.training.objective import to_device
from ltx2core.training.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from ltx2core.caching.passes import CachedClip, CachePass
    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.models.vae_levers import VaeLevers
    from ltx2core.validation.media import SampleSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleReference:
    """A reference as tokens on the device for each size of the samples, (width, height), and the caption of its clip, if it has one."""

    references: dict[tuple[int, int], Reference]
    caption: str | None


def sample_reference(
    passes: CachePass, clips: Sequence[CachedClip], settings: SampleSettings, *, sizes: Sequence[tuple[int, int]], named: Path | None = None
) -> SampleReference | None:
    """The named file, or the first clip's reference that lasts as long as the samples; None, with a Notice if there are some, when
    none does.

    It is encoded at each size (width, height) and the samples' rate, and kept in the cache like any clip. Raises DatasetError when the
    named one cannot be used, StorageError when the cache cannot be written.
    """
    if not settings.video:
        return None
    if named is not None:
        return SampleReference(references=_at_sizes(passes, named, settings, sizes), caption=None)
    having = [clip.sample for clip in clips if clip.reference is not None]
    reason = ""
    for sample in having:
        assert sample.reference is not None
        try:
            references = _at_sizes(passes, sample.reference, settings, sizes)
        except DatasetError as error:
            reason = reason or error.text
            continue
        passes.emit(Notice(code="sample_reference", text=f"Samples are drawn beside the reference {sample.reference.name}."))
        return SampleReference(references=references, caption=sample.captions[0])
    if having:
        text = f"Samples are drawn without a reference: not one of {len(having)} lasts as long as they do. {reason}"
        passes.emit(Notice(code="samples_without_reference", level="warning", text=text, fix="Lower validation_num_video_frames."))
    return None


def _at_sizes(
    passes: CachePass, path: Path, settings: SampleSettings, sizes: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], Reference]:
    found = {}
    for width, height in dict.fromkeys(sizes):
        seen = passes.references.bucket(Bucket(width=width, height=height, frames=settings.frames))
        latents = _latents(passes, path, bucket=seen, fps=passes.references.fps(settings.fps))
        tokens = pack_video(to_device(latents[None], passes.device).float())
        grid = latent_grid(width=seen.width, height=seen.height, frames=seen.frames)
        found[width, height] = Reference(tokens=tokens, grid=grid, seen=passes.references)
    return found


def _latents(passes: CachePass, path: Path, *, bucket: Bucket, fps: float) -> Tensor:
    """The latents of a reference [C, f, h, w], from the cache if they are there."""
    digests = Digests(passes.store.root / "digests.json")
    try:
        source = digests.of(path)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from error
    name = passes.video_name(source, passes.video_encoder(), bucket=bucket, fps=fps)
    if (kept := passes.store.load("video", name)) is not None:
        return kept["latents"]
    latents = encode_reference(
        passes.checkpoint, path, bucket=bucket, fps=fps, device=passes.device, dtype=passes.dtype, levers=passes.levers
    )[0].to(torch.bfloat16)
    passes.store.save("video", name, {"latents": latents}, source=path.name)
    return latents


def encode_reference(
    checkpoint: Checkpoint, path: Path, *, bucket: Bucket, fps: float, device: torch.device, dtype: torch.dtype, levers: VaeLevers
) -> Tensor:
    """The normalised latents of a clip or picture as a reference [1, C, f, h, w]. Raises DatasetError for one that is too short."""
    frames = decode_linked(path, bucket=bucket, fps=fps)
    vae = load_video_vae(checkpoint, dtype=dtype, device=device, half="encoder")
    latents = encode_video(vae, torch.from_numpy(frames).permute(3, 0, 1, 2)[None], levers=levers)
    del vae
    free_memory(device)
    return latents
