"""What a step cost: the device's time, operations needed, and the share of what the device can do.

Nothing here waits for the device: its time is taken by events that are read once they have passed, a step late. Around a CPU, where a
call returns when the work is done, the clock does.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch

from ltx2core.planning.flops import BatchShape, count_step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ltx2core.offload.ring_timer import TimingEvent
    from ltx2core.planning.flops import ModelShape, StepFlops
    from ltx2core.training.step import Drawn
    from ltx2core.training.tread import Route


class StepMeter:
    """What the steps of a run are measured by. shape: the model's; matmul_rate: operations a second that the device reaches."""

    def __init__(self, shape: ModelShape, *, matmul_rate: float, routes: Sequence[Route] = ()) -> None:
        self._shape, self.matmul_rate, self._routes = shape, matmul_rate, tuple(routes)
        self._known: dict[BatchShape, StepFlops] = {}

    def flops(self, drawn: Drawn) -> int:
        """Operations that a batch needs, forwards and backwards, and the forwards of its rollout."""
        needed = self._count(batch_shape(drawn, self._routes)).needed
        if drawn.rollout_steps:
            needed += drawn.rollout_steps * self._count(batch_shape(replace(drawn, kept=()), ())).forward
        return needed

    def _count(self, batch: BatchShape) -> StepFlops:
        if batch not in self._known:
            self._known[batch] = count_step(self._shape, batch)
        return self._known[batch]

    def utilisation(self, flops: int, seconds: float) -> float | None:
        """The share of what the device could have computed in that time (MFU); recomputed blocks do not count."""
        return flops / (seconds * self.matmul_rate) if seconds > 0 else None


def batch_shape(drawn: Drawn, routes: Sequence[Route]) -> BatchShape:
    """What a forward over a drawn batch sees; reference tokens are seen like others."""
    batch = drawn.batch
    references = 0 if batch.reference is None else batch.reference.tokens.shape[1]
    return BatchShape(
        count=batch.count,
        video=0 if drawn.video is None else drawn.video.noisy.shape[1] + references,
        audio=0 if drawn.audio is None else drawn.audio.noisy.shape[1],
        text=batch.text.video.shape[1],
        routed=tuple((route.start, route.end, kept.shape[1]) for route, kept in zip(routes, drawn.kept, strict=False)),
    )


class StepClock:
    """The device's time for one step: the sum over what was done within `running`.

    On a card a span reaches from the moment that the device begins with what is inside to the moment that it is done with it. Gaps
    between kernels, as an eager step has them, are part of it; so is waiting for weights.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_card = device.type == "cuda"
        self._events: list[tuple[TimingEvent, TimingEvent]] = []
        self._seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        if not self._on_card:
            begin = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - begin
            return
        pair: tuple[TimingEvent, TimingEvent] = (_event(), _event())
        pair[0].record()
        yield
        pair[1].record()
        self._events.append(pair)

    def seconds(self) -> float | None:
        """The sum; None while the device is not done."""
        if self._events and not self._events[-1][1].query():
            return None
        return self._seconds + sum(begin.elapsed_time(end) for begin, end in self._events) / 1000


def _event() -> TimingEvent:
    event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    return cast("TimingEvent", event)
