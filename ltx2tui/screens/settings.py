"""Page 3: the settings that most runs change. The form comes from the config's own fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input, Static

from ltx2tui.screens.wizard import Page
from ltx2tui.widgets.form import FieldRow, Form, help_for
from ltx2tui.widgets.head import Head
from ltx2tui.widgets.keys import Keys

if TYPE_CHECKING:
    from textual.app import ComposeResult

WIDE = 120


class SettingsScreen(Page):
    """A form; the field that has the focus is explained under it."""

    CSS_PATH = "settings.tcss"
    step = 2
    title_word = "Settings"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r", "reset", "Usual value", tooltip="Give this field its usual value again", id="settings.reset"),
        Binding("ctrl+l", "plan", "Plan", tooltip="What these settings need on a card, and what would be better", id="settings.plan"),
        Binding("up", "app.focus_previous", "Up", show=False, id="settings.up"),
        Binding("down", "app.focus_next", "Down", show=False, id="settings.down"),
    ]

    def compose(self) -> ComposeResult:
        yield Head("Settings", step=self.step)
        yield Form(self.draft)
        with Vertical(id="help", classes="panel"):
            yield Static("", id="help-text", markup=False)
            yield Static("", id="help-rules", classes="quiet", markup=False)
        yield Keys()

    def on_mount(self) -> None:
        self._path = ""
        next(iter(self.query(FieldRow))).query_one(Input).focus()

    def on_screen_resume(self) -> None:
        self.query_one(Form).show(self.draft)  # a plan may have changed it

    def on_resize(self) -> None:
        self.set_class(self.app.size.width >= WIDE, "-wide")

    @on(FieldRow.Entered)
    def _explain(self, message: FieldRow.Entered) -> None:
        self._path = message.path
        text, rules = help_for(message.path, self.draft)
        self.query_one("#help").border_title = f"{self._title(message.path)}"
        self.query_one("#help-text", Static).update(text)
        self.query_one("#help-rules", Static).update(rules)

    def _title(self, path: str) -> str:
        from ltx2tui.draft import field_of

        return field_of(path)[2].title or path

    @on(FieldRow.Changed)
    def _changed(self, message: FieldRow.Changed) -> None:
        was_nano = self.draft.is_nano
        self.keep(self.draft.having(message.path, message.value))
        if self.draft.is_nano != was_nano:
            self.query_one(Form).show(self.draft)

    def action_reset(self) -> None:
        if not self._path:
            return
        from dataclasses import replace

        rest = {path: value for path, value in self.draft.set_values.items() if path != self._path}
        self.keep(replace(self.draft, set_values=rest))
        self.set_focus(None)
        form = self.query_one(Form)
        form.show(self.draft)
        row = next(row for row in self.query(FieldRow) if row.path == self._path)
        row.query("Input, Select").first().focus()

    def action_next(self) -> None:
        problems = self.query_one(Form).problems
        if problems:
            row, text = problems[0]
            row.query("Input, Select").first().focus()
            self.notify(text, severity="warning", markup=False)
            return
        from ltx2tui.screens.review import ReviewScreen

        self.app.push_screen(ReviewScreen())
