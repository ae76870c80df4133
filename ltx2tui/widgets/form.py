"""A form that walks config fields: the annotation picks the control, the title is the label, the description helps, pydantic judges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args, get_origin

from textual import on
from textual.containers import Horizontal, VerticalScroll
from textual.message import Message
from textual.widgets import Input, Label, Select, Static

from ltx2tui.draft import FORM, Draft, Value, field_of, problem_with
from ltx2tui.reading import read_value, shown

if TYPE_CHECKING:
    from textual.app import ComposeResult


class FieldRow(Horizontal):
    """One field: its title, its control, and on the right what is wrong with it."""

    @dataclass
    class Changed(Message):
        """A value that can stand was given."""

        path: str
        value: Value

    @dataclass
    class Entered(Message):
        """The field has the focus now."""

        path: str

    def __init__(self, path: str, value: Value) -> None:
        super().__init__(classes="field")
        self.path = path
        self._value = value
        _, self.key, self._field = field_of(path)

    def compose(self) -> ComposeResult:
        yield Label(self._field.title or self.key, classes="field-title")
        choices = _choices(self._field.annotation)
        if choices:
            yield Select([(choice, choice) for choice in choices], value=str(self._value), allow_blank=False, compact=True)
        elif isinstance(self._value, bool):  # words, not a switch: that is two blocks which only colour tells apart
            yield Select([("yes", True), ("no", False)], value=self._value, allow_blank=False, compact=True)
        else:
            control = Input(shown(self._value), placeholder="automatic", compact=True, select_on_focus=False)
            control.cursor_blink = False
            yield control
        yield Static("", classes="field-problem", markup=False)

    def set(self, value: Value) -> None:
        """Show another value, unless the user is in the field."""
        if self.has_focus_within:
            return
        self._value = value
        for control in self.query("Input, Select"):
            with control.prevent(Input.Changed, Select.Changed):
                control.value = shown(value) if isinstance(control, Input) else value  # type: ignore[attr-defined]
        self._judge(value)

    @property
    def problem(self) -> str:
        return problem_with(self.path, self._value)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self._take(read_value(event.value, self._field.annotation))

    @on(Select.Changed)
    def _selected(self, event: Select.Changed) -> None:
        event.stop()
        if isinstance(event.value, str | bool):
            self._take(event.value)

    def on_descendant_focus(self) -> None:
        self.post_message(self.Entered(self.path))

    def _take(self, value: Value) -> None:
        self._value = value
        if not self._judge(value):
            self.post_message(self.Changed(self.path, value))

    def _judge(self, value: Value) -> str:
        problem = problem_with(self.path, value)
        self.set_class(bool(problem), "-wrong")
        self.query_one(".field-problem", Static).update(f"✕ {problem}" if problem else "")
        return problem


class Form(VerticalScroll, can_focus=False):
    """Every field of draft.FORM in its groups."""

    def __init__(self, draft: Draft) -> None:
        super().__init__()
        self._draft = draft

    def compose(self) -> ComposeResult:
        for group, paths in FORM:
            yield Label(group, classes="field-group")
            for path in paths:
                yield FieldRow(path, self._draft.value(path))

    def show(self, draft: Draft) -> None:
        """Show another draft; the field that is being typed in stays as it is."""
        self._draft = draft
        for row in self.query(FieldRow):
            row.set(draft.value(row.path))

    @property
    def problems(self) -> list[tuple[FieldRow, str]]:
        return [(row, row.problem) for row in self.query(FieldRow) if row.problem]


def help_for(path: str, draft: Draft) -> tuple[str, str]:
    """(what a field is, its key and rules) for the help under the form."""
    _, key, field = field_of(path)
    rules = [f"{word} {rule}" for part in field.metadata for name, word in _RULES if (rule := getattr(part, name, None)) is not None]
    start = Draft(set_values={"pretrained_model_name_or_path": draft.value("pretrained_model_name_or_path")})
    usual = shown(start.value(path)) or "automatic"
    return field.description or "", " · ".join([key, *rules, f"usually {usual}"])


_RULES = (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below"))


def _choices(annotation: object) -> list[str]:
    return [str(choice) for choice in get_args(annotation)] if get_origin(annotation) is Literal else []
