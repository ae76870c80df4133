"""Cached latents decoded again, beside the clips that they were made of: the proof that a cache holds what it says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.caching.ahead import Ahead
from ltx2core.caching.clips import Job
from ltx2core.caching.pictures import frames_of
from ltx2core.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from ltx2core.caching.passes import CachedClip, CachePass

LEAST_DECIBELS = 15.0  # two different clips are at about 10; the VAE gives a clip back at 30 and more


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """How near a clip's latents are to it. decibels: PSNR over all frames, None when `problem` says why there is none."""

    name: str  # of the file
    bucket: str
    decibels: float | None
    problem: str = ""

    @property
    def is_good(self) -> bool:
        return self.decibels is not None and self.decibels >= LEAST_DECIBELS


def compare_clips(work: CachePass, clips: Sequence[CachedClip]) -> Iterator[Compared]:
    """Decode what the cache holds of each clip and compare; clips that are not in it are passed over. Raises Stopped when asked to."""
    seen = [clip for clip in clips if clip.video is not None and work.store.state("video", clip.video) == "whole"]
    if not seen:
        return
    from ltx2core.models.components import load_video_vae
    from ltx2core.models.latents import as_bytes, decode_video

    jobs = [Job(name=str(clip.video), clip=clip, request=frames_of(work, str(clip.video), clip)) for clip in seen]
    requests = [job.request for job in jobs]
    with Ahead(requests, processes=work.decoders, max_bytes=work.ahead_bytes, should_stop=work.should_stop) as ahead:
        vae = load_video_vae(work.checkpoint, dtype=work.dtype, device=work.device, half="decoder")
        for job, found in zip(jobs, ahead, strict=True):
            name, bucket = job.clip.sample.name, job.clip.sample.bucket.label
            entry = work.store.load("video", job.name)
            if isinstance(found, DatasetError):
                yield Compared(name=name, bucket=bucket, decibels=None, problem=found.text)
                continue
            if entry is None or found is None:
                yield Compared(name=name, bucket=bucket, decibels=None, problem="its entry is damaged.")
                continue
            shown = as_bytes(decode_video(vae, entry["latents"][None], levers=work.levers)[0]).permute(1, 2, 3, 0).cpu()
            yield Compared(name=name, bucket=bucket, decibels=decibels(shown, found.array))


def decibels(found: Tensor, expected: Tensor) -> float:
    """PSNR of frames, uint8 [F, H, W, 3]; 99 when they are equal."""
    squares = sum(float((one.float() - other.float()).square().sum()) for one, other in zip(found, expected, strict=True))
    return 99.0 if squares == 0 else min(99.0, 20 * math.log10(255) - 10 * math.log10(squares / found.numel()))
