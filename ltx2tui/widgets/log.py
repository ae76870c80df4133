"""The log of a run: time, a mark for its level, the sentence, and under it what to do. Holds the last lines only."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.text import Text
from textual.widgets import RichLog

if TYPE_CHECKING:
    from textual.events import Resize

    from ltx2tui.state import LogLine

MARKS = {"info": " ", "warning": "!", "error": "✕"}


class RunLog(RichLog):
    """Shows log lines, newest last; follows its end unless scrolled up."""

    DEFAULT_CSS = """
    RunLog { height: 1fr; width: 1fr; background: transparent; scrollbar-size-vertical: 1; }
    """
    COMPONENT_CLASSES = {"log--time", "log--info", "log--warning", "log--error", "log--fix"}  # noqa: RUF012

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, max_lines=2000, wrap=True, markup=False, highlight=False, min_width=10)
        self._log: tuple[LogLine, ...] = ()
        self._count = 0
        self._conclusion: tuple[str, ...] = ()
        self._laid_out_for = 0

    def show(self, log: tuple[LogLine, ...], count: int, conclusion: tuple[str, ...]) -> None:
        """Show these lines: `count` is how many there ever were, so that only new ones are written. `conclusion` comes last."""
        new = count - self._count
        self._log, self._count = log, count
        self._write(log[len(log) - min(max(new, 0), len(log)) :])
        if conclusion != self._conclusion:
            self._conclusion = conclusion
            self._conclude()

    def on_resize(self, event: Resize) -> None:  # the base class's own handler runs after this one
        if self.size.width != self._laid_out_for:
            self._lay_out()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        if self._laid_out_for:
            self.call_after_refresh(self._lay_out)  # a new theme: colours are in the lines

    def _lay_out(self) -> None:
        """Write everything again, for this width and theme."""
        self._laid_out_for = self.size.width
        self.clear()
        self._write(self._log)
        self._conclude()

    def _conclude(self) -> None:
        for line in self._conclusion:
            self.write(Text(line, style="bold"), width=self._width)

    @property
    def _width(self) -> int:
        """Columns for a line. Left to itself, the base class wraps at the console's 80."""
        return max(12, self.scrollable_content_region.width or self.size.width)

    def _write(self, log: tuple[LogLine, ...]) -> None:
        for line in log:
            self.write(self._said(line), width=self._width, scroll_end=self.is_vertical_scroll_end)

    def _said(self, line: LogLine) -> Text:
        """A line with its wrapped rest hanging under its start; on a narrow screen without the seconds."""
        width = self._width
        stamp = time.strftime("%H:%M:%S " if width >= 50 else "%H:%M ", time.localtime(line.at))
        styles = {name: self.get_component_rich_style(f"log--{name}", partial=True) for name in ("time", line.level, "fix")}
        text = Text.assemble((stamp, styles["time"]), (f"{MARKS[line.level]} ", styles[line.level]))
        indent = " " * text.cell_len
        words = Text.assemble((line.text, styles[line.level]), (f" {line.fix}" if line.fix else "", styles["fix"]))
        rows = words.wrap(self.app.console, max(10, width - len(indent)))
        return text.append_text(Text("\n" + indent).join(rows))
