"""What a phase took is told when the next one begins, with peaks of its own."""

from __future__ import annotations

import resource
import sys
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from ltx2core.hardware import phase_meter
from ltx2core.hardware.helper_memory import HELPERS
from ltx2core.hardware.phase_meter import PhaseMeter
from ltx2core.runs.events import Event, PhaseMeasured, PhaseStarted, Progress

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1024**2


def phase(name: str) -> PhaseStarted:
    return PhaseStarted(phase=name, total=1, unit="clips")  # type: ignore[arg-type]


def test_each_phase_is_measured_before_the_next_begins_and_the_last_at_the_end() -> None:
    events: list[Event] = []
    meter = PhaseMeter(events.append)
    meter(phase("scan"))
    meter(Progress(phase="scan", done=1, total=1))
    meter(phase("train"))
    meter.close()
    meter.close()
    assert [event.kind for event in events] == ["phase_started", "progress", "phase_measured", "phase_started", "phase_measured"]
    assert [event.phase for event in events if isinstance(event, PhaseMeasured)] == ["scan", "train"]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's peak counter is Linux's")
def test_the_host_peak_of_a_phase_forgets_the_phase_before() -> None:
    events: list[Event] = []
    meter = PhaseMeter(events.append)
    meter(phase("cache_video"))
    held = np.ones(256 * MIB, dtype=np.uint8)
    assert held.sum() > 0
    del held
    meter(phase("train"))
    meter.close()
    large, small = (event.ram_peak_bytes for event in events if isinstance(event, PhaseMeasured))
    assert large is not None
    assert small is not None
    assert large - small > 200 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's peak counter is Linux's")
def test_memory_of_the_processes_beside_it_counts_in_the_phase_that_they_worked_in() -> None:
    events: list[Event] = []
    meter = PhaseMeter(events.append)
    HELPERS.held(1 << 40)  # before any phase
    meter(phase("cache_video"))
    HELPERS.held(3 << 30)
    HELPERS.held(2 << 30)
    meter(phase("train"))
    meter.close()
    caching, training = (event.ram_peak_bytes or 0 for event in events if isinstance(event, PhaseMeasured))
    assert 3 << 30 < caching < 6 << 30
    assert training < 3 << 30


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's peak counter is Linux's")
def test_a_peak_of_an_earlier_phase_that_cannot_be_forgotten_is_not_told_as_a_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phase_meter, "_CLEAR", tmp_path / "not" / "there")
    events: list[Event] = []
    meter = PhaseMeter(events.append)
    meter(phase("scan"))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    held = np.ones(max(0, most - psutil.Process().memory_info().rss) + 256 * MIB, dtype=np.uint8)  # more than ever before
    meter(phase("cache_video"))
    little = np.ones(2 * MIB, dtype=np.uint8)  # as other threads take at any time
    del held
    meter(phase("train"))
    meter.close()
    assert little.sum() == 2 * MIB
    first, *later = (event.ram_peak_bytes for event in events if isinstance(event, PhaseMeasured))
    assert first is not None
    assert later == [None, None]
