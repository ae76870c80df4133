"""Memory over the last minutes as bars of eighths, one sample a column; the newest is on the right. Draws what it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from ltx2tui.series import Series
from ltx2tui.words import size

if TYPE_CHECKING:
    from collections.abc import Sequence

GIB = 1 << 30
EIGHTHS = " ▁▂▃▄▅▆▇█"


class MemoryGraph(Widget):
    """One kind of memory: a line of text (now, peak, limit) over its history."""

    DEFAULT_CSS = """
    MemoryGraph { height: 1fr; width: 1fr; }
    """
    COMPONENT_CLASSES = {"memory--label", "memory--text", "memory--bar", "memory--full"}  # noqa: RUF012

    def __init__(self, label: str, *, nothing: str, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.label = label
        self.nothing = nothing  # said while there is no sample
        self.used = Series()
        self.total = 0
        self.peak = 0
        self.note = ""

    def show(self, used: Series, *, total: int, peak: int, note: str = "") -> None:
        """Show bytes in use by sample, out of `total`."""
        if (len(used), total, peak, note) != (len(self.used), self.total, self.peak, self.note):
            self.used, self.total, self.peak, self.note = used, total, peak, note
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width, height = self.size
        if y == 0:
            return self._headline(width)
        if not len(self.used) or not self.total:
            return Strip.blank(width, self.rich_style)
        recent = self.used.values(max(0, len(self.used) - width))
        line = bar_row([value / self.total for value in recent], row=y - 1, height=height - 1).rjust(width)
        full = recent[-1] > 0.92 * self.total
        return Strip([Segment(line, self.get_component_rich_style("memory--full" if full else "memory--bar"))], width)

    def _headline(self, width: int) -> Strip:
        last = self.used.last
        if last is None or not self.total:
            text = self.nothing
        else:
            parts = [
                f"{size(int(last))} of {size(self.total)}" if int(last) < 1000 << 20 else f"{last / GIB:.1f} of {self.total / GIB:.1f} GiB",
                f"peak {size(self.peak)}",
                *([self.note] if self.note else []),
            ]
            text = parts[0]
            for part in parts[1:]:  # what does not fit is left out, whole
                if len(self.label) + 2 + len(text) + 3 + len(part) <= width:
                    text += f" · {part}"
        label = f"{self.label}  "
        segments = [
            Segment(label, self.get_component_rich_style("memory--label")),
            Segment(text[: width - len(label)], self.get_component_rich_style("memory--text")),
        ]
        return Strip(segments).adjust_cell_length(width, self.rich_style)


def bar_row(parts: Sequence[float], *, row: int, height: int) -> str:
    """One row (0 on top) of a bar graph `height` rows tall; each part is 0..1. Anything above nothing shows a sliver."""
    above = (height - 1 - row) * 8
    return "".join(EIGHTHS[max(0, min(8, max(round(part * height * 8), 1 if part > 0 else 0) - above))] for part in parts)
