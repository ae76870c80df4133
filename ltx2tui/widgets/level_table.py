"""The training loss by noise level: a line for each band, with its smoothed value, its course so far and how far it has fallen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ltx2core.runs.events import LEVEL_BANDS
from ltx2tui import words
from ltx2tui.levels import LevelCurves
from ltx2tui.widgets.memory import bar_row
from ltx2tui.widgets.rows import Row, Rows, message, written

if TYPE_CHECKING:
    from collections.abc import Sequence

LABEL = 8  # cells of a band's name
NUMBERS = 12  # cells of a value and its change, spaces included
LONGEST = 60  # cells of a course, from which more show no more


class LevelTable(Rows):
    """Bands from much noise to little: what a model learns first stands on top."""

    DEFAULT_CSS = """
    LevelTable { height: 1fr; width: 1fr; }
    """
    COMPONENT_CLASSES = {"chart--axis", "chart--smooth", "chart--audio", "chart--value", "chart--empty"}  # noqa: RUF012

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.curves = LevelCurves()

    def show(self, curves: LevelCurves) -> None:
        if curves != self.curves or not self._rows:
            self.curves = curves
            self.draw()

    def drawn(self, width: int, height: int) -> list[Row]:
        modalities = [name for name in ("video", "audio") if self.curves.has(name)]
        if height < LEVEL_BANDS + 1 or width < LABEL + NUMBERS:
            return []
        if not modalities:
            return message(width, height, "The loss of each noise level appears here after 25 steps.")
        room = (width - LABEL) // len(modalities)
        tall = (height - 1) // LEVEL_BANDS  # rows of a band, one of them empty where there are more
        rows = [written([("noise".ljust(LABEL), "chart--axis"), *((name.ljust(room), "chart--axis") for name in modalities)], width)]
        for band in reversed(range(LEVEL_BANDS)):
            rows += [
                written(self._line(band, modalities, room=room, row=row, tall=max(1, tall - 1)), width) for row in range(max(1, tall - 1))
            ]
            rows += [written([], width)] if tall > 1 else []
        return (rows + [written([], width)] * height)[:height]

    def _line(self, band: int, modalities: Sequence[str], *, room: int, row: int, tall: int) -> list[tuple[str, str]]:
        """One of the rows of a band: its numbers stand in the last, beside the foot of its bars."""
        last, length = row == tall - 1, min(LONGEST, room - NUMBERS - 1)
        name = f"{band / LEVEL_BANDS:.1f}–{(band + 1) / LEVEL_BANDS:.1f}" if last else ""
        parts = [(name.ljust(LABEL), "chart--axis")]
        for modality in modalities:
            means = self.curves.means(modality, band)
            parts += [
                (f"{words.loss(means[-1]) if last else '':<7}", "chart--value"),
                (f"{_fall(means) if last else '':<5}", "chart--axis"),
            ]
            bars = bar_row(course(means, length), row=row, height=tall)
            parts += [(bars.ljust(room - NUMBERS), "chart--audio" if modality == "audio" else "chart--smooth")]
        return parts


def course(values: Sequence[float], width: int) -> list[float]:
    """`width` heights from 0 to 1, from the first value to the last; the lowest stands a little above nothing, where no value is."""
    if width < 1 or not values:
        return []
    picked = [values[index * len(values) // width] for index in range(width)]
    finite = [value for value in picked if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    room = high - low
    return [0.0 if not math.isfinite(value) else 0.12 + 0.88 * ((value - low) / room if room else 0.0) for value in picked]


def _fall(means: Sequence[float]) -> str:
    """The newest against the first that there is; nothing where they are one."""
    finite = [value for value in means if math.isfinite(value)]
    return f"{finite[-1] / finite[0] - 1:+.0%}" if len(finite) > 1 and finite[0] > 0 else ""
