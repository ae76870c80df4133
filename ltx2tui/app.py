"""The Textual app: which screen comes first, and starting a training run. Imports neither torch nor numpy; screens load late."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.app import App
from textual.binding import Binding, BindingType
from textual.message import Message

from ltx2core.errors import Ltx2Error
from ltx2tui.driver import HangupDriver
from ltx2tui.theme import DARK, LIGHT

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.screen import Screen

    from ltx2core.hardware.nvml import Nvml
    from ltx2core.hardware.probe import Machine
    from ltx2tui.descriptors import Terminal
    from ltx2tui.draft import Draft
    from ltx2tui.training import Feed, Launch, OpenSession, Training


class Ltx2App(App[str]):
    """The app on one terminal. Its result says how it was left: "left", "headless" (training goes on), DETACHED, or "ended"."""

    TITLE = "LTX-2 LoRA trainer"
    CSS_PATH: ClassVar = [Path(__file__).with_name("app.tcss"), Path(__file__).with_name("screens") / "welcome.tcss"]
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+p"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+t", "look", "Light or dark", tooltip="Switch between the dark and the light look", show=False, id="app.look"),
        Binding("ctrl+c", "leave", "Leave", show=False, id="app.leave"),
    ]

    class AskedToEnd(Message):
        """The process was sent SIGTERM."""

    def __init__(
        self,
        *,
        root: Path,
        watch: Feed | None = None,
        launch: Launch | None = None,
        open_session: OpenSession | None = None,
        terminal: Terminal | None = None,
        now: Callable[[], float] = time.time,
        nvml: Nvml | None = None,
    ) -> None:
        super().__init__(driver_class=HangupDriver if terminal is not None and "TEXTUAL_DRIVER" not in os.environ else None)
        self.root = root
        self.terminal = terminal
        self.training: Training | None = None
        self.now = now  # seconds since the epoch
        self.monotonic = time.monotonic
        self._nvml = nvml
        self._watch_first = watch
        self._launch_first = launch
        self._open_session = open_session
        self._exit_when_trained = False
        self.animation_level = "none"
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = DARK.name

    @cached_property
    def draft(self) -> Draft:
        """What the wizard was told last time."""
        from ltx2tui.draft import draft_file, read_draft

        return read_draft(draft_file())

    @property
    def results_file(self) -> Path:
        """Where scans keep what they find: below the root when one was asked for, as `ltx2tui check` does."""
        from ltx2core.data.results import default_results_file

        return default_results_file(self.root if self.root != Path() else None)

    def probe(self, *, measure_disk: bool = True) -> Machine:
        """What this machine is, with its disk's speed if that is asked for. Takes a moment: call it from a worker."""
        from ltx2core.hardware.probe import probe_machine

        return probe_machine(self.root, nvml=self._nvml, measure_disk=measure_disk)

    def on_mount(self) -> None:
        if self.terminal is not None:
            signal.signal(signal.SIGTERM, self._signalled)
        self.open_first()

    def on_ready(self) -> None:
        """Collecting garbage was put off until the first paint; what is loaded by then stays for good."""
        gc.freeze()
        gc.enable()

    def get_default_screen(self) -> Screen[Any]:
        """The welcome is the bottom of the stack, unless the app was opened for one run: no second screen has to be styled for it."""
        if self._watch_first is not None or self._launch_first is not None:
            return super().get_default_screen()
        from ltx2tui.screens.welcome import WelcomeScreen

        return WelcomeScreen()

    def open_first(self) -> None:
        """Show what the app was opened for; with nothing, the welcome is there."""
        if self._watch_first is not None:
            self.watch_run(self._watch_first)
        elif self._launch_first is not None:
            launch = self._launch_first
            self.call_after_refresh(lambda: self.begin(launch))

    def watch_run(self, feed: Feed) -> None:
        """Show the Run screen of a run, over whatever is there."""
        from ltx2tui.screens.run import RunScreen

        self.push_screen(RunScreen(feed))

    def begin(self, launch: Launch) -> None:
        """Start a run in a thread of this process and show it. What cannot even start is said in a dialog."""
        from ltx2tui.training import LocalFeed, Training, engine_session

        training = Training(launch, self._open_session or engine_session)
        try:
            training.folder.create()
        except Ltx2Error as error:
            self.trouble("The run cannot start", error)
            return
        if self.terminal is not None:
            self.terminal.log_to(training.folder.output_log)
        self.training = training
        training.start()
        self.watch_run(LocalFeed(training))

    def trouble(self, title: str, error: Ltx2Error) -> None:
        """Say a failure and what would work."""
        from ltx2tui.screens.dialogs import Trouble

        self.push_screen(Trouble(title, error.text, error.fix))

    def exit_when_trained(self) -> None:
        """End the app as soon as its training thread has ended."""
        if not self._exit_when_trained:
            self._exit_when_trained = True
            self.set_interval(0.1, self._exit_if_trained)

    def _exit_if_trained(self) -> None:
        if self.training is None or not self.training.alive:
            self.exit("ended")

    def _signalled(self, *_: object) -> None:
        """SIGTERM: stop at a step boundary, with a checkpoint, then end.

        The app is told by a message, through the loop: the handler runs in whatever context it interrupted, where no timer can be made.
        """
        if self.training is not None:
            self.training.control.stop()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the app has ended already
                self._loop.call_soon_threadsafe(self.post_message, self.AskedToEnd())

    @on(AskedToEnd)
    def _end(self) -> None:
        self.exit_when_trained()

    def home(self) -> None:
        """Back to the welcome; out of the app when it was opened for one run."""
        from ltx2tui.screens.welcome import WelcomeScreen

        if not any(isinstance(screen, WelcomeScreen) for screen in self.screen_stack):
            self.exit("left")
            return
        while not isinstance(self.screen, WelcomeScreen):
            self.pop_screen()

    async def action_quit(self) -> None:
        """ctrl+q, which Textual binds: the same as leaving, so that a run is never dropped unasked."""
        self.action_leave()

    def action_look(self) -> None:
        self.theme = LIGHT.name if self.theme == DARK.name else DARK.name
        if relook := getattr(self.screen, "relook", None):
            self.call_after_refresh(relook)

    def action_leave(self) -> None:
        """ctrl+c: what q does on a run, and leaving everywhere else."""
        leave = getattr(self.screen, "action_leave", None)
        if leave is not None:
            leave()
        elif not self.screen.is_modal:
            self.exit("left")
