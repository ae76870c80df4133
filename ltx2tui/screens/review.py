"""Page 4: everything that will be done, before anything is spent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.message import Message
from textual.widgets import Input, Static

from ltx2core.errors import Ltx2Error
from ltx2core.runs.folder import NAME_RULE, RunFolder
from ltx2tui.draft import FORM, PLANNED, field_of
from ltx2tui.launches import draft_launch, new_name
from ltx2tui.reading import shown
from ltx2tui.screens.wizard import Step
from ltx2tui.widgets.head import Head
from ltx2tui.widgets.keys import Keys

if TYPE_CHECKING:
    from rich.console import RenderableType
    from textual.app import ComposeResult

    from ltx2core.config.load import LoadedConfig
    from ltx2core.runs.events import Notice

WIDE = 100
MARKS = {"info": "·", "warning": "!", "error": "✕"}


class ReviewScreen(Step):
    """The whole config, what was noticed in it, and where the run writes."""

    CSS_PATH = "review.tcss"
    step = 3
    title_word = "Review"
    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "start", "Start", tooltip="Start the run in this app", id="review.start"),
        Binding(
            "ctrl+n", "start", "Start", tooltip="Start the run, while typing its name", show=False, priority=True, id="review.start_typing"
        ),
        Binding("r", "name", "Rename", tooltip="Give the run another name", id="review.name"),
        Binding("p", "plan", "Plan", tooltip="What this run needs on a card, and what would be better", id="review.plan"),
        Binding(
            "w",
            "write",
            "Write files",
            tooltip="Write config.json and datasets.json into this folder, to train from the command line",
            id="review.write",
        ),
        Binding("escape", "back", "Back", tooltip="The page before; nothing is lost", id="wizard.back"),
        Binding("question_mark", "help", "Help", tooltip="This list", id="wizard.help"),
    ]

    @dataclass
    class Checked(Message):
        """The config as it loads, or what is wrong with it."""

        loaded: LoadedConfig | None
        trouble: Ltx2Error | None = None
        warnings: tuple[Notice, ...] = ()  # of this machine

    def __init__(self) -> None:
        super().__init__()
        self._loaded: LoadedConfig | None = None
        self._checked: ReviewScreen.Checked | None = None

    def compose(self) -> ComposeResult:
        yield Head("Review", step=self.step)
        with Horizontal(id="name-row"):
            yield Static("Name of the run", id="name-label")
            entry = Input(new_name("lora"), compact=True, id="run-name", select_on_focus=False)
            entry.cursor_blink = False
            yield entry
        yield Static("", id="where", classes="quiet", markup=False)
        with VerticalScroll(id="review", classes="panel", can_focus=True) as box:
            box.border_title = "What will be done"
            yield Static("Checking …", id="review-text")
        yield Keys()

    def on_mount(self) -> None:
        self._say_where()

    def on_screen_resume(self) -> None:
        self.check()  # a plan may have changed the draft

    @work(thread=True, exclusive=True, group="review", exit_on_error=False)
    def check(self) -> None:
        from ltx2core.planning.before_run import warnings_of  # here: the first screen does not wait for the planner

        try:
            loaded = self.draft.loaded(Path.cwd())
            self.post_message(
                self.Checked(loaded, warnings=tuple(warnings_of(self.ltx.probe(measure_disk=False), loaded, root=self.ltx.root)))
            )
        except Ltx2Error as error:
            self.post_message(self.Checked(None, error))

    @on(Checked)
    def _show(self, message: Checked) -> None:
        self._checked, self._loaded = message, message.loaded
        self.query_one("#review-text", Static).update(self._table(message))
        self.refresh_bindings()

    def _table(self, message: Checked) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        theme = self.app.theme_variables
        parts: list[RenderableType] = []
        if message.trouble is not None:
            parts.append(Text(f"✕ {message.trouble.text} {message.trouble.fix}".rstrip() + "\n", style=f"bold {theme['error']}"))
        elif message.loaded is not None:
            for notice in (*message.warnings, *message.loaded.notices):
                colour = theme["warning" if notice.level == "warning" else "error" if notice.level == "error" else "text-quiet"]
                parts.append(Text(f"{MARKS[notice.level]} {notice.text} {notice.fix}".rstrip(), style=colour))
            if parts:
                parts.append(Text(""))
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style=theme["primary"], no_wrap=True)
        table.add_column(style="bold")
        table.add_column(style=theme["text-quiet"])
        wide = self.app.size.width >= WIDE  # a narrow screen has no room for the keys: the settings page tells them
        table.add_row("Clips", self.draft.folder, "instance_data_dir" if wide else "")
        for group, paths in (*FORM, ("Held as planned", [path for path in PLANNED if path in self.draft.set_values])):
            if not paths:
                continue
            table.add_row(Text(f"\n{group}", style=f"bold {theme['text-quiet']}"))
            for path in paths:
                _, key, field = field_of(path)
                value = self.draft.value(path)
                said = "automatic" if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool) else shown(value)
                by_you = "set by you" if path in self.draft.set_values else ""
                table.add_row(field.title or key, Text(said), "  · ".join(filter(None, (key if wide else "", by_you))))
        parts.append(table)
        return Group(*parts)

    @property
    def run_name(self) -> str:
        return self.query_one("#run-name", Input).value.strip()

    @on(Input.Changed, "#run-name")
    def _say_where(self) -> None:
        folder = RunFolder(self.ltx.root / "runs" / (self.run_name or "…"))
        taken = folder.journal.exists()
        where = self.query_one("#where", Static)
        where.update(
            "There is a run of this name already: choose another." if taken else f"Writes into {folder.path} and {self.ltx.root / 'cache'}"
        )
        where.set_class(taken, "-wrong")

    @on(Input.Submitted, "#run-name")
    def _named(self) -> None:
        self.set_focus(None)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("start", "write") and self._loaded is None:
            return None
        return True

    def on_resize(self) -> None:
        if self._checked is not None:
            self.query_one("#review-text", Static).update(self._table(self._checked))

    def relook(self) -> None:
        """Colours are in the table: draw it again in the new look."""
        self.check()

    def action_name(self) -> None:
        self.query_one("#run-name", Input).focus()

    def action_start(self) -> None:
        name = self.run_name
        if NAME_RULE.fullmatch(name) is None or RunFolder(self.ltx.root / "runs" / name).journal.exists():
            self.notify("Choose a free name of letters, digits, dots, dashes and underscores.", severity="warning")
            self.action_name()
            return
        self.ltx.begin(draft_launch(self.ltx.root, self.draft, name=name))

    def action_write(self) -> None:
        from ltx2core.runs.files import write_json

        values, datasets = self.draft.config()
        folder = Path.cwd()
        files = folder / "config.json", folder / "datasets.json"
        if taken := [file.name for file in files if file.exists()]:
            self.notify(f"{' and '.join(taken)} exist in {folder}: nothing was written.", severity="warning", markup=False)
            return
        try:
            write_json(files[1], datasets)
            write_json(files[0], {**values, "data_backend_config": "datasets.json"})
        except Ltx2Error as error:
            self.ltx.trouble("The files were not written", error)
            return
        self.notify(f"Written. Train from a shell with\nltx2tui train --config {files[0]}", timeout=12, markup=False)
