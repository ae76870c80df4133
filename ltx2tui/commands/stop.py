"""`ltx2tui stop`: ask a run to end after its step, with a checkpoint, and wait until it has."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from ltx2core.errors import RunError
from ltx2core.runs.control import ask
from ltx2tui.commands.attach import find_run

if TYPE_CHECKING:
    import argparse

PATIENCE_SECONDS = 120.0


def run(arguments: argparse.Namespace) -> int:
    folder = find_run(arguments.root, arguments.run)
    if not folder.is_alive():
        raise RunError(f"The run {folder.name!r} is not training.", fix="`ltx2tui runs` says what each run does.")
    ask(folder, "stop")
    sys.stdout.write(f"{folder.name} stops after its step …\n")
    sys.stdout.flush()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while folder.is_alive():
        if time.monotonic() > deadline:
            sys.stdout.write("It is still at its step; it will stop by itself.\n")
            return 0
        time.sleep(0.1)
    sys.stdout.write(f"Stopped. `ltx2tui train --resume --run {folder.name}` goes on.\n")
    return 0
