"""What the card did in a step, in two lanes: computing, and copying weights. From a profiler's trace to intervals, totals and a picture.

Plain numbers and Pillow: nothing here needs a card. `step_timeline.py` records the trace.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Kind = Literal["kernel", "weights", "other copy", "mark"]
MARK = "spin_kernel"  # of torch.cuda._sleep, which nothing else launches
LEAST_BYTES = 1 << 20  # of a copy that is drawn
LEAST_STALL = 20.0  # us; between two kernels there are always a few
PHASES = {"forward": "#4c9fc8", "backward": "#2d6187", "other": "#7d8794"}
WEIGHTS, OTHER_COPY, STALL, PAPER, INK, QUIET = "#9d8fe6", "#c9c2ee", "#e06666", "#ffffff", "#21262f", "#767b84"


@dataclass(frozen=True, slots=True)
class Interval:
    """Microseconds on the card's clock, from the step's first kernel on."""

    kind: Kind
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a lane with what it is: a block's number, or no text."""

    begin: float
    end: float
    text: str
    colour: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The lanes of a step, and its totals in microseconds."""

    blocks: tuple[Span, ...]
    copies: tuple[Span, ...]
    stalls: tuple[tuple[float, float], ...]
    computing: tuple[tuple[float, float], ...]
    length: float
    computed: float
    copied: float  # weights alone
    overlapped: float  # of it, while something was computed

    def totals(self) -> dict[str, float]:
        """For the picture's head and for a benchmark's line."""
        return {
            "step_ms": round(self.length / 1000, 2),
            "compute_busy_percent": _percent(self.computed, self.length),
            "copy_busy_percent": _percent(self.copied, self.length),
            "copies_overlapped_percent": _percent(self.overlapped, self.copied),
            "stalled_ms": round(sum(end - begin for begin, end in self.stalls) / 1000, 2),
        }


def read_trace(events: Iterable[Mapping[str, Any]], *, weight_bytes: int) -> list[Interval]:
    """The intervals of a trace as PyTorch's profiler writes it (`traceEvents`), in order. weight_bytes: of the copy of one block."""
    found = []
    for event in events:
        category, name, arguments = event.get("cat"), str(event.get("name", "")), event.get("args", {})
        if category not in ("kernel", "gpu_memcpy", "gpu_memset"):
            continue
        kind: Kind = "mark" if MARK in name else "kernel"
        if category == "gpu_memcpy" and ("HtoD" in name or "DtoH" in name):
            size = int(arguments.get("bytes", 0))
            if size < LEAST_BYTES:
                continue
            kind = "weights" if size == weight_bytes and "HtoD" in name else "other copy"
        begin = float(event["ts"])
        found.append(Interval(kind, begin, begin + float(event["dur"])))
    found.sort(key=lambda interval: interval.begin)
    start = found[0].begin if found else 0.0
    return [Interval(interval.kind, interval.begin - start, interval.end - start) for interval in found]


def make_timeline(intervals: Sequence[Interval], *, marks: Sequence[tuple[str, str]], loads: Sequence[int]) -> Timeline:
    """marks: what begins at each mark, as (phase, block's number or nothing), in the order in which the card passes them. loads: the
    blocks whose weights come, in order. Raises ValueError unless there are as many of both as in the trace."""
    passed = [interval for interval in intervals if interval.kind == "mark"]
    weights = [interval for interval in intervals if interval.kind == "weights"]
    if len(passed) != len(marks) or len(weights) != len(loads):
        raise ValueError(f"expected {len(marks)} marks and {len(loads)} loads, found {len(passed)} and {len(weights)}")
    length = max((interval.end for interval in intervals), default=0.0)
    computing = _union((interval.begin, interval.end) for interval in intervals if interval.kind == "kernel")
    copying = _union((interval.begin, interval.end) for interval in weights)
    edges = [interval.begin for interval in passed] + [length]
    blocks = [Span(0.0, edges[0], "", PHASES["other"])] if edges[0] > 0 else []
    blocks += [Span(begin, end, text, PHASES[phase]) for (phase, text), (begin, end) in zip(marks, pairwise(edges), strict=True)]
    copies = [Span(interval.begin, interval.end, str(block), WEIGHTS) for interval, block in zip(weights, loads, strict=True)]
    copies += [Span(interval.begin, interval.end, "", OTHER_COPY) for interval in intervals if interval.kind == "other copy"]
    gaps = [(before[1], after[0]) for before, after in pairwise(computing)]
    return Timeline(
        blocks=tuple(blocks),
        copies=tuple(copies),
        stalls=tuple(gap for gap in gaps if gap[1] - gap[0] >= LEAST_STALL and _waits(gap, weights)),
        computing=tuple(computing),
        length=length,
        computed=_length(computing),
        copied=_length(copying),
        overlapped=_length(_common(computing, copying)),
    )


def _waits(gap: tuple[float, float], weights: Sequence[Interval]) -> bool:
    """Whether nothing was computed until weights had come: a copy ends within the gap, or just before what follows it."""
    begin, end = gap
    return any(copy.begin < end and begin < copy.end <= end for copy in weights)


