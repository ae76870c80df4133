"""The first picture of the app: its name, what can be started, the keys. Drawn with plain escape codes at once, while Textual loads.

Textual takes 0.4 s to import; what a person reads first needs none of it. The welcome screen then draws the same words in the same
places, from here, and adds the runs. Keys typed meanwhile are not echoed and not lost: the app reads them.
"""

from __future__ import annotations

import contextlib
import os
import sys
import termios
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADLINE = "Train a LoRA for LTX-2 from a folder of clips."
WHAT = "A LoRA is a small file that teaches the video model one thing: a person, an object, a style, a way of moving."
WAYS = (
    ("n", "New run", "four short pages: hardware, clips, settings, review"),
    ("p", "Plan", "what a card can train, how fast, and which switches to set"),
    ("d", "Demo", "everything once on a small built-in model, in minutes"),
    ("⏎", "Open a run", "watch one that trains, or look at one that ended"),
)
KEYS = (("n", "New run"), ("d", "Demo"), ("p", "Plan"), ("⏎", "Open"), ("r", "Resume"), ("?", "Help"), ("q", "Quit"))

ALTERNATE, MAIN = "\x1b[?1049h\x1b[?25l", "\x1b[?1049l\x1b[?25h"
CUT, WRAP = "\x1b[?7l", "\x1b[?7h"  # what to do with a line that is wider than the terminal
BOLD, DIM, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


@contextlib.contextmanager
def shown() -> Iterator[list[Any] | None]:
    """Shows the picture for as long as loading takes, and leaves it there for the app; an error takes it away.

    Gives the terminal's attributes as they were, to go back to when the app ends; None where nothing could be drawn.
    """
    try:
        before = termios.tcgetattr(0)
        columns, rows = os.get_terminal_size(1)
    except (OSError, termios.error):
        yield None
        return
    quiet = [*before]
    quiet[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(0, termios.TCSANOW, quiet)
    _write(ALTERNATE + picture(columns, rows))
    try:
        yield before
    except BaseException:
        _write(MAIN)
        termios.tcsetattr(0, termios.TCSANOW, before)
        raise


def picture(columns: int, rows: int) -> str:
    """The words in their places for a terminal of this size, in its own colours; bold and dim are all there is."""
    words = textwrap.wrap(WHAT, max(20, columns - 4))
    lines = [
        (1, 1, f"{BOLD}LTX-2{PLAIN} {DIM}LoRA trainer{PLAIN}  {BOLD}Welcome"),
        (3, 2, f"{BOLD}{HEADLINE}"),
        *((4 + index, 2, line) for index, line in enumerate(words)),
        *((5 + len(words) + index, 2, f"{BOLD}{key}  {name:<13}{PLAIN}{DIM}{text}") for index, (key, name, text) in enumerate(WAYS)),
        (rows, 1, "  ".join(f"{BOLD}{key}{PLAIN} {name}" for key, name in KEYS)),
    ]
    return CUT + "".join(f"\x1b[{row};{column + 1}H{text}{PLAIN}" for row, column, text in lines if row <= rows) + WRAP


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
