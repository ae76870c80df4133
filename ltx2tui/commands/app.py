"""`ltx2tui`: the app. `open_app` is what the other commands that show it use; it owns what happens after the app has ended."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from ltx2core.errors import Ltx2Error
from ltx2tui.descriptors import DETACHED, Terminal, ignore_hang_up

if TYPE_CHECKING:
    import argparse
    from contextlib import AbstractContextManager
    from pathlib import Path

    from ltx2tui.training import Feed, Launch, OpenSession


def run(arguments: argparse.Namespace) -> int:
    return open_app(arguments.root)


class NoTerminalError(Ltx2Error):
    """The app was called where there is no terminal to draw on."""

    exit_code = 2


def open_app(root: Path, *, watch: Feed | None = None, launch: Launch | None = None, open_session: OpenSession | None = None) -> int:
    """Show the app; when it leaves while a run trains, see that run to its end. The exit code is the run's."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise NoTerminalError("The app needs a terminal.", fix="Use `ltx2tui train --config FILE --headless`, or `ltx2tui --help`.")
    gc.disable()  # nothing is garbage while modules load: 8 % of the time to the first paint, after which the app turns it on
    with _splash(welcome=watch is None and launch is None) as attributes:
        from ltx2tui.app import Ltx2App

        terminal = Terminal(attributes)
        app = Ltx2App(root=root, watch=watch, launch=launch, open_session=open_session, terminal=terminal)
    result = app.run()
    for number in (signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH):  # the driver's handlers would draw again
        signal.signal(number, signal.SIG_DFL)
    training = app.training
    if training is None:
        return app.return_code or 0
    from ltx2tui.training import EXIT_CODES

    if training.alive and result == DETACHED:
        _outlive_terminal(lambda *_: training.control.stop())
        training.join()
    elif training.alive:
        from ltx2tui.headless import see_to_end

        ignore_hang_up(terminal)
        return see_to_end(training, resuming=True)
    training.join()
    return EXIT_CODES[training.outcome]


def _splash(*, welcome: bool) -> AbstractContextManager[list[Any] | None]:
    """The welcome's words while the app loads, where the welcome comes first and Textual draws on this terminal."""
    from contextlib import nullcontext

    if not welcome or "TEXTUAL_DRIVER" in os.environ or os.environ.get("TERM", "dumb") == "dumb":
        return nullcontext()
    from ltx2tui.splash import shown

    return shown()


def _outlive_terminal(stop: object) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)  # type: ignore[arg-type]
