"""The loss on clips that are never trained on, at fixed noise levels with fixed noise: a curve that tells learning from memorising.

Forward only. Every measurement of every run sees the same noise for a clip, so two numbers differ by the LoRA alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import torch

from ltx2core.distributed.ranks import ALONE, Ranks
from ltx2core.runs.events import HeldOutMeasured
from ltx2core.runs.files import write_json
from ltx2core.training.batches import generator_for
from ltx2core.training.step import losses_at
from ltx2core.validation.paired import paired_change

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ltx2core.caching.passes import CachedClip
    from ltx2core.runs.folder import RunFolder
    from ltx2core.training.data import Reader
    from ltx2core.training.step import Model

ClipLosses = Mapping[str, Mapping[str, float]]
"""Of "loss", "video" and "audio", the mean over noise levels of each clip that has any, by what identifies the clip."""

MEASURE = "measure the held-out loss"  # what rank 0 says to the others
SIGMAS = (0.1, 0.3, 0.5, 0.7, 0.9)
MOST_CLIPS = 8  # 40 forwards, the time of about 13 steps
MANY_CLIPS = 32  # of eval datasets: as many forwards as 50 steps
FEWEST_CLIPS = 4  # a dataset smaller than this cannot spare one


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutLoss:
    """Means over clips and noise levels. video or audio is None when no clip has any. clips: the same of each clip, as they are paired."""

    loss: float
    video: float | None
    audio: float | None
    clips: ClipLosses


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Clips to train on, clips to measure on, and clips of training datasets that are left out since an eval dataset has them too."""

    trained: tuple[CachedClip, ...]
    measured: tuple[CachedClip, ...]
    also_trained: tuple[CachedClip, ...] = ()


def split_clips(clips: Sequence[CachedClip], *, share: float, before: frozenset[str] | None = None) -> Parts:
    """The clips of eval datasets, and a share of the others, apart from those to train on.

    Of a clip that is split in stretches the first is measured. What is measured is never trained on, wherever its copies lie.
    share, before: as `split_held_out` has them.
    """
    evals = [clip for clip in clips if clip.sample.treatment.measured]
    own = {clip.source for clip in evals}
    rest = [clip for clip in clips if not clip.sample.treatment.measured]
    also, rest = [clip for clip in rest if clip.source in own], [clip for clip in rest if clip.source not in own]
    trained, held_out = split_held_out(rest, share=share, before=before)
    return Parts(trained=tuple(trained), measured=tuple(_first_stretches([*evals, *held_out])), also_trained=tuple(also))


def split_held_out(
    clips: Sequence[CachedClip], *, share: float, before: frozenset[str] | None = None
) -> tuple[list[CachedClip], list[CachedClip]]:
    """The clips to train on and those to measure on, chosen by content: renaming a clip moves none, adding one moves at most one other.

    Copies of one file stay on one side. None are held out when share is 0 or there are too few clips; regularisation data never is.
    before: the sources that this run has held out so far, which stay the ones, so that no measured clip was ever trained on.
    """
    kept = {clip.source for clip in clips if clip.sample.treatment.regularisation}
    free = {clip.source for clip in clips} - kept
    sources = sorted(free, key=lambda source: hashlib.sha256(f"held out {source}".encode()).digest())
    count = min(MOST_CLIPS, max(1, round(share * len(sources)))) if share > 0 and len(sources) >= FEWEST_CLIPS else 0
    chosen = set(sources[:count]) if before is None else before
    return [clip for clip in clips if clip.source not in chosen], [clip for clip in clips if clip.source in chosen]


def _first_stretches(clips: Sequence[CachedClip]) -> list[CachedClip]:
    """One clip of each file that is split."""
    first: dict[tuple[str, Path, str], CachedClip] = {}
    for clip in clips:
        key = (clip.source, clip.sample.clip.path, clip.sample.treatment.dataset)
        if key not in first or clip.sample.start < first[key].sample.start:
            first[key] = clip
    return list(first.values())


def keep_held_out(folder: RunFolder, clips: Sequence[CachedClip]) -> None:
    """Write down which clips this run holds out. Raises StorageError."""
    write_json(folder.held_out, {"sources": sorted({clip.source for clip in clips})})


