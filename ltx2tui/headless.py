"""A run as plain lines: for scripts, logs and terminals that are no place for an app. Fed by the same journal and reducer as the screen."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

from ltx2tui import words
from ltx2tui.lines import View, speed_parts, status
from ltx2tui.state import RunState, reduce
from ltx2tui.training import EXIT_CODES, LocalFeed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ltx2core.runs.journal import Entry
    from ltx2tui.state import LogLine
    from ltx2tui.training import Training

READ_SECONDS = 0.25
QUIET_SECONDS = 5.0  # between two lines of progress


class PlainLines:
    """Turns entries into the lines that are worth printing. Pure but for what it has said already."""

    def __init__(self, *, quiet_seconds: float = QUIET_SECONDS) -> None:
        self.state = RunState()
        self._quiet_seconds = quiet_seconds
        self._said_at = float("-inf")
        self._said: tuple[object, ...] = ()

    def after(self, entries: Iterable[Entry], *, now: float) -> list[LogLine | str]:
        """What to print after these entries: the log in full, progress at most every few seconds and at the end of a phase."""
        before = self.state
        self.state = state = reduce(before, entries)
        lines: list[LogLine | str] = list(state.log[len(state.log) - min(state.log_count - before.log_count, len(state.log)) :])
        done, total = state.progress
        key = (state.phase, done)
        ended = state.ended is not None and before.ended is None
        first_step = state.phase == "train" and before.step == 0 < state.step
        due = now - self._said_at >= self._quiet_seconds or (total and done == total) or first_step or ended
        if state.phase is not None and done and due and key != self._said and (state.ended is None or ended):
            self._said_at, self._said = now, key
            lines.append(progress_line(state))
        return lines


def progress_line(state: RunState) -> str:
    """Where a run is, in a line."""
    done, total = state.progress
    steps = state.phase == "train" or state.ended is not None
    where = f"step {done:,} of {total:,}" if steps else f"{done:,} of {total:,} {state.unit}".rstrip()
    parts = [f"{status(state, View(alive=True, paused=False, stopping=False, here=True)):<16}", where]
    if steps:
        if state.seconds_per_step is not None:
            parts.append(words.pace(state.seconds_per_step))
        parts.append(f"loss {words.loss(state.smoothed.mean if state.smoothed.weight else None)}")
        parts += [part for part in speed_parts(state) if part.startswith(("MFU", "stall"))]
    if state.seconds_left is not None:
        parts.append(f"{words.duration(state.seconds_left)} left")
    if state.memory is not None and state.memory.vram_used_bytes is not None:
        parts.append(f"VRAM {words.size(state.memory.vram_used_bytes)}")
    return "  ".join(parts)


def see_to_end(training: Training, *, resuming: bool = False) -> int:
    """Print a run's lines until it ends; the exit code. `resuming` when the app showed it so far: what it showed is not said again."""
    printer = Printer()
    interrupted = _take_signals(training)
    feed = LocalFeed(training)
    lines = PlainLines()
    if resuming:
        lines.after(feed.read(), now=time.monotonic())
        printer.say(f"Training goes on here. `ltx2tui attach {training.folder.name}` shows it again; Ctrl-C stops it after its step.")
    else:
        printer.say(f"Run {training.folder.name}: {training.folder.path}")
    told = False
    while True:
        alive = training.alive
        if interrupted.is_set() and not told:
            told = True
            printer.say("Stopping after this step, with a checkpoint. Ctrl-C again leaves at once.")
        for line in lines.after(feed.read(), now=time.monotonic()):
            printer.line(line)
        if not alive:
            break
        training.join(READ_SECONDS)
    for sentence in training.conclusion:
        printer.say(sentence)
    return EXIT_CODES[training.outcome]


def _take_signals(training: Training) -> threading.Event:
    """SIGTERM and the first SIGINT stop after the step, with a checkpoint; a second SIGINT ends the process. The event: the first came.

    Nothing is printed in the handler: it may have interrupted a line that is half printed, which Python refuses to print into.
    """
    interrupted = threading.Event()

    def stop(number: int, _frame: object) -> None:
        if number == signal.SIGINT:
            if interrupted.is_set():
                os._exit(130)
            interrupted.set()
        training.control.stop()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return interrupted


class Printer:
    """Writes lines with Rich, which leaves out colours where there is no terminal. A reader that went away stops the lines, not the run."""

    def __init__(self) -> None:
        from rich.console import Console

        self._out = Console(highlight=False, soft_wrap=True, emoji=False)
        self._broken = False

    def say(self, text: str) -> None:
        self._print(text, "bold")

    def line(self, line: LogLine | str) -> None:
        if isinstance(line, str):
            self._print(f"{time.strftime('%H:%M:%S')}  {line}", "")
            return
        mark = {"info": "", "warning": "! ", "error": "✕ "}[line.level]
        style = {"info": "dim", "warning": "yellow", "error": "bold red"}[line.level]
        self._print(
            f"{time.strftime('%H:%M:%S', time.localtime(line.at))}  {mark}{line.text}" + (f" {line.fix}" if line.fix else ""), style
        )

    def _print(self, text: str, style: str) -> None:
        if self._broken:
            return
        try:
            self._out.print(text, style=style, markup=False)
            sys.stdout.flush()
        except OSError:
            self._broken = True
