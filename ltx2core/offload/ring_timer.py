"""How long a step waited for weights, and how fast they came: events around each wait and each copy of the ring.

The events are made to be recorded inside a captured graph, too (`external`), where they become nodes that note the time at every replay;
the ring's own events, which hold streams back, are others. A graph's events are overwritten by its next replay, so they are read after a
step and before the next one is given to the device, and only if the device has passed all of them: nothing waits. What it costs is four
records for each block that travels, a microsecond or two each.

A wait is measured on the compute stream alone, from the moment that it reaches the wait to the moment that it goes on: what is told is
time in which nothing was computed. A copy is measured on its own stream from the moment that its slot was free.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Kind = Literal["wait", "copy"]


class TimingEvent(Protocol):
    """What is used of `torch.cuda.Event`."""

    def record(self) -> None: ...

    def query(self) -> bool: ...

    def elapsed_time(self, end_event: TimingEvent) -> float: ...  # ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What a forward and backward had to do with weights that travel. stalled: the device computed nothing, waiting for them."""

    stalled_seconds: float = 0.0
    copied_bytes: int = 0
    copying_seconds: float = 0.0

    @property
    def rate(self) -> float | None:
        """Bytes a second of the copies; None where there were none."""
        return self.copied_bytes / self.copying_seconds if self.copying_seconds > 0 else None


class RingTimer:
    """Times one forward and backward at a time, from `begin` to `end`; outside of these nothing is recorded."""

    def __init__(
        self, *, block_bytes: int, make: Callable[[], TimingEvent] | None = None, capturing: Callable[[], bool] | None = None
    ) -> None:
        """block_bytes: of a copy. make, capturing: CUDA's, unless a test brings its own."""
        self._block_bytes = block_bytes
        self._make = make or _cuda_event
        self._capturing = capturing or torch.cuda.is_current_stream_capturing
        self._pairs: dict[Kind, list[tuple[TimingEvent, TimingEvent]]] = {"wait": [], "copy": []}
        self._used: dict[Kind, int] | None = None  # None: not timing
        self._counts: dict[bool, dict[Kind, int]] = {}  # of a run as it is, and of one that was captured

    def begin(self) -> None:
        """A forward begins; events of the one before may be written over."""
        self._used = {"wait": 0, "copy": 0}

    def end(self) -> None:
        """The backward has been given to the device, or to a graph."""
        if self._used is not None:
            self._counts[self._capturing()] = self._used
        self._used = None

    @contextmanager
    def span(self, kind: Kind) -> Iterator[None]:
        """Note when the current stream comes to what is inside, and when it has passed it."""
        if self._used is None:
            yield
            return
        pairs, index = self._pairs[kind], self._used[kind]
        if index == len(pairs):
            pairs.append((self._make(), self._make()))
        self._used[kind] = index + 1
        begin, end = pairs[index]
        begin.record()
        yield
        end.record()

    def read(self, *, replayed: bool) -> Traffic | None:
        """What the newest run took; None while the device has not passed all of it, or where none was timed. Never waits.

        replayed: whether that run was a graph's replay.
        """
        counts = self._counts.get(replayed)
        if counts is None:
            return None
        spans = {kind: self._pairs[kind][: counts[kind]] for kind in self._pairs}
        if not all(pairs[-1][1].query() for pairs in spans.values() if pairs):
            return None
        seconds = {kind: sum(begin.elapsed_time(end) for begin, end in pairs) / 1000 for kind, pairs in spans.items()}
        return Traffic(stalled_seconds=seconds["wait"], copied_bytes=counts["copy"] * self._block_bytes, copying_seconds=seconds["copy"])


def _cuda_event() -> TimingEvent:
    event: Any = torch.cuda.Event(enable_timing=True, external=True)  # type: ignore[no-untyped-call]
    return cast("TimingEvent", event)
