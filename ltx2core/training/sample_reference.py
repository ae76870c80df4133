"""The reference that samples of an IC-LoRA are drawn beside: a clip's own, in the size of the samples. Loads torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ltx2core.caching.fingerprint import Digests
from ltx2core.caching.passes import free_memory
from ltx2core.data.clip import Bucket
from ltx2core.data.linked import decode_linked
from ltx2core.errors import DatasetError
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
    from ltx2core.validation.media import SampleSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleReference:
    """A reference as tokens on the device, and the caption of the clip that it belongs to."""

    reference: Reference
    caption: str


def sample_reference(passes: CachePass, clips: Sequence[CachedClip], settings: SampleSettings) -> SampleReference | None:
    """The first clip whose reference lasts as long as the samples; None, with a Notice if there are references, when none does.

    It is encoded at the samples' size and rate, and kept in the cache like any clip. Raises StorageError when it cannot be written.
    """
    having = [clip.sample for clip in clips if clip.reference is not None]
    if not having or not settings.video:
        return None
    seen = passes.references.bucket(Bucket(width=settings.width, height=settings.height, frames=settings.frames))
    reason = ""
    for sample in having:
        assert sample.reference is not None
        try:
            latents = _latents(passes, sample.reference, bucket=seen, fps=passes.references.fps(settings.fps))
        except DatasetError as error:
            reason = reason or error.text
            continue
        passes.emit(Notice(code="sample_reference", text=f"Samples are drawn beside the reference {sample.reference.name}."))
        tokens = pack_video(to_device(latents[None], passes.device).float())
        grid = latent_grid(width=seen.width, height=seen.height, frames=seen.frames)
        return SampleReference(reference=Reference(tokens=tokens, grid=grid, seen=passes.references), caption=sample.captions[0])
    text = f"Samples are drawn without a reference: not one of {len(having)} lasts as long as they do. {reason}"
    passes.emit(Notice(code="samples_without_reference", level="warning", text=text, fix="Lower validation_num_video_frames."))
    return None


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
    frames = decode_linked(path, bucket=bucket, fps=fps)
    vae = load_video_vae(passes.checkpoint, dtype=passes.dtype, device=passes.device, half="encoder")
    pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None]
    latents = encode_video(vae, pixels, levers=passes.levers)[0].to(torch.bfloat16)
    del vae
    free_memory(passes.device)
    passes.store.save("video", name, {"latents": latents}, source=path.name)
    return latents
