"""The questions of `ltx2tui configure` on a real pseudo-terminal."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from ltx2tui.draft import FORM
from tests.app.scenes import write_dataset
from tests.app.terminals import Screen

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = (sys.executable, "-m", "ltx2tui.cli")
pytestmark = pytest.mark.slow


def _answer(screen: Screen, title: str, answer: str = "") -> None:
    """Give an answer in place of the usual one to the question of this title, which is the last on the screen."""
    screen.wait_for(f"? {title}")
    deadline = time.monotonic() + 0.15  # until it has drawn itself: keys of before are another question's
    while time.monotonic() < deadline:
        screen.read(0.02)
    screen.type(("\x05\x15" + answer if answer else "") + "\r")  # to the end, kill the line


def test_the_answers_become_a_config_that_the_check_accepts(tmp_path: Path) -> None:
    write_dataset(tmp_path / "clips", flat=True)
    screen = Screen(*COMMAND, "configure", "--out", "mine.json", cwd=tmp_path, rows=60, columns=120)
    titles = _titles()
    _answer(screen, "Folder of clips", "clips")
    for path, title in titles.items():
        if path == "max_train_steps":
            _answer(screen, title, "-5")
            screen.wait_for("at least")
            _answer(screen, title, "30")
        else:
            _answer(screen, title, "A red kite." if path == "validation_prompt" else "")
    screen.wait_for("Written: mine.json")
    assert screen.end() == 0
    config = json.loads((tmp_path / "mine.json").read_text())
    assert (config["max_train_steps"], config["validation_prompt"], config["lora_rank"]) == (30, "A red kite.", 16)
    checked = subprocess.run([*COMMAND, "config", "check", "mine.json"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout.splitlines()[-1]) == (0, "mine.json can be used.")


def _titles() -> dict[str, str]:
    from ltx2tui.draft import field_of

    return {path: field_of(path)[2].title or path for _, paths in FORM for path in paths}


def test_leaving_the_questions_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    screen = Screen(*COMMAND, "configure", cwd=tmp_path)
    _answer(screen, "Folder of clips", "clips")
    screen.wait_for("? Model")
    screen.type("\x03")
    assert screen.end() == 130
    assert "Nothing was written." in screen.text
    assert [path.name for path in tmp_path.iterdir() if path.name != "settings"] == ["clips"]


def test_without_a_terminal_the_questions_say_so(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "configure"], cwd=tmp_path, capture_output=True, text=True, input="", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("The questions need a terminal.")
