"""Questions and help over a screen. Each is typed by its answer; escape is always the harmless one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from rich.table import Table
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Label, OptionList, Static
from textual.widgets.option_list import Option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult
    from textual.screen import Screen

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Choice(Generic[Answer]):
    """One answer: its key, what it does, and a line that says what follows."""

    key: str
    text: str
    follows: str
    answer: Answer


class Question(ModalScreen[Answer | None], Generic[Answer]):
    """Asks; dismisses with the chosen answer, or None for escape. Letters choose at once, arrows and enter as well."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss_none", "Cancel", id="question.cancel")]

    def __init__(self, title: str, text: str, choices: Sequence[Choice[Answer]]) -> None:
        super().__init__()
        self._title, self._text, self._choices = title, text, tuple(choices)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = self._title
            yield Static(self._text, markup=False, classes="dialog-text", id="question-text")
            yield OptionList(*(Option(self._line(choice)) for choice in self._choices))
            yield Label("↑ ↓ enter, or the letter · esc cancels", classes="quiet")

    def say(self, text: str) -> None:
        """Say something else above the choices."""
        if text != self._text:
            self._text = text
            self.query_one("#question-text", Static).update(text)

    def _line(self, choice: Choice[Answer]) -> str:
        from rich.markup import escape

        return f"[b]{escape(choice.key)}[/b]  {escape(choice.text)}\n   [dim]{escape(choice.follows)}[/dim]"

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._choices[event.option_index].answer)

    def on_key(self, event: object) -> None:
        key = getattr(event, "key", "")
        for choice in self._choices:
            if choice.key == key:
                self.dismiss(choice.answer)

    def action_dismiss_none(self) -> None:
        self.dismiss(None)


class Help(ModalScreen[None]):
    """Every key of the screen below, from its own bindings."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q", "close", "Close", id="help.close")]

    def __init__(self, screen: Screen[Any], title: str) -> None:
        super().__init__()
        self._below, self._title = screen, title

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog") as box:
            box.border_title = f"Keys · {self._title}"
            box.border_subtitle = "esc closes"
            yield Static(self._table())

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(style="dim")
        rows: dict[str, tuple[list[str], Binding]] = {}
        for _, binding in [*self._below._bindings, *self._below.app._bindings]:
            if binding.description and not binding.system and "copy_text" not in binding.action:
                rows.setdefault(binding.id or binding.action, ([], binding))[0].append(self.app.get_key_display(binding))
        for keys, one in rows.values():
            table.add_row(" ".join(dict.fromkeys(keys)), one.description, one.tooltip)
        return table

    def action_close(self) -> None:
        self.dismiss(None)


class Trouble(ModalScreen[None]):
    """A failure: what happened and what would work. Nothing else can be done about it here."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q", "close", "Close", id="trouble.close")]

    def __init__(self, title: str, text: str, fix: str) -> None:
        super().__init__()
        self._title, self._text, self._fix = title, text, fix

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog -trouble") as box:
            box.border_title = self._title
            box.border_subtitle = "esc closes"
            yield Static(self._text, markup=False)
            if self._fix:
                yield Static(self._fix, markup=False, classes="dialog-fix")

    def action_close(self) -> None:
        self.dismiss(None)