def _union(pairs: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for begin, end in sorted(pairs):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


def _common(first: Sequence[tuple[float, float]], second: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    found, i, j = [], 0, 0
    while i < len(first) and j < len(second):
        begin, end = max(first[i][0], second[j][0]), min(first[i][1], second[j][1])
        if begin < end:
            found.append((begin, end))
        if first[i][1] < second[j][1]:
            i += 1
        else:
            j += 1
    return found


def _length(pairs: Iterable[tuple[float, float]]) -> float:
    return sum(end - begin for begin, end in pairs)


def _percent(part: float, whole: float) -> float:
    return round(100 * part / whole, 1) if whole else 0.0


# -- the picture

WIDTH, LEFT, RIGHT = 2000, 110, 20
LANE, GAP, STRIP = 46, 10, 190  # pixels: a lane, between the two, a strip with its axis


@dataclass(frozen=True, slots=True)
class Strip:
    """A stretch of the step over the picture's width."""

    begin: float
    end: float
    top: int

    def x(self, at: float) -> int:
        part = (at - self.begin) / max(self.end - self.begin, 1e-9)
        return LEFT + round(max(0.0, min(1.0, part)) * (WIDTH - LEFT - RIGHT))

    def shows(self, begin: float, end: float) -> bool:
        return end > self.begin and begin < self.end


def draw(timeline: Timeline, *, title: str) -> Image.Image:
    """The whole step, and an eighth of it around its middle, where forward turns into backward."""
    picture = Image.new("RGB", (WIDTH, 100 + 2 * STRIP), PAPER)
    canvas = ImageDraw.Draw(picture)
    canvas.text((LEFT, 14), title, fill=INK, font=_font(22))
    totals = timeline.totals()
    text = (
        f"{totals['step_ms']:.1f} ms   computing {totals['compute_busy_percent']:g} %   copying weights {totals['copy_busy_percent']:g} %, "
        f"{totals['copies_overlapped_percent']:g} % of it while computing   waiting for weights {totals['stalled_ms']:g} ms"
    )
    canvas.text((LEFT, 46), text, fill=QUIET, font=_font(17))
    turn = next((span.begin for span in timeline.blocks if span.colour == PHASES["backward"]), timeline.length / 2)
    begin = max(0.0, turn - timeline.length / 16)
    for strip in (Strip(0.0, timeline.length, 90), Strip(begin, min(timeline.length, begin + timeline.length / 8), 90 + STRIP)):
        _draw_strip(canvas, timeline, strip)
    _draw_legend(canvas, 90 + 2 * STRIP - 14)
    return picture


def _draw_strip(canvas: ImageDraw.ImageDraw, timeline: Timeline, strip: Strip) -> None:
    compute, copy = strip.top, strip.top + LANE + GAP
    for y, name in ((compute, "compute"), (copy, "copy")):
        canvas.text((LEFT - 12, y + LANE // 2), name, fill=INK, font=_font(17), anchor="rm")
        canvas.rectangle((LEFT, y, WIDTH - RIGHT, y + LANE), fill="#f1f2f4")
    for span in timeline.blocks:  # only where something runs: the rest of a block is white
        for begin, end in _common([(span.begin, span.end)], timeline.computing):
            if strip.shows(begin, end):
                canvas.rectangle((strip.x(begin), compute, strip.x(end), compute + LANE), fill=span.colour)
    for begin, end in timeline.stalls:
        if strip.shows(begin, end):
            canvas.rectangle((strip.x(begin), compute, max(strip.x(end), strip.x(begin) + 1), compute + LANE), fill=STALL)
    for span in timeline.blocks:
        if strip.shows(span.begin, span.end):
            _write(canvas, strip, span, compute, PAPER)
            canvas.line((strip.x(span.begin), compute, strip.x(span.begin), compute + LANE), fill=PAPER)
    for span in timeline.copies:
        if strip.shows(span.begin, span.end):
            canvas.rectangle((strip.x(span.begin), copy, strip.x(span.end), copy + LANE), fill=span.colour, outline=PAPER)
            _write(canvas, strip, span, copy, INK)
    _draw_axis(canvas, strip, copy + LANE)


def _write(canvas: ImageDraw.ImageDraw, strip: Strip, span: Span, top: int, colour: str) -> None:
    """A block's number, where it fits."""
    left, right = strip.x(span.begin), strip.x(span.end)
    if span.text and canvas.textlength(span.text, font=_font(13)) + 4 <= right - left:
        canvas.text(((left + right) // 2, top + LANE // 2), span.text, fill=colour, font=_font(13), anchor="mm")


def _draw_axis(canvas: ImageDraw.ImageDraw, strip: Strip, top: int) -> None:
    milliseconds = (strip.end - strip.begin) / 1000
    every = next((step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if milliseconds / step <= 20), 5000)
    first = -(-int(strip.begin) // (every * 1000)) * every
    for at in range(first, int(strip.end / 1000) + 1, every):
        x = strip.x(at * 1000)
        canvas.line((x, top, x, top + 6), fill=QUIET)
        canvas.text((x, top + 9), f"{at} ms", fill=QUIET, font=_font(13), anchor="ma")


def _draw_legend(canvas: ImageDraw.ImageDraw, top: int) -> None:
    words = (
        (PHASES["forward"], "a block forwards"),
        (PHASES["backward"], "backwards, with what is computed again"),
        (PHASES["other"], "outside the blocks"),
        (WEIGHTS, "a block's weights on their way"),
        (OTHER_COPY, "activations"),
        (STALL, "waiting for weights"),
    )
    x = LEFT
    for colour, text in words:
        canvas.rectangle((x, top, x + 14, top + 14), fill=colour)
        canvas.text((x + 20, top + 7), text, fill=INK, font=_font(14), anchor="lm")
        x += 50 + round(canvas.textlength(text, font=_font(14)))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
