"""The training loss by noise level, smoothed: what LossByLevel events add up to. Draws nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ltx2core.runs.events import LEVEL_BANDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ltx2core.runs.events import LossByLevel

FORGETTING = 0.94  # a sample's weight halves with every 11 that come after it in its band


@dataclass(frozen=True, slots=True)
class Band:
    """A running mean of the losses in one band, sample by sample, with the bias of its start taken out."""

    total: float = 0.0
    weight: float = 0.0

    def with_samples(self, mean: float | None, count: int) -> Band:
        if mean is None or not count:
            return self
        kept = FORGETTING**count
        new = (1 - kept) / (1 - FORGETTING)  # what so many samples weigh together
        return Band(self.total * kept + mean * new, self.weight * kept + new)

    @property
    def mean(self) -> float:
        """NaN before the first sample."""
        return self.total / self.weight if self.weight else math.nan


@dataclass(frozen=True, slots=True)
class LevelPoint:
    """The smoothed losses of all bands after `step` steps."""

    step: int
    video: tuple[Band, ...]
    audio: tuple[Band, ...]


_NOTHING = LevelPoint(0, (Band(),) * LEVEL_BANDS, (Band(),) * LEVEL_BANDS)


@dataclass(frozen=True, slots=True)
class LevelCurves:
    """Points in the order of their steps."""

    points: tuple[LevelPoint, ...] = field(default=())

    def with_event(self, event: LossByLevel) -> LevelCurves:
        last = self.points[-1] if self.points else _NOTHING
        video, audio = (
            tuple(band.with_samples(mean, count) for band, mean, count in zip(bands, means, counts, strict=False))
            for bands, means, counts in ((last.video, event.video, event.video_counts), (last.audio, event.audio, event.audio_counts))
        )
        return LevelCurves((*self.points, LevelPoint(event.step, video, audio)))

    def up_to(self, step: int) -> LevelCurves:
        """What a session that goes on after `step` steps has behind it."""
        return LevelCurves(tuple(point for point in self.points if point.step <= step))

    def means(self, modality: str, band: int) -> Sequence[float]:
        """One band's smoothed loss at every point; NaN before its first sample."""
        return [getattr(point, modality)[band].mean for point in self.points]

    def has(self, modality: str) -> bool:
        """Whether any sample of this modality was told."""
        return bool(self.points) and any(band.weight for band in getattr(self.points[-1], modality))
