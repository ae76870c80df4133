"""Which clips the table shows: all, those left out, or those with one problem."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.markup import escape
from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Label, OptionList
from textual.widgets.option_list import Option

from ltx2core.data.clip import PROBLEM_CODES
from ltx2tui import words
from ltx2tui.clip_list import ALL, LEFT_OUT, WARNED

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from ltx2tui.clip_list import ClipList


_LEVELS = ("error", "warning", "info")


class FilterDialog(ModalScreen["str | None"]):
    """Dismisses with a filter of ClipList, None for escape."""

    CSS_PATH = "clip_filter.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f", "leave", "Cancel", id="filter.leave")]

    def __init__(self, clips: ClipList) -> None:
        super().__init__()
        counted = [(ALL, len(clips)), (LEFT_OUT, len(clips) - clips.usable), (WARNED, clips.warned)]
        counted += sorted(clips.counted(), key=lambda one: _LEVELS.index(PROBLEM_CODES[one[0]].partition(":")[0]))  # the worst first
        self._choices = [(wanted, count) for wanted, count in counted if count or wanted == ALL]
        self._present = clips.filter

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "Show"
            yield OptionList(*(Option(self._line(wanted, count)) for wanted, count in self._choices), id="filters")
            yield Label("↑ ↓ enter · esc cancels", classes="quiet")

    def on_mount(self) -> None:
        options = self.query_one(OptionList)
        names = [wanted for wanted, _ in self._choices]
        options.highlighted = names.index(self._present) if self._present in names else 0
        options.focus()

    def _line(self, wanted: str, count: int) -> str:
        own = {ALL: ("all clips", ""), LEFT_OUT: ("left out of training", ""), WARNED: ("with an error or a warning", "")}
        name, more = own.get(wanted) or (wanted.replace("_", " "), PROBLEM_CODES[wanted])
        return f"[b]{escape(name)}[/b]  {words.count(count, 'clip')}" + (f"\n   [dim]{escape(more)}[/dim]" if more else "")

    @on(OptionList.OptionSelected)
    def _take(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._choices[event.option_index][0])

    def action_leave(self) -> None:
        self.dismiss(None)
