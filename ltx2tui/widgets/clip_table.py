"""The table of clips: draws the lines that are on screen and no other, so that 100,000 clips cost what twenty do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from ltx2tui.clip_list import SORT_KEYS, ClipFacts, ClipList, SortKey

if TYPE_CHECKING:
    from rich.style import Style
    from textual import events

MARKS = {"error": "✕", "warning": "!", "info": "·"}
WIDTHS: dict[SortKey, int] = {"size": 9, "frames": 6, "fps": 5, "length": 6, "sound": 5, "tokens": 6, "bucket": 12, "notes": 20}
NARROW: tuple[SortKey, ...] = ("clip", "size", "notes")
_GAP = 2
_LEAST_NAME = 14


class ClipTable(ScrollView, can_focus=True):
    """Shows a ClipList. The chosen line is marked by a sign, not by colour alone."""

    DEFAULT_CSS = """
    ClipTable { height: 1fr; width: 1fr; background: transparent; overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; }
    """
    COMPONENT_CLASSES = {  # noqa: RUF012
        *("clip-table--head", "clip-table--quiet", "clip-table--error", "clip-table--warning", "clip-table--cursor", "clip-table--blurred"),
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False, id="clips.up"),
        Binding("down,j", "move(1)", "Down", show=False, id="clips.down"),
        Binding("pageup", "page(-1)", "Page up", show=False, id="clips.page_up"),
        Binding("pagedown", "page(1)", "Page down", show=False, id="clips.page_down"),
        Binding("home", "jump(0)", "First", show=False, id="clips.first"),
        Binding("end", "jump(-1)", "Last", show=False, id="clips.last"),
    ]

    @dataclass
    class Chosen(Message):
        """The cursor is on another clip, or on none."""

        number: int | None

    @dataclass
    class SortWanted(Message):
        """A column's head was clicked."""

        key: SortKey

    def __init__(self, clips: ClipList, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.clips = clips
        self._cursor = 0  # a place among those shown
        self._moved = False
        self.chosen: int | None = None
        self._columns: tuple[tuple[SortKey, int], ...] = ()

    def show(self, clips: ClipList) -> None:
        """Show a list, or the same one with other contents.

        The cursor stays on its clip where that is still shown; in a list in which nobody has moved it yet, on the first line.
        """
        if clips is not self.clips:
            self._moved = False
        self.clips = clips
        self.virtual_size = Size(self.size.width, len(clips.shown) + 1)
        self._choose(clips.place_of(self.chosen) if self._moved else 0, scroll=False)
        self.refresh()

    def redraw(self) -> None:
        """Draw again what is there: facts changed, their order did not."""
        self.refresh()

    def on_resize(self) -> None:
        self._columns = self._lay_out(self.size.width)
        self.virtual_size = Size(self.size.width, len(self.clips.shown) + 1)

    def _lay_out(self, width: int) -> tuple[tuple[SortKey, int], ...]:
        """The columns and their widths: all of them where there is room, else few, with the bucket among the notes."""
        keys = SORT_KEYS if width - _taken(SORT_KEYS) >= _LEAST_NAME else NARROW
        name = max(width - _taken(keys), _LEAST_NAME)
        return tuple((key, name if key == "clip" else WIDTHS[key]) for key in keys)

    # -- the cursor

    def _choose(self, place: int, *, scroll: bool = True) -> None:
        shown = self.clips.shown
        before = self._cursor
        self._cursor = max(0, min(place, len(shown) - 1))
        number = shown[self._cursor] if shown else None
        self._moved = self._moved or scroll
        if number != self.chosen:
            self.chosen = number
            self.post_message(self.Chosen(number))
        if scroll:
            self._refresh_line(before)
            self._refresh_line(self._cursor)
            room = self.size.height - 1
            if self._cursor < self.scroll_offset.y:
                self.scroll_to(y=self._cursor, animate=False)
            elif self._cursor >= self.scroll_offset.y + room:
                self.scroll_to(y=self._cursor - room + 1, animate=False)

    def _refresh_line(self, place: int) -> None:
        self.refresh(Region(0, place - self.scroll_offset.y + 1, self.size.width, 1))

    def choose_number(self, number: int) -> None:
        """Put the cursor on a clip."""
        self._choose(self.clips.place_of(number))

    def action_move(self, by: int) -> None:
        self._choose(self._cursor + by)

    def action_page(self, by: int) -> None:
        self._choose(self._cursor + by * max(self.size.height - 2, 1))

    def action_jump(self, place: int) -> None:
        self._choose(place if place >= 0 else len(self.clips.shown) - 1)

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            x = _GAP
            for key, width in self._columns:
                if event.x < x + width + _GAP:
                    self.post_message(self.SortWanted(key))
                    return
                x += width + _GAP
        elif (place := event.y - 1 + self.scroll_offset.y) < len(self.clips.shown):
            self._choose(place)

    # -- drawing

    def render_line(self, y: int) -> Strip:
        if y == 0:
            return self._head()
        place = y - 1 + self.scroll_offset.y
        if place >= len(self.clips.shown):
            return Strip.blank(self.size.width, self.rich_style)
        facts = self.clips[self.clips.shown[place]]
        cursor = place == self._cursor
        base = self.rich_style
        if cursor:  # the whole style: a part of one would not mix its background with what is under it
            base = self.get_component_rich_style("clip-table--cursor" if self.has_focus else "clip-table--blurred")
        if not facts.usable:
            base = base + self.get_component_rich_style("clip-table--quiet", partial=True)
        segments = [Segment("› " if cursor else "  ", base)]
        for key, width in self._columns:
            text = _cell(facts, key)
            if key == "notes" and not text and len(self._columns) < len(SORT_KEYS):
                text = facts.bucket
            segments.append(Segment(_fit(text, width, from_end=key == "clip") + " " * _GAP, base + self._colour(facts, key)))
        return Strip(segments).adjust_cell_length(self.size.width, base)

    def _head(self) -> Strip:
        style = self.rich_style + self.get_component_rich_style("clip-table--head", partial=True)
        text = "  "
        for key, width in self._columns:
            sign = (" ▾" if self.clips.reverse else " ▴") if key == self.clips.sort_key else ""
            text += _fit(key[: max(width - len(sign), 1)] + sign, width) + " " * _GAP
        return Strip([Segment(text, style)]).adjust_cell_length(self.size.width, style)

    def _colour(self, facts: ClipFacts, key: SortKey) -> Style:
        from rich.style import Style as RichStyle

        if key == "notes" and facts.level in ("error", "warning"):
            return self.get_component_rich_style(f"clip-table--{facts.level}", partial=True)
        return RichStyle.null()


def _taken(keys: tuple[SortKey, ...]) -> int:
    """Cells that the columns beside the name take, with the gaps after all of them but the last, and the cursor's sign."""
    return _GAP + sum(WIDTHS[key] + _GAP for key in keys if key != "clip")


def _cell(facts: ClipFacts, key: SortKey) -> str:
    """What a column says of a clip; a dash for what could not be read."""
    if key == "clip":
        return facts.name
    if key == "notes":
        return notes(facts)
    if key == "bucket":
        return facts.bucket or "left out"
    if not facts.width:
        return "–"
    cells: dict[str, str] = {
        "size": f"{facts.width}x{facts.height}",
        "frames": str(facts.frames),
        "fps": f"{facts.fps:.4g}",
        "length": f"{facts.seconds:.1f} s",
        "sound": f"{facts.hertz / 1000:g}k" if facts.hertz else "none",
        "tokens": str(facts.tokens) if facts.tokens else "–",
    }
    return cells[key]


def notes(facts: ClipFacts) -> str:
    """The worst that is said of a clip, and how much more there is: `! hard cut +2`. Remarks are left for the panel beside."""
    if facts.level not in ("error", "warning"):
        return "" if facts.usable else "✕ left out"
    more = f" +{len(facts.codes) - 1}" if len(facts.codes) > 1 else ""
    return f"{MARKS[facts.level]} {facts.codes[0].replace('_', ' ')}{more}"


def _fit(text: str, width: int, *, from_end: bool = False) -> str:
    """Exactly so many cells: padded, or cut with an ellipsis, of a path at its beginning."""
    if (length := cell_len(text)) <= width:
        return text + " " * (width - length)
    if not from_end:
        return set_cell_size(text, width - 1) + "…"
    while cell_len(text) > width - 1:
        text = text[1:]
    return set_cell_size("…" + text, width)
