"""The passes that make what is seen: latents of clips and of their references, and the tokens that masks give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ltx2core.caching.ahead import Request
from ltx2core.caching.clips import Job, encode_clips
from ltx2core.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from ltx2core.caching.clips import Encode
    from ltx2core.caching.passes import CachedClip, CachePass
    from ltx2core.data.clip import Bucket, Crop, Sample


def encode_pictures(work: CachePass, clips: Sequence[CachedClip]) -> set[str]:
    """Encode the frames that are missing, of references too; the entries that could not be made come back."""
    references = {clip.reference: clip for clip in clips if clip.reference}
    wanted = references | {clip.video: clip for clip in clips if clip.video}
    missing = work.missing("video", wanted, phase="cache_video", unit="clips") if wanted else {}
    if not missing:
        return set()

    def load() -> Encode:
        import torch

        from ltx2core.models.components import load_video_vae
        from ltx2core.models.latents import encode_video

        vae = load_video_vae(work.checkpoint, dtype=work.dtype, device=work.device, half="encoder")

        def encode(frames: Tensor, jobs: Sequence[Job], _: object) -> list[Mapping[str, Tensor]]:
            try:
                latents = encode_video(vae, frames.permute(0, 4, 1, 2, 3), levers=work.levers).to(torch.bfloat16)
            except torch.OutOfMemoryError as error:
                raise _no_room(work, jobs) from error
            return [{"latents": latents[index]} for index in range(len(jobs))]

        return encode

    jobs = [Job(name=name, clip=clip, request=frames_of(work, name, clip)) for name, clip in missing.items()]
    return encode_clips(work, "video", jobs, load, phase="cache_video", tell=work.leave_out, batch_size=work.vae_batch)


def read_masks(work: CachePass, clips: Sequence[CachedClip]) -> set[str]:
    """Read the masks that are missing; the entries that could not be made come back."""
    wanted = {clip.mask: clip for clip in clips if clip.mask}
    missing = work.missing("mask", wanted, phase="cache_masks", unit="masks") if wanted else {}
    if not missing:
        return set()

    def load() -> Encode:
        return lambda given, jobs, _: [{"given": given[index].flatten()} for index in range(len(jobs))]

    jobs = [Job(name=name, clip=clip, request=_mask_of(clip)) for name, clip in missing.items()]
    return encode_clips(work, "mask", jobs, load, phase="cache_masks", tell=work.leave_out)


def _no_room(work: CachePass, jobs: Sequence[Job]) -> CheckpointError:
    size, clips = jobs[0].request, f"{len(jobs)} clips" if len(jobs) > 1 else "a clip"
    lower = "Lower vae_batch_size" if len(jobs) > 1 else "Use a smaller or shorter bucket"
    fix = lower if work.levers.temporal_roll else f"Set vae_enable_temporal_roll, which needs the least memory. {lower}"
    text = f"{work.device} has no room for the VAE to encode {clips} of {size.width}x{size.height}@{size.frames}."
    return CheckpointError(text, fix=f"{fix}." if work.levers.temporal_roll else f"{fix} if that is not enough.")


def frames_of(work: CachePass, name: str, clip: CachedClip) -> Request:
    sample, seen = clip.sample, clip.reference_bucket
    if name == clip.reference and sample.reference is not None and seen is not None:
        return linked_request("linked", sample, sample.reference, bucket=seen, fps=work.references.fps(sample.fps))
    return frames_request(sample)


def frames_request(sample: Sample) -> Request:
    """The frames of a sample that has pictures."""
    bucket, clip = sample.picture, sample.clip
    assert bucket is not None  # only clips with an entry for their frames get here
    return Request(
        kind="still" if clip.still else "frames",
        path=str(clip.path),
        width=bucket.width,
        height=bucket.height,
        frames=bucket.frames,
        fps=sample.fps,
        rotation=None if clip.still else clip.rotation,
        start=sample.start,
        crop=_numbers(sample.crop),
    )


def linked_request(kind: Literal["linked", "mask"], sample: Sample, path: Path, *, bucket: Bucket, fps: float) -> Request:
    """What a file shows that belongs to the sample: the same time and the same part as the sample does."""
    return Request(
        kind=kind,
        path=str(path),
        width=bucket.width,
        height=bucket.height,
        frames=bucket.frames,
        fps=fps,
        start=sample.start,
        crop=_numbers(sample.crop),
    )


def _mask_of(clip: CachedClip) -> Request:
    sample = clip.sample
    assert sample.mask is not None  # only clips with an entry for their mask get here
    assert sample.picture is not None
    return linked_request("mask", sample, sample.mask, bucket=sample.picture, fps=sample.fps)


def _numbers(crop: Crop) -> tuple[float, float, float]:
    return crop.across, crop.down, crop.zoom
