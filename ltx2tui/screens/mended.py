"""What became of every clip when a folder was mended, and the question which folder to go on with."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Label, Static

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from ltx2core.data.repair.folder import Outcome

MOST_LINES = 2000  # in the dialog; the command names all


class MendedDialog(ModalScreen[bool]):
    """Dismisses with True for the new folder."""

    CSS_PATH = "mended.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("u,enter", "use", "Use it", tooltip="Go on with the mended folder", id="mended.use"),
        Binding("escape,o", "keep", "Keep the old one", tooltip="Go on with the folder as it was", id="mended.keep"),
        Binding("down", "scroll(1)", show=False, id="mended.down"),
        Binding("up", "scroll(-1)", show=False, id="mended.up"),
        Binding("pagedown", "scroll(10)", show=False, id="mended.page_down"),
        Binding("pageup", "scroll(-10)", show=False, id="mended.page_up"),
    ]

    def __init__(self, outcomes: Sequence[Outcome], folder: str) -> None:
        super().__init__()
        self._outcomes, self._folder = outcomes, folder

    def compose(self) -> ComposeResult:
        mended = [outcome for outcome in self._outcomes if outcome.outputs and outcome.did]
        left_out = [outcome for outcome in self._outcomes if not outcome.outputs]
        as_were = len(self._outcomes) - len(mended) - len(left_out)
        with Vertical(classes="dialog") as box:
            box.border_title = "Mended"
            said = f"{len(mended):,} mended, {as_were:,} taken over as they were, {len(left_out):,} left out. The originals are untouched."
            yield Static(said, markup=False, classes="dialog-text")
            yield VerticalScroll(Static(self._lines([*mended, *left_out]), markup=False), id="mended-lines", can_focus=False)
            yield Label(f"u goes on with {self._folder} · esc with the folder as it was", classes="quiet", markup=False)

    def _lines(self, outcomes: Sequence[Outcome]) -> Text:
        text = Text("\n").join(Text(outcome.line()) for outcome in outcomes[:MOST_LINES])
        if len(outcomes) > MOST_LINES:
            text.append(f"\nand {len(outcomes) - MOST_LINES:,} more: `ltx2tui check --fix` names all")
        return text

    def action_scroll(self, lines: int) -> None:
        self.query_one("#mended-lines").scroll_relative(y=lines, animate=False)

    def action_use(self) -> None:
        self.dismiss(True)

    def action_keep(self) -> None:
        self.dismiss(False)
