"""Terminal and disk: what is around the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ltx2core.hardware.disk import CHUNK, disk_speed
from ltx2core.hardware.terminal import terminal_of


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "kitty"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "sixel"),
        ({"TERM": "xterm-256color"}, "half cells"),
        ({}, "half cells"),
        ({"TERM": "tmux-256color", "TMUX": "/tmp/tmux-1/default,1,0", "KITTY_WINDOW_ID": "1"}, "half cells"),
    ],
)
def test_pictures_are_shown_in_the_best_way_that_is_sure_to_work(variables: dict[str, str], expected: str) -> None:
    assert terminal_of(variables).graphics == expected


def test_what_keeps_a_session_and_what_carries_it_are_told() -> None:
    far = terminal_of({"TERM": "screen", "STY": "123.pts-0", "SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22", "COLORTERM": "truecolor"})
    assert (far.multiplexer, far.ssh, far.truecolour) == ("screen", True, True)
    near = terminal_of({"TERM": "xterm-256color", "WT_SESSION": "x"})
    assert (near.multiplexer, near.ssh, near.truecolour, near.program) == (None, False, False, "Windows Terminal")


def test_the_speed_of_a_disk_is_measured_and_nothing_stays(tmp_path: Path) -> None:
    speed = disk_speed(tmp_path, seconds=0.05, most=2 * CHUNK)
    assert speed is not None
    assert 1e5 < speed.write_bytes_per_second < 1e12
    assert speed.read_bytes_per_second is None or speed.read_bytes_per_second > 1e5
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_has_no_speed(tmp_path: Path) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("needs a folder that nobody can write to")
    assert disk_speed(Path("/proc/self")) is None


def test_a_probe_loads_neither_torch_nor_a_user_interface() -> None:
    code = (
        "import sys; from pathlib import Path; from ltx2core.hardware.probe import probe_machine; probe_machine(Path())\n"
        "print(sorted({'torch', 'textual', 'rich', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
