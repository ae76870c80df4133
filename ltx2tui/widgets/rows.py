"""What is drawn cell by cell: rows of characters and the component classes that colour them. Redraws only the cells that changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

if TYPE_CHECKING:
    from rich.style import Style

Row = list[tuple[str, str]]  # (character, component class) of each cell


class Rows(Widget):
    """Shows what `drawn` gives. Whoever changes what that depends on calls `draw`."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._rows: list[Row] = []

    def drawn(self, width: int, height: int) -> list[Row]:
        """`height` rows of `width` cells, or none where there is no room."""
        raise NotImplementedError

    def draw(self) -> None:
        """Draw anew; cells that stay the same are not sent."""
        width, height = self.size
        rows = self.drawn(width, height) if width and height else []
        old, self._rows = self._rows, rows
        if len(old) != len(rows) or any(len(a) != len(b) for a, b in zip(old, rows, strict=True)):
            self.refresh()
            return
        for y, (before, after) in enumerate(zip(old, rows, strict=True)):
            if before != after:
                changed = [x for x in range(len(after)) if before[x] != after[x]]
                self.refresh(Region(changed[0], y, changed[-1] - changed[0] + 1, 1))

    def on_resize(self) -> None:
        self._rows = []
        self.draw()

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


def message(width: int, height: int, text: str) -> list[Row]:
    """A sentence in the middle of nothing."""
    rows: list[Row] = [[(" ", "")] * width for _ in range(height)]
    text = text[:width]
    start = (width - len(text)) // 2
    for offset, character in enumerate(text):
        rows[height // 2][start + offset] = (character, "chart--empty")
    return rows


def written(parts: list[tuple[str, str]], width: int) -> Row:
    """Words of several classes as one row, cut or filled to a width."""
    row: Row = [(character, name) for text, name in parts for character in text]
    return (row + [(" ", "")] * width)[:width]
