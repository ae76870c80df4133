"""How the held-out loss changed against the base model, which is the zero line: video and audio apart, each with its band."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2tui.widgets.chart import GUTTER, column_of, steps_axis
from ltx2tui.widgets.rows import Row, Rows, message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ltx2tui.state import Change, HeldOut
    from ltx2tui.widgets.envelope import Span

MARKS = {"video": ("◆", "chart--held-out"), "audio": ("●", "chart--audio"), "change": ("◆", "chart--held-out")}


class HeldOutChart(Rows):
    """A mark for each measurement and modality, with a stroke from end to end of its band."""

    DEFAULT_CSS = """
    HeldOutChart { height: 1fr; width: 1fr; }
    """
    COMPONENT_CLASSES = {"chart--axis", "chart--held-out", "chart--audio", "chart--base", "chart--empty"}  # noqa: RUF012

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.points: tuple[HeldOut, ...] = ()
        self._span: Span | None = None

    def show(self, points: tuple[HeldOut, ...]) -> None:
        if points != self.points or not self._rows:
            self.points = points
            self.draw()

    def drawn(self, width: int, height: int) -> list[Row]:
        import numpy as np

        from ltx2tui.widgets import envelope

        if width <= GUTTER + 2 or height < 3:
            return []
        marks = list(_marks(self.points))
        if not marks:
            text = "Each change of the held-out loss appears here once it was measured twice."
            return message(width, height, text if width > len(text) else "No change of the held-out loss yet.")
        plot_width, plot_height = width - GUTTER, height - 1
        ends = [100 * (change.share + side * (change.band or 0)) for _, _, change in marks for side in (-1, 1)]
        self._span = span = envelope.span_of(np.array([0.0, *ends], dtype=np.float32), self._span, log=False)
        last_step = max(step for step, _, _ in marks)
        shift = envelope.column_shift(last_step, plot_width * 2)

        def row_of(percent: float) -> int:
            return int(span.dots(np.array([percent], dtype=np.float32), height=plot_height, log=False)[0])

        rows: list[Row] = [[(" ", "")] * plot_width for _ in range(plot_height)]
        rows[row_of(0.0)] = [("╌", "chart--base")] * plot_width
        apart = len({name for _, name, _ in marks}) > 1
        for strokes in (True, False):  # marks over strokes
            for step, name, change in marks:
                character, style = MARKS[name]
                x = min(column_of(max(step - 1, 0), shift) + (apart and name == "audio"), plot_width - 1)
                if not strokes:
                    rows[row_of(100 * change.share)][x] = (character, style)
                elif change.band:
                    for y in range(row_of(100 * (change.share + change.band)), row_of(100 * (change.share - change.band)) + 1):
                        rows[y][x] = ("│", style)
        ticks = {row_of(tick): tick for tick in [*envelope.ticks(span, many=max(3, plot_height // 3), log=False), 0.0]}
        gutters = [_label(ticks.get(y)) for y in range(plot_height)]
        return [[*gutter, *row] for gutter, row in zip(gutters, rows, strict=True)] + [steps_axis(plot_width, last_step, shift)]


def _marks(points: tuple[HeldOut, ...]) -> Iterator[tuple[int, str, Change]]:
    """(step, part, change) of all after the base model: video and audio where they are known apart, else both in one."""
    for point in points:
        if not point.step:
            continue
        parts = [(name, change) for name, change in (("video", point.video), ("audio", point.audio)) if change is not None]
        for name, change in parts or ([("change", point.change)] if point.change is not None else []):
            yield point.step, name, change


def _label(percent: float | None) -> Row:
    text = "│".rjust(GUTTER) if percent is None else f"{f'{percent:+g}%' if percent else 'base':>{GUTTER - 2}} ┤"
    return [(character, "chart--axis") for character in text]
