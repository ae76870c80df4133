"""A growing row of numbers that a frozen state can hold: appending shares the buffer, so 100,000 points cost no copies."""

from __future__ import annotations

import math
from array import array


class Series:
    """Float32 values by index, NaN for a gap. Immutable to its readers; a series and those appended to it share one buffer."""

    __slots__ = ("_buffer", "_length")

    def __init__(self, values: list[float] | array[float] = [], *, _length: int | None = None) -> None:  # noqa: B006 - only read
        self._buffer = values if isinstance(values, array) else array("f", values)
        self._length = len(self._buffer) if _length is None else _length

    def __len__(self) -> int:
        return self._length

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Series):
            return NotImplemented
        return self._length == other._length and (self._buffer is other._buffer or self.values() == other.values())

    def __hash__(self) -> int:
        return hash(self._length)

    def appended(self, value: float) -> Series:
        """This series with one more value. Only the newest series of a buffer writes to it; an older one makes its own copy."""
        buffer = self._buffer if self._length == len(self._buffer) else self._buffer[: self._length]
        buffer.append(value)
        return Series(buffer, _length=self._length + 1)

    def placed(self, index: int, value: float) -> Series:
        """This series with `value` at `index`: later values are dropped (a resumed run repeats them), a hole before it is NaN."""
        series = self.first(index)
        for _ in range(index - len(series)):
            series = series.appended(math.nan)
        return series.appended(value)

    def first(self, length: int) -> Series:
        """The first `length` values, or all of them."""
        return self if length >= self._length else Series(self._buffer, _length=max(0, length))

    def values(self, start: int = 0) -> array[float]:
        """A copy of the values from `start` on: safe to hand to numpy while the series grows in another thread."""
        return self._buffer[start : self._length]

    @property
    def last(self) -> float | None:
        """The newest value that is a number; None when there is none."""
        for index in range(self._length - 1, -1, -1):
            if math.isfinite(value := self._buffer[index]):
                return value
        return None
