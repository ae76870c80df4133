"""The geometry of the loss chart: values to dots, dots to braille cells. numpy only, no widget; see chart.py for the drawing.

Old columns never move while a run grows: the number of points in a dot column (or of columns a point takes) is a power of two, and the
vertical range has room to spare. So a redraw touches the newest columns, and bytes over a slow line stay few.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Cells = NDArray[np.uint8]  # braille bits, [rows, columns]

WIDEST = 3  # a point takes 2**3 dots at most, so three points do not pretend to be a curve
_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.uint8)  # Unicode's order of braille dots


@dataclass(frozen=True, slots=True)
class Span:
    """The vertical range of a chart."""

    low: float
    high: float

    def dots(self, values: Floats, *, height: int, log: bool) -> NDArray[np.int32]:
        """The dot row (0 on top) of each value, clipped to the chart. Values are finite."""
        low, high, values = (math.log(self.low), math.log(self.high), np.log(values)) if log else (self.low, self.high, values)
        part = (values - low) / (high - low)
        return np.clip(np.round((1 - part) * (height - 1)), 0, height - 1).astype(np.int32)


def column_shift(points: int, width: int) -> int:
    """log2 of the dot columns a point takes: 1 is two columns a point, -3 is eight points a column. `width` is in dots."""
    if points < 1 or width < 1:
        return 0
    return min(WIDEST, math.floor(math.log2(width / points)))


def envelope(values: Floats, *, shift: int) -> tuple[NDArray[np.int32], Floats, Floats]:
    """(dot column, lowest, highest) of every column that holds a finite value; not-finite values leave gaps."""
    step = 1 << max(0, -shift)
    padded = np.full(-(-len(values) // step) * step, np.nan, dtype=np.float32)
    padded[: len(values)] = np.where(np.isfinite(values), values, np.nan)
    groups = padded.reshape(-1, step)
    some = np.isfinite(groups).any(axis=1)
    groups = groups[some]
    columns = (np.nonzero(some)[0] << max(0, shift)).astype(np.int32)
    return columns, np.fmin.reduce(groups, axis=1, initial=np.inf), np.fmax.reduce(groups, axis=1, initial=-np.inf)


def paint_envelope(cells: Cells, columns: NDArray[np.int32], top: NDArray[np.int32], bottom: NDArray[np.int32]) -> None:
    """Vertical strokes from `top` to `bottom` in each column, both ends included."""
    lengths = bottom - top + 1
    x = np.repeat(columns, lengths)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    _dots(cells, x, np.repeat(top, lengths) + (np.arange(len(x)) - starts))


def paint_line(cells: Cells, columns: NDArray[np.int32], rows: NDArray[np.int32], *, gap: int) -> None:
    """A connected line through (column, row) points; points further apart than `gap` columns are not joined."""
    if not len(columns):
        return
    x = np.arange(columns[0], columns[-1] + 1, dtype=np.int32)
    y = np.round(np.interp(x, columns, rows)).astype(np.int32)
    before = np.concatenate([y[:1], y[:-1]])
    top, bottom = np.where(before < y, before + 1, y), np.where(before > y, before - 1, y)
    after = np.searchsorted(columns, x)  # the point at or right of each column
    joined = (columns[after] == x) | (columns[after] - columns[np.maximum(after - 1, 0)] <= gap)
    starts = joined & ~np.concatenate([[False], joined[:-1]])  # a stroke must not reach back over a gap
    top, bottom = np.where(starts, y, top), np.where(starts, y, bottom)
    paint_envelope(cells, x[joined], top[joined], bottom[joined])


def _dots(cells: Cells, x: NDArray[np.int32], y: NDArray[np.int32]) -> None:
    inside = (x >= 0) & (x < cells.shape[1] * 2) & (y >= 0) & (y < cells.shape[0] * 4)
    x, y = x[inside], y[inside]
    np.bitwise_or.at(cells, (y // 4, x // 2), _BITS[y % 4, x % 2])


def span_of(values: Floats, previous: Span | None, *, log: bool) -> Span:
    """The range to draw: the previous one while the values stay inside it and fill at least half, else a new one with a margin."""
    finite = values[np.isfinite(values)]
    if log:
        finite = finite[finite > 0]
    if not len(finite):
        return previous or Span(0.0, 1.0) if not log else Span(0.1, 1.0)
    low, high = float(finite.min()), float(finite.max())
    if previous is not None and previous.low <= low and high <= previous.high and (not log or previous.low > 0):
        used, room = (math.log(high / low), math.log(previous.high / previous.low)) if log else (high - low, previous.high - previous.low)
        if used >= 0.5 * room:
            return previous
    if log:
        margin = max((high / low) ** 0.1, 1.05)
        return Span(low / margin, high * margin)
    margin = max((high - low) * 0.12, abs(high) * 0.02, 1e-6)
    return Span(max(0.0, low - margin) if low >= 0 else low - margin, high + margin)


def ticks(span: Span, *, many: int, log: bool) -> list[float]:
    """At most `many` round values inside a span, evenly spread (or by 1, 2, 5 on a log axis)."""
    many = max(2, many)
    if log:
        powers = range(math.floor(math.log10(span.low)), math.ceil(math.log10(span.high)) + 1)
        for steps in ((1, 2, 5), (1, 3), (1,)):
            found = [s * 10.0**p for p in powers for s in steps if span.low <= s * 10.0**p <= span.high]
            if len(found) <= many:
                break
        return found
    raw = (span.high - span.low) / many
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= raw * 0.999)
    first = math.ceil(span.low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(span.high / step + 1e-9) + 1)]
