"""The picture of a step, from a trace as the profiler writes it: what overlaps, what waits, and which block is where."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import ImageColor
from step_engine import draw_batch, fast_nano, make_batch

from ltx2core.training.fast_model import FastSettings
from ltx2core.training.step import losses_of
from tests.benchmarks.step_timeline import loads_of, mark_blocks
from tests.benchmarks.timeline import LANE, OTHER_COPY, PHASES, STALL, WEIGHTS, Strip, draw, make_timeline, read_trace

BYTES = 400_000_000


def event(category: str, name: str, begin: float, end: float, **arguments: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "ts": 5000 + begin, "dur": end - begin, "args": arguments}


def copy(begin: float, end: float, nbytes: int = BYTES) -> dict[str, Any]:
    return event("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", begin, end, bytes=nbytes)


def mark(at: float) -> dict[str, Any]:
    return event("kernel", "spin_kernel(long)", at, at + 1)


def kernel(begin: float, end: float) -> dict[str, Any]:
    return event("kernel", "nvjet_tst_256x128", begin, end)


TRACE = [
    {"ph": "M", "name": "process_name", "args": {"name": "python"}},
    event("cpu_op", "aten::mm", -50, 2500),
    kernel(0, 100),  # before the blocks
    copy(20, 24, 4096),  # of the batch: too small to be weights
    mark(100),
    kernel(101, 300),
    kernel(305, 500),  # a gap as there always is
    copy(100, 800),
    mark(500),
    kernel(800, 1000),  # after the wait for its weights
    mark(1000),
    kernel(1001, 1400),
    copy(900, 1300),
    event("gpu_memcpy", "Memcpy DtoH (Device -> Pinned)", 1310, 1380, bytes=40_000_000),
    kernel(1450, 1500),  # a gap in which nothing comes: the host was slow
]
MARKS = [("forward", "0"), ("forward", "1"), ("backward", "1")]
LOADS = [1, 0]


def test_a_trace_gives_the_shares_of_computing_copying_and_waiting() -> None:
    timeline = make_timeline(read_trace(TRACE, weight_bytes=BYTES), marks=MARKS, loads=LOADS)
    assert timeline.length == 1500
    assert timeline.stalls == ((500.0, 800.0),)
    assert timeline.computed == 100 + 199 + 195 + 200 + 399 + 50
    assert timeline.copied == 700 + 400
    assert timeline.overlapped == 199 + 195 + 100 + 299
    assert [(span.text, span.begin, span.end) for span in timeline.blocks] == [
        ("", 0, 100),
        ("0", 100, 500),
        ("1", 500, 1000),
        ("1", 1000, 1500),
    ]
    assert [span.text for span in timeline.copies] == ["1", "0", ""]
    assert timeline.totals()["stalled_ms"] == 0.3


def test_a_trace_that_lacks_a_mark_or_a_copy_is_refused() -> None:
    intervals = read_trace(TRACE, weight_bytes=BYTES)
    with pytest.raises(ValueError, match="expected 4 marks and 2 loads, found 3 and 2"):
        make_timeline(intervals, marks=[*MARKS, ("other", "")], loads=LOADS)
    with pytest.raises(ValueError, match="found 3 and 0"):
        make_timeline(read_trace(TRACE, weight_bytes=1), marks=MARKS, loads=LOADS)


def test_the_picture_shows_each_thing_where_it_was() -> None:
    timeline = make_timeline(read_trace(TRACE, weight_bytes=BYTES), marks=MARKS, loads=LOADS)
    picture = draw(timeline, title="a step")
    whole = Strip(0.0, 1500.0, 90)

    def seen(at: float, lane: int) -> tuple[int, int, int]:
        pixel = picture.getpixel((whole.x(at), 90 + lane * (LANE + 10) + 6))
        assert isinstance(pixel, tuple)
        return pixel[:3]

    expected = {
        (50, 0): PHASES["other"],
        (400, 0): PHASES["forward"],
        (650, 0): STALL,
        (1200, 0): PHASES["backward"],
        (400, 1): WEIGHTS,
        (1340, 1): OTHER_COPY,
    }
    assert {place: seen(*place) for place in expected} == {place: ImageColor.getrgb(colour) for place, colour in expected.items()}
    assert seen(1425, 0) not in {ImageColor.getrgb(colour) for colour in (*PHASES.values(), STALL)}
    assert seen(850, 1) not in {ImageColor.getrgb(colour) for colour in (WEIGHTS, OTHER_COPY)}


@pytest.mark.parametrize("kept", [0, 2])
def test_marks_and_loads_follow_the_order_of_a_step(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[int] = []
    monkeypatch.setattr(torch.cuda, "_sleep", launched.append)
    model, fast = fast_nano(FastSettings(compile=False, streamed=3, slots=1, kept=kept))
    assert fast.blocks.ring is not None
    loaded: list[int] = []
    load = fast.blocks.ring._load
    monkeypatch.setattr(fast.blocks.ring, "_load", lambda index: (loaded.append(index), load(index)))
    marks = mark_blocks(fast.blocks)
    for _ in range(2):  # marks are of the newest step alone
        launched.clear()
        loaded.clear()
        losses_of(model, draw_batch(make_batch()), audio_weight=1.0).total.backward()
    forwards, backwards = ([(phase, str(index)) for index in range(5)] for phase in ("forward", "backward"))
    assert marks == [*forwards, ("other", ""), *reversed(backwards), ("other", "")]
    assert len(launched) == len(marks)
    travelling = [index for index, place in enumerate(fast.blocks.ring_index) if place is not None]
    assert loads_of(fast.blocks) == [travelling[place] for place in loaded]
