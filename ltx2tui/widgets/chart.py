"""The loss chart: every step faint, the smoothed loss in front, held-out losses as diamonds. Redraws only the cells that changed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from textual.reactive import reactive

from ltx2tui.series import Series
from ltx2tui.widgets.rows import Row, Rows, message

if TYPE_CHECKING:
    from ltx2tui.state import HeldOut
    from ltx2tui.widgets.envelope import Span

GUTTER = 8  # cells for the labels of the loss axis, its line included


class LossChart(Rows):
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

    def show(self, losses: Series, smooth: Series, *, held_out: tuple[HeldOut, ...], base: float | None, total_steps: int) -> None:
        """Show these values; cells that stay the same are not drawn again."""
        same = len(losses) == len(self.losses) and losses == self.losses and held_out == self.held_out and base == self.base
        self.losses, self.smooth, self.held_out, self.base, self.total_steps = losses, smooth, held_out, base, total_steps
        if not same or not self._rows:
            self.draw()

    def watch_log_scale(self) -> None:
        self._span = None
        self.draw()

    def drawn(self, width: int, height: int) -> list[Row]:
        if width <= GUTTER + 2 or height < 3:
            return []
        import numpy as np

        from ltx2tui.widgets import envelope

        plot_width, plot_height = width - GUTTER, height - 1
        losses = np.frombuffer(self.losses.values(), dtype=np.float32)
        smooth = np.frombuffer(self.smooth.values(), dtype=np.float32)
        others = [point.loss for point in self.held_out] + ([] if self.base is None else [self.base])
        every = np.concatenate([losses, np.array(others, dtype=np.float32)])
        if not np.isfinite(every).any():
            return message(width, height, "The loss appears here with the first step." if not len(losses) else "No finite loss yet.")
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
                rows[row_of(point.loss)][min(column_of(max(point.step - 1, 0), shift), plot_width - 1)] = ("◆", "chart--held-out")
        labels = {row_of(tick): tick for tick in envelope.ticks(span, many=max(4, plot_height // 3), log=self.log_scale)}
        gutters = [_label(labels.get(y)) for y in range(plot_height)]
        return [[*gutter, *row] for gutter, row in zip(gutters, rows, strict=True)] + [steps_axis(plot_width, last_step, shift)]


def column_of(index: int, shift: int) -> int:
    """The cell column of a point."""
    return (index << shift if shift >= 0 else index >> -shift) // 2


def _label(value: float | None) -> Row:
    text = "│".rjust(GUTTER) if value is None else f"{_short(value):>{GUTTER - 2}} ┤"
    return [(character, "chart--axis") for character in text]


def _short(value: float) -> str:
    """A tick in six cells at most."""
    exact = f"{value:.4g}"
    return exact if len(exact) <= GUTTER - 2 else f"{value:.1g}"


def steps_axis(width: int, last_step: int, shift: int) -> Row:
    """The bottom row: round step numbers under their columns."""
    text = [" "] * width
    if last_step > 0:
        rough = max(1.0, 18 / 2**shift)  # steps that nine cells hold
        power = 10 ** math.floor(math.log10(rough))
        every = next(int(s * power) for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
        for step in range(every, last_step + 1, every):
            label, x = f"{step:,}", column_of(step - 1, shift)
            start = x - len(label) // 2
            if start >= 0 and start + len(label) <= width and all(c == " " for c in text[max(0, start - 1) : start + len(label) + 1]):
                text[start : start + len(label)] = label
    return [(character, "chart--axis") for character in "step └".rjust(GUTTER) + "".join(text)]
