"""A column of levers, one a line: up and down choose one, left and right move it. Draws what it is given; whoever listens moves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.events import Click

    from ltx2tui.plan_sheet import Lever

_TITLE, _WORD, _MOST_TRACK = 11, 18, 24


class Levers(Widget, can_focus=True):
    """Shows levers. A move is only asked for: the levers change when `show` is called with them changed."""

    DEFAULT_CSS = """
    Levers { height: auto; width: 1fr; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"levers--title", "levers--word", "levers--here", "levers--track"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "choose(-1)", "Lever above", show=False, id="levers.up"),
        Binding("down,j", "choose(1)", "Lever below", show=False, id="levers.down"),
        Binding("left", "move(-1)", "Less", tooltip="Move the chosen lever down", show=False, id="levers.less"),
        Binding("right", "move(1)", "More", tooltip="Move the chosen lever up", show=False, id="levers.more"),
    ]

    @dataclass
    class Moved(Message):
        """A lever should go so many places on, from wherever it is by then: keys come faster than plans."""

        name: str
        by: int

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.levers: tuple[Lever, ...] = ()
        self.chosen = 0

    def show(self, levers: Sequence[Lever]) -> None:
        """Show these; the chosen line stays where it was."""
        shown = tuple(levers)
        if shown != self.levers:
            resized = len(shown) != len(self.levers)
            self.levers = shown
            self.chosen = min(self.chosen, max(0, len(shown) - 1))
            self.refresh(layout=resized)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        return max(1, len(self.levers))

    def render(self) -> Text:
        title, word, here, track = (
            self.get_component_rich_style(f"levers--{name}", partial=True) for name in ("title", "word", "here", "track")
        )
        lines = []
        for number, lever in enumerate(self.levers):
            chosen = number == self.chosen
            line = Text("› " if chosen else "  ", here if chosen else "", no_wrap=True)
            line.append(f"{lever.title:<{_TITLE}}", here if chosen else title)
            line.append("◂ " if lever.at else "  ", track)
            line.append(f"{lever.word[:_WORD]:<{_WORD}}", word)
            line.append("▸" if lever.at < len(lever.options) - 1 else " ", track)
            room = min(_MOST_TRACK, self.size.width - line.cell_len - 2)
            if room > len(lever.options) > 1:
                at = round(lever.at / (len(lever.options) - 1) * (room - 1))
                line.append("  " + "─" * at, track)
                line.append("●", here if chosen else word)
                line.append("─" * (room - 1 - at), track)
            lines.append(line)
        return Text("\n").join(lines)

    def action_choose(self, by: int) -> None:
        self.chosen = max(0, min(len(self.levers) - 1, self.chosen + by))
        self.refresh()

    def action_move(self, by: int) -> None:
        if self.levers:
            self.post_message(self.Moved(self.levers[self.chosen].name, by))

    def on_click(self, event: Click) -> None:
        """Left of a lever's word is less, right of it more."""
        if event.y < len(self.levers):
            self.chosen = event.y
            self.refresh()
            if event.x >= 2 + _TITLE:
                self.action_move(-1 if event.x < 4 + _TITLE else 1)
