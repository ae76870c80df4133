"""The first screen: what this is, what can be started, and the runs there are."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

from rich.text import Text
from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.markup import escape
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Static

from ltx2tui import splash, words
from ltx2tui.widgets.head import Head
from ltx2tui.widgets.keys import Keys

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.widgets import DataTable

    from ltx2tui.app import Ltx2App
    from ltx2tui.summary import RunSummary

MARKS = {"training": "●", "finished": "✓", "stopped": "‖", "failed": "✕", "interrupted": "✕"}
COLOURS = {"training": "primary", "finished": "success", "stopped": "warning", "failed": "error", "interrupted": "error"}


class WelcomeScreen(Screen[None]):
    """Where to go from here."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "new", "New run", tooltip="Set up a run in four pages", id="welcome.new"),
        Binding("d", "demo", "Demo", tooltip="Make clips, train and sample with the built-in model", id="welcome.demo"),
        Binding("p", "plan", "Plan", tooltip="What a card can train: memory, time, and which switches to set", id="welcome.plan"),
        Binding("enter", "open", "Open", tooltip="Watch the chosen run", priority=True, id="welcome.open"),
        Binding("r", "resume", "Resume", tooltip="Go on with the chosen run from its last checkpoint", id="welcome.resume"),
        Binding("question_mark", "help", "Help", tooltip="This list", id="welcome.help"),
        Binding("q", "quit", "Quit", tooltip="Leave the app", id="welcome.quit"),
    ]

    @dataclass
    class Found(Message):
        """The runs there are."""

        runs: list[RunSummary]

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[RunSummary] = []
        self._table: DataTable[str | Text] | None = None

    def compose(self) -> ComposeResult:
        yield Head("Welcome")
        yield Static(f"[b]{splash.HEADLINE}[/b]\n{splash.WHAT}", id="what")
        ways = (f"[b $primary]{key}[/]  [b]{name:<13}[/b][$text-quiet]{text}[/]" for key, name, text in splash.WAYS)
        yield Static("\n".join(ways), id="ways")
        with Vertical(id="runs", classes="panel") as runs:
            runs.border_title = "Runs"
            yield Static("", id="no-runs")
        yield Keys()

    @property
    def ltx(self) -> Ltx2App:
        return cast("Ltx2App", self.app)

    def on_screen_resume(self) -> None:
        self.look()

    @work(thread=True, exclusive=True, group="runs", exit_on_error=False)
    def look(self) -> None:
        from ltx2tui.summary import summaries

        self.post_message(self.Found(summaries(self.ltx.root)))

    @on(Found)
    async def _show(self, message: Found) -> None:
        self.runs = message.runs
        self.query_one("#runs").border_subtitle = escape(str(self.ltx.root / "runs"))
        nothing = self.query_one("#no-runs", Static)
        nothing.update("" if self.runs else "No runs yet. [b $primary]d[/] is a good first one.")
        nothing.display = not self.runs
        if self.runs or self._table is not None:
            await self._fill()
        self.refresh_bindings()

    async def _fill(self) -> None:
        """A row a run. The table comes with the first: without it the app paints sooner."""
        from textual.widgets import DataTable

        table = self._table
        if table is None:
            self._table = table = DataTable(id="run-table", cursor_type="row", zebra_stripes=False)
            await self.query_one("#runs").mount(table)
            table.add_columns("", "run", "state", "step", "loss", "last change")
            table.focus()
        row = table.cursor_row
        table.clear()
        for run in self.runs:
            steps = f"{run.step:,} of {run.total_steps:,}" if run.total_steps else f"{run.step:,}"
            table.add_row(
                Text(MARKS[run.status], style=self.app.theme_variables[COLOURS[run.status]]),
                run.folder.name,
                run.status,
                steps,
                words.loss(run.loss),
                self._ago(run.at),
            )
        table.move_cursor(row=min(row, max(0, len(self.runs) - 1)))
        table.display = bool(self.runs)

    def _ago(self, at: float) -> str:
        if not at:
            return "–"
        seconds = self.ltx.now() - at
        return (
            "just now"
            if seconds < 60
            else f"{words.duration(seconds).rsplit(' ', 2)[0] if seconds < 3600 else words.duration(seconds)} ago"
            if (seconds < 86_400)
            else time.strftime("%d %b %H:%M", time.localtime(at))
        )

    @property
    def chosen(self) -> RunSummary | None:
        row = self._table.cursor_row if self._table is not None else -1
        return self.runs[row] if 0 <= row < len(self.runs) else None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "open":
            return bool(self.runs) or None
        if action == "resume":
            return bool(self.runs and self.chosen and self.chosen.can_resume) or None
        return True

    def on_data_table_row_highlighted(self) -> None:
        self.refresh_bindings()

    def on_data_table_row_selected(self) -> None:
        self.action_open()

    def action_new(self) -> None:
        from ltx2tui.screens.hardware import HardwareScreen

        self.app.push_screen(HardwareScreen())

    def action_plan(self) -> None:
        from ltx2tui.screens.plan import PlanScreen

        self.app.push_screen(PlanScreen())

    def action_demo(self) -> None:
        from ltx2tui.launches import demo_launch

        self.ltx.begin(demo_launch(self.ltx.root))

    def action_open(self) -> None:
        if self.chosen is not None:
            from ltx2tui.training import AttachedFeed

            self.ltx.watch_run(AttachedFeed(self.chosen.folder))

    def action_resume(self) -> None:
        if self.chosen is not None and self.chosen.can_resume:
            from ltx2tui.launches import resume_launch

            self.ltx.begin(resume_launch(self.chosen.folder))

    def action_help(self) -> None:
        from ltx2tui.screens.dialogs import Help

        self.app.push_screen(Help(self, "Welcome"))

    def action_quit(self) -> None:
        self.app.exit("left")
