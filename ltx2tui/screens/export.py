"""Where a plan is written: config.json, with its dataset list beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from ltx2core.config.exchange import own_files
from ltx2core.errors import Ltx2Error
from ltx2tui.exchanging import write_exchange

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from ltx2core.config.load import LoadedConfig


class ExportDialog(ModalScreen[None]):
    """Asks for the file and writes it. What is there already is never replaced: another name is asked for."""

    CSS_PATH = "export.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Cancel", id="export.cancel")]

    def __init__(self, loaded: LoadedConfig) -> None:
        super().__init__()
        self._loaded = loaded

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "Write this plan"
            yield Label("The config's file; its dataset list is written beside it")
            entry = Input("config.json", compact=True, id="export-file", select_on_focus=False)
            entry.cursor_blink = False
            yield entry
            yield Static("", id="export-problem", markup=False)
            yield Label("enter writes · esc cancels", classes="quiet")

    @on(Input.Submitted)
    def _write(self, event: Input.Submitted) -> None:
        name = event.value.strip()
        if not name.endswith(".json"):
            self._say("Name a file that ends in .json, such as config.json.")
            return
        out = Path(name).expanduser()
        listed = "datasets.json" if out.stem == "config" else f"{out.stem}-datasets.json"
        try:
            files = write_exchange(own_files(self._loaded), out, list_name=listed, reader_starts_here=False)
        except Ltx2Error as error:
            self._say(error.text if "exists" in error.text else f"{error.text} {error.fix}".strip())
            return
        self.app.notify(f"Written: {' and '.join(str(file) for file in files)}.", markup=False, timeout=8)
        self.dismiss(None)

    def _say(self, text: str) -> None:
        self.query_one("#export-problem", Static).update(f"✕ {text}")

    def action_cancel(self) -> None:
        self.dismiss(None)
