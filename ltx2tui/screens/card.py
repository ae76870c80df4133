"""The question for another machine: a card by its name or its memory, and RAM."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from ltx2core.errors import ConfigError
from ltx2core.planning.hardware import Hardware, hardware_named

if TYPE_CHECKING:
    from textual.app import ComposeResult


class CardDialog(ModalScreen[Hardware | None]):
    """Dismisses with the machine that was described; None for escape. What is wrong is said under the fields, and nothing typed is lost."""

    CSS_PATH = "card.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Cancel", id="card.cancel")]

    def __init__(self, ram_gib: int) -> None:
        super().__init__()
        self._ram_gib = ram_gib

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "Plan for another card"
            yield Label("Its name, such as 4070 or RTX 3080 10GB, or its memory in GiB")
            yield self._input("", "card-name")
            yield Label("RAM of its machine in GiB")
            yield self._input(str(self._ram_gib), "card-ram")
            yield Static("", id="card-problem", markup=False)
            yield Label("enter plans for it · tab to the other field · esc cancels", classes="quiet")

    def _input(self, value: str, name: str) -> Input:
        entry = Input(value, compact=True, id=name, select_on_focus=False)
        entry.cursor_blink = False
        return entry

    @on(Input.Submitted)
    def _take(self) -> None:
        name, ram = (self.query_one(f"#{field}", Input).value.strip() for field in ("card-name", "card-ram"))
        try:
            self.dismiss(described(name, ram))
        except ConfigError as error:
            self.query_one("#card-problem", Static).update("✕ " + error.text.replace("--card ", "").replace("--", ""))

    def action_cancel(self) -> None:
        self.dismiss(None)


def described(card: str, ram: str) -> Hardware:
    """The machine of a card's name, or its memory alone, and RAM. Raises ConfigError."""
    memory = _number(card)
    ram_gib = _number(ram)
    if ram and ram_gib is None:
        raise ConfigError([f"RAM = {ram}: a number of GiB belongs here; use 64."])
    if not card:
        raise ConfigError(["No card is named; type a name such as RTX 4090, or its memory in GiB."])
    if memory is not None and memory >= 1000:  # 4090 is a name
        memory = None
    return hardware_named(None if memory is not None else card, gpu_memory_gib=memory, ram_gib=ram_gib)


def _number(text: str) -> float | None:
    try:
        return float(text.lower().removesuffix("gib").removesuffix("gb"))
    except ValueError:
        return None