def read_held_out(folder: RunFolder) -> frozenset[str] | None:
    """The sources of the clips that this run has held out; None when it has not said so."""
    try:
        return frozenset(str(source) for source in json.loads(folder.held_out.read_text(encoding="utf-8"))["sources"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def measure_held_out(
    model: Model,
    reader: Reader,
    clips: Sequence[CachedClip],
    *,
    audio_weight: float,
    make_room: Callable[[], None],
    should_stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
) -> HeldOutLoss | None:
    """The held-out loss of the model as it is now; None when it was interrupted.

    make_room: gives back memory that only steps need. It is called where there is too little, for what captured steps hold is not free
    for anything else; capturing them again takes seconds. Raises OutOfMemoryError where that was not enough.
    ranks: which share the clips. Rank 0 tells the others to do this, too, by MEASURE; all get the same back.
    """
    if ranks.owner:
        ranks.told(MEASURE)
    names = list(dict.fromkeys(_identity(clip) for clip in clips))
    mine = set(names[ranks.rank :: ranks.size])
    of_mine = [clip for clip in clips if _identity(clip) in mine]
    own, fits = None, False
    with contextlib.suppress(torch.OutOfMemoryError):
        own = _losses_of_clips(model, reader, of_mine, audio_weight, should_stop)
        fits = True
    if not fits:  # outside of the handler, whose traceback would keep tensors alive
        make_room()
        own = _losses_of_clips(model, reader, of_mine, audio_weight, should_stop)
    said: list[ClipLosses | None] = [json.loads(each) for each in ranks.meet(json.dumps(own))]
    losses_of: dict[str, dict[str, float]] = {"loss": {}, "video": {}, "audio": {}}
    for found in said:
        if found is None:
            return None
        for part, of_clips in found.items():
            losses_of[part] |= of_clips
    means = {part: fmean(of_clips.values()) for part, of_clips in losses_of.items() if of_clips}
    return HeldOutLoss(loss=means["loss"], video=means.get("video"), audio=means.get("audio"), clips=losses_of)


def _losses_of_clips(
    model: Model, reader: Reader, clips: Sequence[CachedClip], audio_weight: float, should_stop: Callable[[], bool]
) -> ClipLosses | None:
    found: dict[str, dict[str, list[torch.Tensor]]] = {"loss": {}, "video": {}, "audio": {}}
    with model.evaluating():
        for clip in clips:
            batch = reader.batch([clip])
            for sigma in SIGMAS:
                if should_stop():
                    return None
                generator = generator_for(0, "held out", clip.source, sigma)
                losses = losses_at(model, batch, sigma=sigma, generator=generator, audio_weight=audio_weight)
                for part, loss in (("loss", losses.total), ("video", losses.video), ("audio", losses.audio)):
                    if loss is not None:
                        found[part].setdefault(_identity(clip), []).append(loss)
    return {part: {name: _mean(losses) for name, losses in of_clips.items()} for part, of_clips in found.items()}


def held_out_event(step: int, found: HeldOutLoss, base: ClipLosses, *, is_best: bool) -> HeldOutMeasured:
    """What the journal is told of a measurement: each part's mean, the base model's, and how sure the change between them is."""
    changes = {part: paired_change(found.clips.get(part, {}), base.get(part, {})) if step else None for part in ("loss", "video", "audio")}
    bands = {part: None if change is None else change.band for part, change in changes.items()}
    means = {part: fmean(losses.values()) if (losses := base.get(part)) else None for part in changes}
    return HeldOutMeasured(
        step=step,
        loss=found.loss,
        video_loss=found.video,
        audio_loss=found.audio,
        base_loss=means["loss"],
        base_video_loss=means["video"],
        base_audio_loss=means["audio"],
        loss_band=bands["loss"],
        video_band=bands["video"],
        audio_band=bands["audio"],
        clips=len(found.clips["loss"]),
        best=is_best,
    )


def keep_base(folder: RunFolder, losses: ClipLosses) -> None:
    """Write down what each clip's loss is before training: what later measurements of this run are compared with. Raises StorageError."""
    write_json(folder.held_out_base, losses)


def read_base(folder: RunFolder) -> ClipLosses:
    """What `keep_base` wrote; nothing where it has not been called."""
    try:
        kept = json.loads(folder.held_out_base.read_text(encoding="utf-8"))
        return {part: {str(name): float(loss) for name, loss in kept[part].items()} for part in ("loss", "video", "audio")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _identity(clip: CachedClip) -> str:
    return f"{clip.source} {clip.sample.bucket.label}"


def _mean(values: Sequence[torch.Tensor]) -> float:
    return float(torch.stack(list(values)).double().mean())
