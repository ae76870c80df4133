"""The training loss by noise level. A step's loss says little: how much noise was drawn decides most of it. Within a band of levels steps
compare, so that each band's mean falls as the LoRA learns it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ltx2core.runs.events import LEVEL_BANDS, LossByLevel

if TYPE_CHECKING:
    from collections.abc import Iterable

Modality = Literal["video", "audio"]
EVERY = 25  # steps of a journal line: as many samples as tell a band's mean from chance, and few lines


@dataclass(slots=True)
class _Sums:
    totals: list[float] = field(default_factory=lambda: [0.0] * LEVEL_BANDS)
    counts: list[int] = field(default_factory=lambda: [0] * LEVEL_BANDS)

    def means(self) -> tuple[float | None, ...]:
        pairs = zip(self.totals, self.counts, strict=True)
        return tuple(round(total / count, 5) if count else None for total, count in pairs)


class LevelLosses:
    """Gathers samples until `take`."""

    def __init__(self) -> None:
        self._sums: dict[Modality, _Sums] = {"video": _Sums(), "audio": _Sums()}
        self._steps = 0

    def add(self, modality: Modality, samples: Iterable[tuple[float, float]]) -> None:
        """Samples of a step, as (noise level, loss); a loss that is not finite is left out."""
        sums = self._sums[modality]
        for sigma, loss in samples:
            if math.isfinite(loss):
                band = band_of(sigma)
                sums.totals[band] += loss
                sums.counts[band] += 1

    def step_done(self) -> bool:
        """Whether enough steps have been gathered."""
        self._steps += 1
        return self._steps >= EVERY

    def take(self, step: int) -> LossByLevel | None:
        """What was gathered up to this step, and begin anew; None when there is nothing."""
        video, audio = self._sums["video"], self._sums["audio"]
        self._sums, self._steps = {"video": _Sums(), "audio": _Sums()}, 0
        if not any(video.counts) and not any(audio.counts):
            return None
        return LossByLevel(
            step=step, video=video.means(), video_counts=tuple(video.counts), audio=audio.means(), audio_counts=tuple(audio.counts)
        )


def band_of(sigma: float) -> int:
    """The band of a noise level from 0 to 1; a level between two belongs to the upper one."""
    return min(LEVEL_BANDS - 1, max(0, int(sigma * LEVEL_BANDS)))
