"""A clip's caption, to be edited in place: saved whole or not at all, in the file's own encoding and newlines."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Label, Static, TextArea

from ltx2core.data.caption_file import CaptionFile, save_caption
from ltx2core.errors import Ltx2Error
from ltx2tui.widgets.thumbnail import Thumbnail

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from textual.app import ComposeResult


class CaptionEditor(ModalScreen[bool]):
    """Dismisses with whether the file was written. Leaving with changes asks once, by saying so."""

    CSS_PATH = "caption_editor.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+o", "save", "Save", tooltip="Write the caption and close", id="caption.save", priority=True),
        Binding("escape", "leave", "Cancel", tooltip="Close; twice when there are changes", id="caption.leave", priority=True),
    ]

    def __init__(
        self, file: CaptionFile, *, clip: Path | None, split_lines: bool, count: Callable[[str], int], limit: int, exact: bool
    ) -> None:
        """clip: to be played beside its caption; None for one that cannot be."""
        super().__init__()
        self._file, self._clip, self._split_lines = file, clip, split_lines
        self._count, self._limit, self._exact = count, limit, exact
        self._warned = False
        self._shown = ""  # the text as the area has it, which knows fewer kinds of line breaks than files do

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = self._file.path.name
            with Horizontal(id="caption-beside"):
                yield Thumbnail(nothing="", id="caption-picture")
                area = TextArea(self._file.text, soft_wrap=True, show_line_numbers=False, id="caption-text", compact=True)
                area.cursor_blink = False
                yield area
            yield Static("", id="caption-count", markup=False)
            yield Static("", id="caption-trouble", markup=False)
            yield Label("ctrl+o saves · esc cancels", classes="quiet")

    def on_mount(self) -> None:
        self.query_one(Thumbnail).show(self._clip)
        area = self.query_one(TextArea)
        self._shown = area.text
        area.focus()
        area.move_cursor(area.document.end)
        self._say_count()

    @on(TextArea.Changed)
    def _say_count(self) -> None:
        self._warned = False
        text = self.query_one(TextArea).text
        captions = [line for line in text.splitlines() if line.strip()] if self._split_lines else [text] if text.strip() else []
        tokens = max((self._count(caption) for caption in captions), default=0)
        about = "" if self._exact else "about "
        several = f", {len(captions)} captions, a line each" if len(captions) > 1 else ""
        line = self.query_one("#caption-count", Static)
        line.update(f"{about}{tokens:,} of {self._limit:,} tokens{several}" if captions else "No caption yet.")
        line.set_class(tokens > self._limit or not captions, "-wrong")
        self._say("")

    def _say(self, text: str) -> None:
        self.query_one("#caption-trouble", Static).update(text)

    def action_save(self) -> None:
        text = self.query_one(TextArea).text
        if text == self._shown:
            self.dismiss(False)
            return
        try:
            changed = save_caption(self._file, text)
        except Ltx2Error as error:
            self._say(str(error))
            return
        if changed:
            self.app.notify(f"{self._file.path.name} is UTF-8 now: its encoding had not all of these letters.")
        self.dismiss(True)

    def action_leave(self) -> None:
        if self.query_one(TextArea).text != self._shown and not self._warned:
            self._warned = True
            self._say("There are changes: esc again throws them away, ctrl+o saves them.")
            return
        self.dismiss(False)
