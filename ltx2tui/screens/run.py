"""The Run screen: one run, live or past, of this process or another. Reads a feed, asks it for things; no training state lives here."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Grid, Vertical
from textual.message import Message
from textual.reactive import reactive
from textual.screen import Screen
from textual.widgets import Static
from textual.worker import Worker, WorkerState, get_current_worker

from ltx2core.errors import Ltx2Error
from ltx2tui import lines
from ltx2tui.screens.dialogs import Answer, Choice, Help, Question
from ltx2tui.state import RunState, reduce
from ltx2tui.widgets.chart import LossChart
from ltx2tui.widgets.head import Bar, Head
from ltx2tui.widgets.held_out import HeldOutChart
from ltx2tui.widgets.keys import Keys
from ltx2tui.widgets.level_table import LevelTable
from ltx2tui.widgets.log import RunLog
from ltx2tui.widgets.memory import MemoryGraph
from ltx2tui.widgets.validation import Validation

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import ComposeResult

    from ltx2core.runs.control import Request
    from ltx2tui.app import Ltx2App
    from ltx2tui.training import Feed

Leave = Literal["stop", "headless"]
PANELS = ("loss", "video", "log", "memory")
READ_SECONDS = 0.5  # two redraws a second: each takes the interpreter from the training thread, and more show nothing more
ASK_SECONDS = 2.0
NARROW = 100  # columns under which panels drop their extras
ROOM_FOR_ENGINE = 9  # rows of the memory panel from which it also says what computes


class RunScreen(Screen[None]):
    """Watches one run and passes wishes on to it."""

    CSS_PATH = "run.tcss"
    AUTO_FOCUS = ""  # letters are for the run; tab reaches the log
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "leave", "Leave", tooltip="Stop the run, or leave it training", id="run.leave"),
        Binding("s", "ask('save')", "Save", tooltip="Write a checkpoint after this step", id="run.save"),
        Binding("g", "ask('sample')", "Sample", tooltip="Make a validation video after this step", id="run.sample"),
        Binding("p", "pause", "Pause", tooltip="Finish this step, then wait; again to go on", id="run.pause"),
        Binding("v", "play", "Play", tooltip="Play the validation video, or stop it", id="run.play"),
        Binding("question_mark", "help", "Help", tooltip="This list", id="run.help"),
        Binding("x", "stop", "Stop", tooltip="Stop at the next step, with a checkpoint", show=False, id="run.stop"),
        Binding("left,left_square_bracket", "scrub(-1)", "Earlier sample", tooltip="Show the sample before", show=False, id="run.earlier"),
        Binding("right,right_square_bracket", "scrub(1)", "Later sample", tooltip="Show the next sample", show=False, id="run.later"),
        Binding("n", "next_view", "Next curve", tooltip="Loss by step, held-out loss, loss by noise level", show=False, id="run.next_view"),
        Binding("y", "log_scale", "Log scale", tooltip="Loss on a logarithmic axis, or a plain one", show=False, id="run.log_scale"),
        *(
            Binding(
                str(number),
                f"zoom('{name}')",
                f"Only {name}",
                tooltip=f"{name.capitalize()} over the whole screen",
                show=False,
                id=f"run.{name}",
            )
            for number, name in enumerate(PANELS, 1)
        ),
        Binding("0,escape", "zoom('')", "All panels", tooltip="Back from one panel to all", show=False, id="run.all"),
    ]

    state: reactive[RunState] = reactive(RunState, init=False)
    alive: reactive[bool] = reactive(True, init=False)
    paused: reactive[bool] = reactive(False, init=False)

    @dataclass
    class Arrived(Message):
        """What the journal adds up to now."""

        state: RunState
        alive: bool
        conclusion: tuple[str, ...]
        paused: bool
        stopping: bool
        still_for: float  # seconds that nothing got on, when that is unusual

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, RunScreen.Arrived)

    @dataclass
    class Answered(Message):
        """What a run said to a wish; `trouble` when it did not answer."""

        request: Request
        answer: dict[str, object]
        trouble: str = ""

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self.feed = feed
        self.view: lines.LossView = "chart"
        self.stopping = False
        self.still_for = 0.0
        self.conclusion: tuple[str, ...] = ()
        self._gone = threading.Event()
        self._applies = (False, False)  # whether keys for a live run, and for samples, are shown as usable
        self._question: Question[Any] | None = None  # asked now; without sense as soon as the run has ended
        self._question_says: Callable[[RunState], str] | None = None

    def compose(self) -> ComposeResult:
        yield Head(self.feed.folder.name)
        with Vertical(id="status"):
            yield Static(id="phase")
            yield Bar(id="bar")
            yield Static(id="numbers")
        with Grid(id="panels"):
            with Vertical(id="loss", classes="panel"):
                yield LossChart(id="chart")
                yield HeldOutChart(id="held-out")
                yield LevelTable(id="levels")
            yield Validation(id="video")
            with Vertical(id="log", classes="panel") as log:
                log.border_title = "3 Log"
                yield RunLog(id="lines")
            with Vertical(id="memory", classes="panel") as memory:
                memory.border_title = "4 Speed and memory"
                yield Static(id="speed")
                yield Static(id="engine", classes="quiet")
                yield MemoryGraph("RAM ", nothing="not measured yet", id="ram")
                yield MemoryGraph("VRAM", nothing="no GPU in this run", id="vram")
        yield Keys()

    def on_mount(self) -> None:
        self._show()
        self.follow()

    def on_unmount(self) -> None:
        self._gone.set()

    def on_resize(self) -> None:
        self.set_class(self.app.size.width < NARROW, "-narrow")
        self._show()

    # -- workers

    @work(thread=True, exclusive=True, group="journal", exit_on_error=False)
    def follow(self) -> None:
        worker = get_current_worker()
        state, told, asked = RunState(), None, 0.0
        paused = stopping = False
        while not worker.is_cancelled:
            alive = self.feed.alive()
            state = reduce(state, self.feed.read())
            if alive and time.monotonic() - asked > ASK_SECONDS:  # others may pause and stop it too
                asked = time.monotonic()
                with contextlib.suppress(Ltx2Error):  # it may just be starting, or ending
                    answer = self.feed.ask("status")
                    paused, stopping = bool(answer.get("paused")), bool(answer.get("stopping"))
            still_for = state.still_for(self.ltx.now()) if alive else 0.0
            now = self.Arrived(state, alive, self.feed.conclusion(), paused, stopping, still_for // 10 * 10)
            if now != told:
                told = now
                self.post_message(now)
            if self._gone.wait(READ_SECONDS):
                return

    @work(thread=True, group="asking", exit_on_error=False)
    def request(self, request: Request) -> None:
        try:
            self.post_message(self.Answered(request, self.feed.ask(request)))
        except Ltx2Error as error:
            self.post_message(self.Answered(request, {}, trouble=str(error)))

    # -- messages

    @on(Arrived)
    def _take(self, message: Arrived) -> None:
        self.conclusion = message.conclusion
        self.stopping, self.still_for = message.stopping, message.still_for
        # No batch_update: it ends with a repaint of the whole screen, and nothing is drawn before this handler returns anyway.
        self.set_reactive(RunScreen.alive, message.alive)
        self.set_reactive(RunScreen.paused, message.paused)
        self.set_reactive(RunScreen.state, message.state)
        self._show()
        self._settle_question()

    @on(Answered)
    def _answered(self, message: Answered) -> None:
        if message.trouble:
            self.notify(message.trouble, title="No answer", severity="warning", markup=False)
            return
        self.paused = bool(message.answer.get("paused"))
        self.stopping = bool(message.answer.get("stopping"))
        said = {
            "save": "A checkpoint is written after this step.",
            "sample": "A validation video is made after this step.",
            "stop": "Stopping after this step, with a checkpoint.",
        }.get(message.request)
        if said:
            self.notify(said, timeout=4)
        self._show()

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        if event.state == WorkerState.ERROR and event.worker.group == "journal":
            self.notify(f"The journal cannot be read: {event.worker.error}", severity="error", timeout=60, markup=False)

    # -- watchers: state to widgets

    def watch_paused(self) -> None:
        self._show()

    def _show(self) -> None:
        """Tell every widget its part of the state; each draws only what changed."""
        if not self.is_mounted:
            return
        state = self.state
        view = lines.View(alive=self.alive, paused=self.paused, stopping=self.stopping, here=self.feed.here, still_for=self.still_for)
        mood = lines.mood(state, view)
        width = max(20, self.size.width - 2)
        for name in ("live", "bad", "done", "still"):
            self.set_class(name == mood, f"-{name}")
        self.query_one(Head).say(right=lines.place(state, view))
        self.query_one("#phase", Static).update(lines.phase_line(state, view, width=width), layout=False)
        self.query_one(Bar).show(*state.progress)
        self.query_one("#numbers", Static).update(lines.numbers_line(state, width=width), layout=False)
        self.query_one(LossChart).show(
            state.losses, state.smooth_losses, held_out=state.held_out, base=state.base_loss, total_steps=state.total_steps
        )
        self.query_one(HeldOutChart).show(state.held_out)
        self.query_one(LevelTable).show(state.levels)
        panel = self.query_one("#memory")
        self.query_one("#speed", Static).update(lines.speed_line(state, width=panel.size.width), layout=False)
        self.query_one("#engine", Static).update(lines.engine_line(state, width=panel.size.width), layout=False)
        self.query_one("#speed").display = bool(lines.speed_parts(state))
        self.query_one("#engine").display = state.engine is not None and panel.size.height >= ROOM_FOR_ENGINE
        memory = state.memory
        self.query_one("#ram", MemoryGraph).show(state.ram, total=memory.ram_total_bytes if memory else 0, peak=state.ram_peak)
        busy = f"GPU {memory.gpu_percent}%" if memory and memory.gpu_percent is not None else ""
        self.query_one("#vram", MemoryGraph).show(
            state.vram, total=(memory and memory.vram_total_bytes) or 0, peak=state.vram_peak, note=busy
        )
        self.query_one("#vram").display = bool(len(state.vram)) or not memory
        self.query_one(RunLog).show(state.log, state.log_count, self.conclusion)
        self.query_one(Validation).show(state.samples, self.feed.folder.path, faults=state.faults)
        loss = self.query_one("#loss")
        for curve in lines.VIEWS:
            self.query_one(f"#{curve}").display = curve == self.view
        loss.border_title = lines.VIEWS[self.view]
        log_scale = self.query_one(LossChart).log_scale
        loss.border_subtitle = lines.legend(state, view=self.view, log_scale=log_scale, width=loss.size.width - 4)
        applies = self.running, bool(state.samples)
        if applies != self._applies:  # the footer is made anew each time: half of what a redraw costs
            self._applies = applies
            self.refresh_bindings()

    # -- actions

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("ask", "pause", "stop") and not self.running:
            return None
        if action in ("play", "scrub") and not self.state.samples:
            return None
        return True

    def action_ask(self, request: Request) -> None:
        self.request(request)

    def action_pause(self) -> None:
        self.request("resume" if self.paused else "pause")

    def action_play(self) -> None:
        self.query_one(Validation).toggle()

    def action_scrub(self, by: int) -> None:
        self.query_one(Validation).scrub(by)

    def action_next_view(self) -> None:
        views = list(lines.VIEWS)
        self.view = views[(views.index(self.view) + 1) % len(views)]
        self._show()

    def action_log_scale(self) -> None:
        chart = self.query_one(LossChart)
        chart.log_scale = not chart.log_scale
        self._show()

    def action_zoom(self, panel: str) -> None:
        for name in PANELS:
            self.query_one(f"#{name}").display = panel in ("", name)
        self.set_class(bool(panel), "-zoomed")

    def action_help(self) -> None:
        self.app.push_screen(Help(self, "Run"))

    @property
    def ltx(self) -> Ltx2App:
        return cast("Ltx2App", self.app)

    @property
    def running(self) -> bool:
        """Whether there still is something to stop or to ask for."""
        return self.alive and self.state.ended is None

    @work
    async def action_stop(self) -> None:
        choices = [Choice("s", "Stop", "Finishes this step and writes a checkpoint; --resume goes on from it.", True)]
        if await self._ask(Question("Stop this run?", "The run ends for everyone who watches it.", choices)):
            self.request("stop")

    @work
    async def action_leave(self) -> None:
        """Leave at once where nothing is lost; ask where this process trains."""
        if not self.feed.here or not self.running:
            self.ltx.home()
            return
        leave = await self._ask(Question("Leave the run?", lines.leaving(self.state), LEAVING), says=lines.leaving)
        if leave == "stop":
            self.request("stop")
            self.ltx.exit_when_trained()
        elif leave == "headless":
            self.app.exit("headless")

    async def _ask(self, question: Question[Answer], *, says: Callable[[RunState], str] | None = None) -> Answer | None:
        """The answer to a question about a run that goes on; None for escape, and when the run ends first. `says` keeps its text true."""
        self._question, self._question_says = question, says
        try:
            return await self.app.push_screen_wait(question)
        finally:
            self._question = None

    def _settle_question(self) -> None:
        """Keep an open question true: its numbers move, and the end of the run takes it away."""
        question = self._question
        if question is None or question is not self.app.screen:
            return
        if self.running:
            if self._question_says is not None:
                question.say(self._question_says(self.state))
            return
        question.action_dismiss_none()
        self.notify(f"The run has ended meanwhile: {lines.ending(self.state)}.", timeout=8, markup=False)


LEAVING: tuple[Choice[Leave], ...] = (
    Choice("s", "Stop the run", "Finishes this step, writes a checkpoint, then leaves.", "stop"),
    Choice(
        "k", "Keep training without the app", "Plain progress lines in this terminal; `ltx2tui attach` brings this screen back.", "headless"
    ),
)
