"""Page 1: what this machine is, and what that means for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widgets import Static

from ltx2tui.machine_lines import machine_sections
from ltx2tui.screens.wizard import Page
from ltx2tui.widgets.head import Head
from ltx2tui.widgets.keys import Keys

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from ltx2core.hardware.probe import Machine


class HardwareScreen(Page):
    """Probes in a worker and shows what was found."""

    CSS_PATH = "hardware.tcss"
    step = 0
    title_word = "Hardware"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n,enter", "next", "Next", tooltip="The next page", show=False, id="hardware.next"),
        Binding("r", "look", "Look again", tooltip="Probe the machine again", id="hardware.look"),
        Binding("q", "app.leave", "Quit", tooltip="Leave the app", id="hardware.quit"),
    ]

    @dataclass
    class Probed(Message):
        """What this machine is."""

        machine: Machine

    def compose(self) -> ComposeResult:
        yield Head("Hardware", step=self.step)
        with VerticalScroll(id="machine-box", classes="panel") as box:
            box.border_title = "This machine"
            yield Static("Looking at the machine …", id="machine")
        yield Keys()

    def on_mount(self) -> None:
        self.probe()

    @work(thread=True, exclusive=True, group="probe")
    def probe(self) -> None:
        self.post_message(self.Probed(self.ltx.probe()))

    @on(Probed)
    def _show(self, message: Probed) -> None:
        from rich.table import Table
        from rich.text import Text

        quiet = self.app.theme_variables["text-quiet"]
        primary = self.app.theme_variables["primary"]
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style=f"bold {primary}", no_wrap=True, width=14)
        table.add_column()
        for section in machine_sections(message.machine):
            text = Text(section.text, style="bold")
            for line in (*section.more, ""):
                text.append(f"\n{line}", style=f"not bold {quiet}")
            table.add_row(section.title, text)
        self.query_one("#machine", Static).update(table)

    def relook(self) -> None:
        """Colours are in the table: draw it again in the new look."""
        self.probe()

    def action_look(self) -> None:
        self.probe()

    def action_next(self) -> None:
        from ltx2tui.screens.dataset import DatasetScreen

        self.app.push_screen(DatasetScreen())
