"""The loss on clips that are never trained on, at fixed noise levels with fixed noise: a curve that tells learning from memorising.

Forward only. Every measurement of every run sees the same noise for a clip, so two numbers differ by the LoRA alone.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ltx2core.runs.files import write_json
from ltx2core.training.batches import generator_for
from ltx2core.training.step import losses_at

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ltx2core.caching.passes import CachedClip
    from ltx2core.runs.folder import RunFolder
    from ltx2core.training.data import Reader
    from ltx2core.training.step import Model

SIGMAS = (0.1, 0.3, 0.5, 0.7, 0.9)
MOST_CLIPS = 8  # 40 forwards, the time of about 13 steps
MANY_CLIPS = 32  # of eval datasets: as many forwards as 50 steps
FEWEST_CLIPS = 4  # a dataset smaller than this cannot spare one


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutLoss:
    """Means over clips and noise levels. video or audio is None when no clip has any."""

    loss: float
    video: float | None
    audio: float | None


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
    should_stop: Callable[[], bool] = lambda: False,
) -> HeldOutLoss | None:
    """The held-out loss of the model as it is now; None when it was interrupted."""
    totals, videos, audios = [], [], []
    with model.evaluating():
        for clip in clips:
            batch = reader.batch([clip])
            for sigma in SIGMAS:
                if should_stop():
                    return None
                generator = generator_for(0, "held out", clip.source, sigma)
                losses = losses_at(model, batch, sigma=sigma, generator=generator, audio_weight=audio_weight)
                totals.append(losses.total)
                videos += [] if losses.video is None else [losses.video]
                audios += [] if losses.audio is None else [losses.audio]
    return HeldOutLoss(loss=_mean(totals), video=_mean(videos) if videos else None, audio=_mean(audios) if audios else None)


def _mean(values: Sequence[torch.Tensor]) -> float:
    return float(torch.stack(list(values)).double().mean())
