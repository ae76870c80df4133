"""The held-out losses of a run, step by step: which is the lowest, and whether it has stopped falling. Read back from the journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.runs.events import HeldOutMeasured, RunStarted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ltx2core.runs.events import Event


@dataclass(frozen=True, slots=True)
class Point:
    """The held-out loss after `step` steps."""

    step: int
    loss: float


@dataclass(frozen=True, slots=True)
class Curve:
    """Points in the order of their steps. The base model, step 0, is none of them: it cannot be what a run has learned best."""

    points: tuple[Point, ...] = ()

    def with_point(self, step: int, loss: float) -> Curve:
        """The curve up to this step, which takes the place of what was measured at it before."""
        if step == 0:
            return self
        return Curve((*(point for point in self.points if point.step < step), Point(step, loss)))

    @property
    def from_best(self) -> tuple[Point, ...]:
        """From the lowest to the highest; of equal ones the earlier first."""
        return tuple(sorted(self.points, key=lambda point: point.loss))

    @property
    def best(self) -> Point | None:
        """The lowest, and the first of those; None before any."""
        return next(iter(self.from_best), None)

    @property
    def since_best(self) -> int:
        """How many measurements came after the lowest."""
        best = self.best
        return 0 if best is None else sum(point.step > best.step for point in self.points)

    def flat_for(self, patience: int) -> bool:
        """Whether as many measurements brought nothing lower; 0 is endless patience."""
        return 0 < patience <= self.since_best


def curve_of(events: Iterable[Event], *, until: int) -> Curve:
    """What a journal says of the run that went on after `until` steps: what came later was another future of it, and is forgotten."""
    curve = Curve()
    for event in events:
        if isinstance(event, RunStarted):
            curve = _up_to(curve, event.resumed_at_step)
        elif isinstance(event, HeldOutMeasured):
            curve = curve.with_point(event.step, event.loss)
    return _up_to(curve, until)


def _up_to(curve: Curve, step: int) -> Curve:
    return Curve(tuple(point for point in curve.points if point.step <= step))
