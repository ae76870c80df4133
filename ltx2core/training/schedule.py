"""The learning rate as a pure function of the step, so that a resumed, or extended, run has the rate it should have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Shape = Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial", "sine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningRate:
    """`schedule(step)` is the rate of the update that follows `step` finished ones.

    Every shape but `constant` first rises over `warmup_steps`; those that fall reach `end` at `total_steps` and stay there.
    """

    shape: Shape
    peak: float
    total_steps: int
    warmup_steps: int = 0
    end: float = 0.0
    cycles: int = 1
    power: float = 1.0

    def __call__(self, step: int) -> float:
        if self.shape == "constant":
            return self.peak
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps))
        low = min(self.end, self.peak)
        return low + (self.peak - low) * self._height(progress)

    def _height(self, progress: float) -> float:
        """1 at the peak, 0 at the end; progress 0..1 runs from the warm-up's end to the last step."""
        cycles = max(1, self.cycles)
        if self.shape == "constant_with_warmup":
            return 1.0
        if self.shape == "linear":
            return 1.0 - progress
        if self.shape == "polynomial":
            return float((1.0 - progress) ** self.power)
        if self.shape == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        within = (progress * cycles) % 1.0
        if self.shape == "cosine_with_restarts":
            return 0.0 if progress >= 1.0 else 0.5 * (1 + math.cos(math.pi * within))
        return 0.5 * (1 + math.cos(2 * math.pi * progress * cycles))  # sine: down and up again, `cycles` times
