"""The app on a real pseudo-terminal: hang-up, attach, stop, resize, output, exit. The session is a fake; the rest is the product."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from ltx2core.runs import events
from ltx2core.runs.control import ask
from ltx2core.runs.folder import RunFolder
from ltx2core.runs.journal import read_journal
from tests.app.terminals import Screen, python

FAKE = str(Path(__file__).parent / "fake_trainer.py")

pytestmark = pytest.mark.slow


def _steps(folder: RunFolder) -> int:
    return max((entry.event.step for entry in read_journal(folder.journal) if isinstance(entry.event, events.StepDone)), default=0)


def _until(true: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "fake")


def _app(tmp_path: Path, *more: str, **options: int) -> Screen:
    return Screen(*python(FAKE, str(tmp_path), "app", *more), cwd=tmp_path, **options)


def test_training_outlives_its_terminal_and_attach_shows_and_stops_it(tmp_path: Path, folder: RunFolder) -> None:
    screen = _app(tmp_path)
    screen.wait_for("Training", "in this process")
    screen.hang_up()
    before = _steps(folder)
    _until(lambda: _steps(folder) > before + 50)
    assert folder.is_alive()
    assert ask(folder, "status")["pid"] == screen.pid

    viewer = Screen(*python("-m", "ltx2tui.cli", "--root", str(tmp_path), "attach"), cwd=tmp_path)
    viewer.wait_for("Training", f"process {screen.pid}")
    viewer.type("s")
    viewer.wait_for("checkpoint saved")
    viewer.type("x")
    viewer.wait_for("Stop this run?")
    viewer.type("s")
    assert screen.end() == 130  # stopped, with nobody at its terminal
    viewer.wait_for("Stopped")
    viewer.type("q")
    assert viewer.end() == 0
    assert not folder.is_alive()


def test_a_hang_up_in_the_middle_of_drawing_never_ends_the_training(tmp_path: Path, folder: RunFolder) -> None:
    for _ in range(3):
        screen = _app(tmp_path, columns=160, rows=48)
        screen.wait_for("Training")
        screen.hang_up()
        _until(lambda: folder.is_alive() and _steps(folder) > 5)
        os.kill(screen.pid, signal.SIGTERM)
        assert screen.end() == 130
        folder.journal.unlink()


def test_a_hung_up_process_does_not_spin(tmp_path: Path, folder: RunFolder) -> None:
    screen = _app(tmp_path)
    screen.wait_for("Training")
    screen.hang_up()
    time.sleep(1)
    before = _cpu_seconds(screen.pid)
    time.sleep(2)
    assert _cpu_seconds(screen.pid) - before < 0.6  # an orphan input thread takes all of a core
    ask(folder, "stop")
    assert screen.end() == 130


def test_quitting_asks_and_keeping_it_training_goes_on_in_plain_lines(tmp_path: Path, folder: RunFolder) -> None:
    screen = _app(tmp_path)
    screen.wait_for("Training")
    screen.type("q")
    screen.wait_for("Leave the run?", "Keep training without the app")
    screen.type("\x1b")
    screen.wait_for("Loss")
    screen.type("q")
    screen.wait_for("Leave the run?")
    screen.type("k")
    screen.wait_for("Training goes on here")
    screen.wait_for("step", "loss")
    assert folder.is_alive()
    screen.type("\x03")  # the terminal is back in its own mode: Ctrl-C is a signal again
    screen.wait_for("Stopping after this step")
    assert screen.end() == 130


def test_quitting_and_stopping_writes_a_checkpoint_and_leaves(tmp_path: Path, folder: RunFolder) -> None:
    screen = _app(tmp_path)
    screen.wait_for("Training")
    screen.type("q")
    screen.wait_for("Leave the run?")
    screen.type("s")
    assert screen.end() == 130
    happened = [entry.event.kind for entry in read_journal(folder.journal)]
    assert happened[-2:] == ["checkpoint_saved", "run_finished"]
    assert b"\x1b[?1049l" in screen.raw  # the other screen is left again
    assert b"\x1b[?25h" in screen.raw


def test_sigterm_stops_at_a_step_with_a_checkpoint(tmp_path: Path, folder: RunFolder) -> None:
    screen = _app(tmp_path)
    screen.wait_for("Training")
    os.kill(screen.pid, signal.SIGTERM)
    assert screen.end() == 130
    assert read_journal(folder.journal)[-1].event.kind == "run_finished"


def test_native_output_goes_to_the_log_and_never_to_the_screen(tmp_path: Path, folder: RunFolder) -> None:
    screen = _app(tmp_path)
    screen.wait_for("Training")
    _until(lambda: folder.output_log.exists() and folder.output_log.read_text().count("native noise") > 3)
    for _ in range(20):
        screen.read()
    assert b"native noise" not in screen.raw
    os.kill(screen.pid, signal.SIGTERM)
    screen.end()


def test_a_resized_terminal_is_drawn_in_its_new_size(tmp_path: Path) -> None:
    screen = _app(tmp_path)
    screen.wait_for("Training", "Help")
    screen.resize(132, 40)
    _until(lambda: screen.read() and "Help" in screen.screen.display[39])
    os.kill(screen.pid, signal.SIGTERM)
    screen.end()


def test_headless_lines_have_no_escape_codes_in_a_pipe_and_the_exit_code_is_the_runs(tmp_path: Path) -> None:
    import subprocess

    done = subprocess.run(
        python(FAKE, str(tmp_path), "headless", "60"), capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False
    )
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "Finished after step 60." in done.stdout
    assert "step 60 of 60" in done.stdout


def test_headless_outlives_its_terminal_too(tmp_path: Path, folder: RunFolder) -> None:
    screen = Screen(*python(FAKE, str(tmp_path), "headless"), cwd=tmp_path)
    screen.wait_for("step")
    screen.hang_up()
    before = _steps(folder)
    _until(lambda: _steps(folder) > before + 50)
    ask(folder, "stop")
    assert screen.end() == 130


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
