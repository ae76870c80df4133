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
    from rich.console import RenderableType
    from textual.app import ComposeResult

    from ltx2core.hardware.probe import Machine


TALL = 30  # rows from which parts of the machine stand apart


class HardwareScreen(Page):
    """Probes in a worker and shows what was found."""

    CSS_PATH = "hardware.tcss"
    step = 0
    title_word = "Hardware"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n,enter", "next", "Next", tooltip="The next page", show=False, id="hardware.next"),
        Binding("r", "look", "Look again", tooltip="Probe the machine again", id="hardware.look"),
        Binding("m", "measure", "Measure", tooltip="Measure how fast the GPU is, for about ten seconds", id="hardware.measure"),
        Binding("p", "plan", "Plan", tooltip="What this card, or another, can train", id="hardware.plan"),
        Binding("q", "app.leave", "Quit", tooltip="Leave the app", id="hardware.quit"),
    ]

    @dataclass
    class Probed(Message):
        """What this machine is."""

        machine: Machine

    @dataclass
    class Unmeasured(Message):
        """Why the GPU could not be measured."""

        text: str

    def __init__(self) -> None:
        super().__init__()
        self._machine: Machine | None = None

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

    @work(thread=True, exclusive=True, group="probe")
    def measure(self) -> None:
        """In a process of its own: what CUDA takes of the card, and loading torch, end with it."""
        from ltx2tui.measuring import MeasuringError, measured_machine

        try:
            self.post_message(self.Probed(measured_machine(self.ltx.root)))
        except MeasuringError as error:
            self.post_message(self.Unmeasured(error.text))

    @on(Unmeasured)
    def _say_unmeasured(self, message: Unmeasured) -> None:
        self.notify(message.text, severity="error", markup=False, timeout=12)
        self.probe()

    @on(Probed)
    def _show(self, message: Probed) -> None:
        self._machine = message.machine
        self.query_one("#machine", Static).update(self._table(message.machine))

    def on_resize(self) -> None:
        if self._machine is not None:
            self.query_one("#machine", Static).update(self._table(self._machine))

    def _table(self, machine: Machine) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        theme = self.app.theme_variables
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style=f"bold {theme['primary']}", no_wrap=True, width=11)
        table.add_column()
        for section in machine_sections(machine):
            text = Text(section.text, style="bold")
            for line in section.more:
                text.append(f"\n{line}", style=f"not bold {theme['text-quiet']}")
            for line in section.wrong:
                text.append(f"\n! {line}", style=f"not bold {theme['warning']}")
            if self.app.size.height >= TALL:
                text.append("\n")
            table.add_row(section.title, text)
        return table

    def relook(self) -> None:
        """Colours are in the table: draw it again in the new look."""
        self.probe()

    def action_look(self) -> None:
        self.probe()

    def action_measure(self) -> None:
        self.query_one("#machine", Static).update("Measuring: products, copies, and a block of LTX-2's shape …")
        self.measure()

    def action_next(self) -> None:
        from ltx2tui.screens.dataset import DatasetScreen

        self.app.push_screen(DatasetScreen())
