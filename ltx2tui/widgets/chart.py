"""The loss chart: every step faint, the smoothed loss in front, held-out losses as diamonds. Redraws only the cells that changed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.segment import Segment
from textual.geometry import Region
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from ltx2tui.series import Series

if TYPE_CHECKING:
    from rich.style import Style

    from ltx2tui.state import HeldOut
    from ltx2tui.widgets.envelope import Span

GUTTER = 8  # cells for the labels of the loss axis, its line included
Row = list[tuple[str, str]]  # (character, component class) of each cell


class LossChart(Widget):
    """Shows losses by step. Set `losses`, `smooth`, `held_out` and `base`, or all at once with `show`."""

    DEFAULT_CSS = """
    LossChart { height: 1fr; width: 1fr; }
    """
    COMPONENT_CLASSES = {"chart--axis", "chart--raw", "chart--smooth", "chart--held-out", "chart--base", "chart--empty"}  # noqa: RUF012

    log_scale: reactive[bool] = reactive(False)

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.losses = Series()
        self.smooth = Series()
        self.held_out: tuple[HeldOut, ...] = ()
        self.base: float | None = None
        self.total_steps = 0
        self._span: Span | None = None
        self._rows: list[Row] = []

    def show(self, losses: Series, smooth: Series, *, held_out: tuple[HeldOut, ...], base: float | None, total_steps: int) -> None:
        """Show these values; cells that stay the same are not drawn again."""
        same = len(losses) == len(self.losses) and losses == self.losses and held_out == self.held_out and base == self.base
        self.losses, self.smooth, self.held_out, self.base, self.total_steps = losses, smooth, held_out, base, total_steps
        if not same or not self._rows:
            self._draw()

    def watch_log_scale(self) -> None:
        self._span = None
        self._draw()

    def on_resize(self) -> None:
        self._rows = []
        self._draw()

    def render_line(self, y: int) -> Strip:
        if y >= len(self._rows):
            return Strip.blank(self.size.width, self.rich_style)
        segments: list[Segment] = []
        text, current = "", ""
        for character, name in self._rows[y]:
            if name != current and text:
                segments.append(Segment(text, self._style(current)))
                text = ""
            current = name
            text += character
        segments.append(Segment(text, self._style(current)))
        return Strip(segments, len(self._rows[y]))

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(name) if name else self.rich_style

    def _draw(self) -> None:
        width, height = self.size
        if width <= GUTTER + 2 or height < 3:
            self._rows = []
            return
        rows = self._drawn(width, height)
        old, self._rows = self._rows, rows
        if len(old) != len(rows) or any(len(a) != len(b) for a, b in zip(old, rows, strict=True)):
            self.refresh()
            return
        for y, (before, after) in enumerate(zip(old, rows, strict=True)):
            if before != after:
                changed = [x for x in range(width) if before[x] != after[x]]
                self.refresh(Region(changed[0], y, changed[-1] - changed[0] + 1, 1))

    def _drawn(self, width: int, height: int) -> list[Row]:
        import numpy as np

        from ltx2tui.widgets import envelope

        plot_width, plot_height = width - GUTTER, height - 1
        losses = np.frombuffer(self.losses.values(), dtype=np.float32)
        smooth = np.frombuffer(self.smooth.values(), dtype=np.float32)
        others = [point.loss for point in self.held_out] + ([] if self.base is None else [self.base])
        every = np.concatenate([losses, np.array(others, dtype=np.float32)])
        if not np.isfinite(every).any():
            return _message(width, height, "The loss appears here with the first step." if not len(losses) else "No finite loss yet.")
        self._span = span = envelope.span_of(every, self._span, log=self.log_scale)
        last_step = max([len(losses), *(point.step for point in self.held_out)])
        shift = envelope.column_shift(last_step, plot_width * 2)

        def cells_of(values: envelope.Floats, *, line: bool) -> list[list[int]]:
            cells = np.zeros((plot_height, plot_width), dtype=np.uint8)
            if self.log_scale:
                values = np.where(values > 0, values, np.nan).astype(np.float32)
            columns, low, high = envelope.envelope(values, shift=shift)
            if len(columns):
                dots = plot_height * 4
                if line:  # two dots thick, to stand out from the single steps behind it
                    middle = span.dots((low + high) * np.float32(0.5), height=dots, log=self.log_scale)
                    for y in (middle, np.minimum(middle + 1, dots - 1)):
                        envelope.paint_line(cells, columns, y, gap=2 << max(0, shift))
                else:
                    top, bottom = span.dots(high, height=dots, log=self.log_scale), span.dots(low, height=dots, log=self.log_scale)
                    envelope.paint_envelope(cells, columns, top, bottom)
            return cells.tolist()

        raw, line = cells_of(losses, line=False), cells_of(smooth, line=True)
        rows = [
            [
                (chr(0x2800 + front), "chart--smooth") if front else (chr(0x2800 + back), "chart--raw") if back else (" ", "")
                for front, back in zip(*pair, strict=True)
            ]
            for pair in zip(line, raw, strict=True)
        ]

        def row_of(value: float) -> int:
            return int(span.dots(np.array([value], dtype=np.float32), height=plot_height * 4, log=self.log_scale)[0]) // 4

        if self.base is not None and (self.base > 0 or not self.log_scale):
            y = row_of(self.base)
            rows[y] = [("╌", "chart--base") if cell[0] == " " else cell for cell in rows[y]]
        for point in self.held_out:
            if point.loss > 0 or not self.log_scale:
                rows[row_of(point.loss)][min(_column(max(point.step - 1, 0), shift), plot_width - 1)] = ("◆", "chart--held-out")
        labels = {row_of(tick): tick for tick in envelope.ticks(span, many=max(4, plot_height // 3), log=self.log_scale)}
        gutters = [_label(labels.get(y)) for y in range(plot_height)]
        return [[*gutter, *row] for gutter, row in zip(gutters, rows, strict=True)] + [_steps_axis(plot_width, last_step, shift)]


def _column(index: int, shift: int) -> int:
    """The cell column of a point."""
    return (index << shift if shift >= 0 else index >> -shift) // 2


def _label(value: float | None) -> Row:
    text = "│".rjust(GUTTER) if value is None else f"{_short(value):>{GUTTER - 2}} ┤"
    return [(character, "chart--axis") for character in text]


def _short(value: float) -> str:
    """A tick in six cells at most."""
    exact = f"{value:.4g}"
    return exact if len(exact) <= GUTTER - 2 else f"{value:.1g}"


def _steps_axis(width: int, last_step: int, shift: int) -> Row:
    """The bottom row: round step numbers under their columns."""
    text = [" "] * width
    if last_step > 0:
        rough = max(1.0, 18 / 2**shift)  # steps that nine cells hold
        power = 10 ** math.floor(math.log10(rough))
        every = next(int(s * power) for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
        for step in range(every, last_step + 1, every):
            label, x = f"{step:,}", _column(step - 1, shift)
            start = x - len(label) // 2
            if start >= 0 and start + len(label) <= width and all(c == " " for c in text[max(0, start - 1) : start + len(label) + 1]):
                text[start : start + len(label)] = label
    return [(character, "chart--axis") for character in "step └".rjust(GUTTER) + "".join(text)]


def _message(width: int, height: int, text: str) -> list[Row]:
    rows: list[Row] = [[(" ", "")] * width for _ in range(height)]
    text = text[:width]
    start = (width - len(text)) // 2
    for offset, character in enumerate(text):
        rows[height // 2][start + offset] = (character, "chart--empty")
    return rows
