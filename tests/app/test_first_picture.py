"""The picture that is there before Textual is: the same words in the same places, nothing heavy loaded, nothing typed lost."""

from __future__ import annotations

import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pyte
import pytest

from ltx2tui import splash
from ltx2tui.app import Ltx2App
from tests.app.scenes import shown_text, until
from tests.app.terminals import Screen

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = (sys.executable, "-m", "ltx2tui.cli")


@pytest.mark.parametrize("size", [(80, 24), (160, 48)], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_the_welcome_draws_the_words_of_the_first_picture_in_the_same_places(size: tuple[int, int], tmp_path: Path) -> None:
    first = pyte.Screen(*size)
    pyte.Stream(first).feed(splash.picture(*size))
    app = Ltx2App(root=tmp_path)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "No runs yet" in shown_text(app))
        then = shown_text(app).splitlines()
    for row, line in enumerate(first.display):
        assert not line.strip() or line.rstrip() == then[row].rstrip()


def test_a_first_picture_fits_any_terminal() -> None:
    for columns, rows in ((20, 5), (40, 10), (300, 90)):
        screen = pyte.Screen(columns, rows)
        pyte.Stream(screen).feed(splash.picture(columns, rows))
        assert "LTX-2" in screen.display[0]


@pytest.mark.slow
def test_a_key_typed_before_the_app_is_up_counts_and_is_not_echoed(tmp_path: Path) -> None:
    screen = Screen(*COMMAND, cwd=tmp_path, env={"XDG_CONFIG_HOME": str(tmp_path)})
    before = termios.tcgetattr(screen.terminal)
    screen.wait_for("New run", "Quit")
    screen.type("n")
    screen.wait_for("Processor", "Disk")
    screen.type("q")
    while screen.read():
        pass  # its last words, up to the end of file
    assert screen.end() == 0
    assert before[3] & termios.ECHO


@pytest.mark.slow
def test_the_terminal_echoes_again_when_the_app_has_ended(tmp_path: Path) -> None:
    program = 'import sys, termios; from ltx2tui.cli import main; main([]); print("ECHO", termios.tcgetattr(0)[3] & termios.ECHO > 0)'
    screen = Screen(sys.executable, "-c", program, cwd=tmp_path, env={"XDG_CONFIG_HOME": str(tmp_path)})
    screen.wait_for("No runs yet")
    screen.type("q")
    screen.wait_for("ECHO True")
    screen.end()


def test_the_first_picture_needs_neither_textual_nor_rich() -> None:
    program = """
import sys
import ltx2tui.cli, ltx2tui.commands.app, ltx2tui.splash
loaded = {"textual", "rich", "asyncio", "torch", "numpy", "av", "pydantic", "diffusers"} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
