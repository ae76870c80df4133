"""What the ring's events add up to, on a device whose clock the test moves: runs as they are, captured ones, and one that is not done."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from ltx2core.offload.ring_timer import RingTimer, TimingEvent, Traffic


@dataclass
class Device:
    """A clock in ms, and whether what is recorded is recorded now or becomes part of a graph."""

    now: float = 0.0
    capturing: bool = False
    graph: list[tuple[float, Event]] = field(default_factory=list)  # events and when, after the replay's begin, they come
    done_until: float = float("inf")

    def event(self) -> TimingEvent:
        return Event(self)

    def replay(self) -> None:
        for after, event in self.graph:
            event.at = self.now + after
        self.now += max(after for after, _ in self.graph)


@dataclass
class Event:
    device: Device
    at: float | None = None

    def record(self) -> None:
        if self.device.capturing:
            self.device.graph.append((self.device.now, self))
        else:
            self.at = self.device.now

    def query(self) -> bool:
        return self.at is not None and self.at <= self.device.done_until

    def elapsed_time(self, end_event: TimingEvent) -> float:
        assert isinstance(end_event, Event)
        assert self.at is not None
        assert end_event.at is not None
        return end_event.at - self.at


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def timer(device: Device) -> RingTimer:
    return RingTimer(block_bytes=1000, make=device.event, capturing=lambda: device.capturing)


def step(device: Device, timer: RingTimer, *waits: float) -> None:
    """A forward and backward that loads a block in 4 ms before each wait."""
    timer.begin()
    for wait in waits:
        with timer.span("copy"):
            device.now += 4
        device.now += 10  # computing
        with timer.span("wait"):
            device.now += wait
    timer.end()


def test_waits_and_copies_are_added_up_and_a_step_forgets_the_one_before(device: Device, timer: RingTimer) -> None:
    step(device, timer, 0, 3, 2)
    assert timer.read(replayed=False) == Traffic(stalled_seconds=0.005, copied_bytes=3000, copying_seconds=0.012)
    step(device, timer, 1, 0)
    found = timer.read(replayed=False)
    assert found == Traffic(stalled_seconds=0.001, copied_bytes=2000, copying_seconds=0.008)
    assert found.rate == pytest.approx(2000 / 0.008)


def test_a_device_that_is_not_done_is_not_waited_for(device: Device, timer: RingTimer) -> None:
    step(device, timer, 1, 1)
    device.done_until = device.now - 0.5
    assert timer.read(replayed=False) is None
    device.done_until = device.now
    assert timer.read(replayed=False) is not None


def test_each_replay_of_a_graph_is_timed_anew_with_as_many_events_as_were_captured(device: Device, timer: RingTimer) -> None:
    step(device, timer, 5, 5, 5)  # as it is, first: one wait more
    device.now, device.capturing = 0, True
    step(device, timer, 2, 3)
    device.capturing = False
    for begin in (100.0, 200.0):
        device.now = begin
        device.replay()
        assert timer.read(replayed=True) == Traffic(stalled_seconds=0.005, copied_bytes=2000, copying_seconds=0.008)


def test_sweeps_that_no_step_makes_are_not_timed(device: Device, timer: RingTimer) -> None:
    assert timer.read(replayed=False) is None
    step(device, timer, 1)
    with timer.span("wait"):  # a sample's
        device.now += 100
    assert timer.read(replayed=False) == Traffic(stalled_seconds=0.001, copied_bytes=1000, copying_seconds=0.004)


def test_where_nothing_travels_there_is_no_rate() -> None:
    assert Traffic().rate is None
