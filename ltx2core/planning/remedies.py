"""The one change of a config that would make it fit, the one that costs least first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ltx2core.planning.clips import TEMPORAL, ClipShape
from ltx2core.planning.job import CROSS, Job
from ltx2core.planning.method_costs import EIGHT_BIT_MOMENTS_BYTES, MOMENTS_BYTES
from ltx2core.planning.predict import predict_job
from ltx2core.planning.step_memory import GIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ltx2core.planning.hardware import Hardware

_SIDE = 32
_LEAST_SIDE, _LEAST_FRAMES, _LEAST_RANK = 256, 9, 4


def remedy(job: Job, hardware: Hardware) -> str:
    """A sentence: what to set, or how much memory it would take instead."""
    for words, changed in _changes(job, hardware):
        if predict_job(changed, hardware).fits:
            return f"{words}: then it fits."
    return _memory_instead(job, hardware)


def _changes(job: Job, hardware: Hardware) -> Iterator[tuple[str, Job]]:
    wish, levers, sample = job.wish, job.levers, job.sample
    if hardware.cards is not None and job.processes > hardware.cards:
        yield f"Set num_processes to {hardware.cards}", replace(job, processes=hardware.cards)
    if not job.text.int8:
        yield 'Set text_encoder_1_precision to "int8-torchao"', replace(job, text=replace(job.text, int8=True))
    if not levers.temporal_roll:
        yield "Set vae_enable_temporal_roll to true", replace(job, levers=replace(levers, temporal_roll=True))
    if not levers.patch_conv:
        yield "Set vae_enable_patch_conv to true", replace(job, levers=replace(levers, patch_conv=True))
    if wish.keep_all:
        yield "Set gradient_checkpointing to true", replace(job, wish=replace(wish, keep_all=False))
    if wish.streamed is not None or wish.slots is not None:
        text = "Leave out musubi_blocks_to_swap, ramtorch and enable_group_offload, so that as many blocks travel as need to"
        yield text, replace(job, wish=replace(wish, streamed=None, slots=None))
    if job.limit_bytes is not None:
        yield "Leave out gpu_memory_limit_gib", replace(job, limit_bytes=None)
    if wish.storage == "bf16":
        text = 'Set base_model_precision to "int8-torchao", which halves the weights'
        yield text, replace(job, wish=replace(wish, storage="int8", precision="dequant"))
    if job.state_bytes - MOMENTS_BYTES in (0.0, 4.0):  # with a running average beside it or without
        text = 'Set optimizer to "adamw_8bit", which holds its state in 8 bits'
        yield text, replace(job, state_bytes=job.state_bytes - MOMENTS_BYTES + EIGHT_BIT_MOMENTS_BYTES)
    if job.encoded_together > 1:
        yield "Set vae_batch_size to 1", replace(job, encoded_together=1)
    if job.batch > 1:
        text = f"Set train_batch_size to 1 and gradient_accumulation_steps to {job.batch * job.accumulation}"
        yield text, replace(job, batch=1, accumulation=job.batch * job.accumulation)
    if sample is not None:
        for clip in _smaller(sample.clip):
            text = f"Set validation_resolution to {clip.height}x{clip.width} and validation_num_video_frames to {clip.frames}"
            yield text, replace(job, sample=sample.with_clip(clip))
    if job.processes > 1:
        yield "Set num_processes to 1", replace(job, processes=1)
    if not job.disk:
        yield "Name a folder on a fast disk in group_offload_to_disk_path", replace(job, disk=True)
    if wish.storage in ("int8", "fp8"):
        text = 'Set base_model_precision to "nf4-bnb", which nearly halves the weights again, at some cost in quality'
        yield text, replace(job, wish=replace(wish, storage="nf4", precision="dequant"))
    for frames in _fewer(job.clip.frames):
        yield f"Set video.num_frames to {frames}", replace(job, clip=replace(job.clip, frames=frames))
    for clip in _lower(job.clip):
        text = f"Set resolution to {min(clip.width, clip.height)} ({clip.width}x{clip.height})"
        yield text, replace(job, clip=clip)
    for rank in _halves(job.rank):
        yield f"Set lora_rank to {rank}", replace(job, rank=rank)
    if job.audio:
        yield (
            "Leave out audio, so that pictures alone are trained",
            replace(job, audio=False, targets=tuple(name for name in job.targets if not CROSS.match(name))),
        )


def _memory_instead(job: Job, hardware: Hardware) -> str:
    """How much memory it would take; all of these at once may do, too, which `recommend` finds."""
    card, free = hardware, hardware.free_bytes
    for gib in (6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 141, 180, 288):
        if gib * GIB > free:
            card = replace(hardware, free_bytes=gib * GIB)
            if predict_job(job, card).fits:
                return f"No single change makes it fit; {gib} GiB of free GPU memory would."
    for gib in (16, 32, 48, 64, 96, 128, 192, 256, 512):
        if gib * GIB > hardware.ram_bytes and predict_job(job, replace(hardware, ram_bytes=gib * GIB)).fits:
            return f"No single change makes it fit; {gib} GiB of free RAM would."
    return "No single change makes it fit: begin with fewer frames, a lower resolution and 8-bit weights together."


def _fewer(frames: int) -> Iterator[int]:
    """Lengths of 8k + 1 frames below this one, the longest first."""
    yield from range(frames - TEMPORAL, _LEAST_FRAMES - 1, -TEMPORAL)


def _lower(clip: ClipShape) -> Iterator[ClipShape]:
    """The clip at lower resolutions, the largest first."""
    short, long = sorted((clip.width, clip.height))
    for side in range(short - _SIDE, _LEAST_SIDE - 1, -_SIDE):
        other = max(_SIDE, round(side * long / short / _SIDE) * _SIDE)
        width, height = (other, side) if clip.width >= clip.height else (side, other)
        yield replace(clip, width=width, height=height)


def _smaller(clip: ClipShape) -> Iterator[ClipShape]:
    """Samples of less: shorter, then lower, too."""
    for frames in (121, 97, 73, 49, 25, 9):
        if frames < clip.frames:
            yield replace(clip, frames=frames)
    for lower in _lower(clip):
        yield replace(lower, frames=min(clip.frames, 25))


def _halves(rank: int) -> Iterator[int]:
    while (rank := rank // 2) >= _LEAST_RANK:
        yield rank
