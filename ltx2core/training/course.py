"""What a run trains on and with: the same in every process of it, which makes it from the config, the cache and the run's folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.caching.fingerprint import fingerprint
from ltx2core.distributed.ranks import ALONE, Ranks
from ltx2core.errors import DatasetError
from ltx2core.planning.before_run import largest_batch
from ltx2core.runs.events import Notice
from ltx2core.training.data import Reader
from ltx2core.training.order import order_of
from ltx2core.training.rounded_weights import RoundedStore
from ltx2core.training.settings import train_settings
from ltx2core.training.trainee import build_trainee
from ltx2core.validation.held_out import MANY_CLIPS, SIGMAS, read_held_out, split_clips

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ltx2core.caching.passes import Cached, CachedClip
    from ltx2core.config.train import TrainConfig
    from ltx2core.runs.events import Event
    from ltx2core.runs.folder import RunFolder
    from ltx2core.training.batches import Order
    from ltx2core.training.prepare import Prepared
    from ltx2core.training.trainee import Trainee


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """clips: those that are trained on, by their numbers in the order. tokens: of pictures in a clip of the largest batch, its reference
    counted; batch_size: how many clips that has, None where there are no pictures."""

    reader: Reader
    clips: list[CachedClip]
    held_out: list[CachedClip]
    order: Order
    total_steps: int
    tokens: int
    batch_size: int | None
    data: str  # a fingerprint of clips, captions and batches


def course_of(
    config: TrainConfig, prepared: Prepared, cached: Cached, *, folder: RunFolder, resume: bool, emit: Callable[[Event], None]
) -> Course:
    """What is trained on, batch by batch. Raises DatasetError when there is nothing, or a step without data."""
    reader = Reader(prepared.store, cached, prepared.device)
    clips, held_out = _split(config, cached, folder=folder, resume=resume, emit=emit)
    order = order_of(config, reader, clips, emit=emit)
    in_a_step = config.gradient_accumulation_steps * config.num_processes
    total_steps = config.max_train_steps or -(-order.batches_in(config.num_train_epochs) // in_a_step)
    order.batch(total_steps * in_a_step - 1)  # now, not in the night: is there data at every step?
    largest = largest_batch((clip.sample for clip in clips), config)
    batches = f"{config.train_batch_size} {in_a_step}"
    if config.max_tokens_per_batch:
        batches += f" {config.max_tokens_per_batch} tokens"
    return Course(
        reader=reader,
        clips=clips,
        held_out=held_out,
        order=order,
        total_steps=total_steps,
        tokens=1 if largest is None else largest.clip_tokens,
        batch_size=None if largest is None else largest.count,
        data=fingerprint({"clips": " ".join(_trained_on(clip) for clip in clips), "batches": batches}),
    )


def trainee_of(
    config: TrainConfig, prepared: Prepared, course: Course, *, root: Path, emit: Callable[[Event], None], ranks: Ranks = ALONE
) -> Trainee:
    """The model with its adapter, as this process trains it. Raises as `build_trainee` does."""
    return build_trainee(
        prepared.checkpoint,
        train_settings(
            config,
            tokens=course.tokens,
            batch_size=course.batch_size,
            total_steps=course.total_steps,
            features=prepared.passes.features,
            rungs=root / "cache" / "memory.json",
        ),
        video=prepared.video,
        audio=prepared.audio,
        device=prepared.device,
        dtype=prepared.dtype,
        emit=emit,
        kept=RoundedStore(folder=root / "cache" / "weights", emit=emit) if config.keep_rounded_weights else None,
        ranks=ranks,
    )


def _split(
    config: TrainConfig, cached: Cached, *, folder: RunFolder, resume: bool, emit: Callable[[Event], None]
) -> tuple[list[CachedClip], list[CachedClip]]:
    """The clips to train on and those that the held-out loss is measured on: of a resumed run, what it has measured so far. A dataset
    that grew gives no clip that was trained on to the measuring."""
    share = config.eval_split if config.eval_steps_interval else 0.0
    before = read_held_out(folder) if resume and share else None
    parts = split_clips(cached.clips, share=share, before=before)
    if before and (gone := before - {clip.source for clip in parts.measured}):
        text = f"{len(gone)} of {len(before)} clips that the held-out loss was measured on are gone or changed: the curve has a step."
        fix = "Put them back, or train under another name for a fair comparison."
        emit(Notice(code="held_out_changed", level="warning", text=text, fix=fix))
    if parts.also_trained:
        names = ", ".join(dict.fromkeys(clip.sample.clip.path.name for clip in parts.also_trained))
        text = f"Not trained on, as an eval dataset holds the same files: {names}."
        emit(Notice(code="eval_not_trained", level="warning", text=text, fix="Take them out of one of the two."))
    if parts.measured and config.eval_steps_interval:
        names = ", ".join(clip.sample.name for clip in parts.measured)
        emit(Notice(code="held_out", text=f"Kept out of training, to measure the held-out loss on: {names}."))
        if len(parts.measured) > MANY_CLIPS:
            text = f"The held-out loss is measured on {len(parts.measured)} clips, {len(SIGMAS)} forward passes each."
            fix = "Set max_num_samples of the eval dataset, or a larger eval_steps_interval, if that takes too long."
            emit(Notice(code="large_eval", level="warning", text=text, fix=fix))
    elif share:
        text = f"{len(parts.trained)} clips are too few to hold one out, so the held-out loss is not measured."
        emit(Notice(code="no_held_out", text=text))
    if not parts.trained:
        raise DatasetError("No clip is left to train on.", fix="Give the eval dataset other clips than the others.")
    return list(parts.trained), list(parts.measured)


def _trained_on(clip: CachedClip) -> str:
    """What a clip gives to training, by the names of its entries."""
    linked = "".join(f" {name}" for name in (clip.mask, clip.reference) if name)
    return f"{clip.video} {clip.audio} {' '.join(clip.captions)} {clip.sample.repeats}{linked}"
