from __future__ import annotations

import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ltx2core.errors import RunError
from ltx2core.runs.control import Control, ControlServer, ask
from ltx2core.runs.files import replacing, write_json
from ltx2core.runs.folder import RunFolder, RunLock, list_runs

if TYPE_CHECKING:
    from pathlib import Path


def test_a_run_is_alive_while_its_lock_is_held_and_only_then(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "one")
    assert not folder.is_alive()
    lock = RunLock(folder)
    assert folder.is_alive()
    with pytest.raises(RunError, match="another process"):
        RunLock(folder)
    lock.release()
    assert not folder.is_alive()


def test_a_killed_process_leaves_no_lock_behind(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "one")
    code = (
        "import sys, time; from pathlib import Path; from ltx2core.runs.folder import RunFolder, RunLock\n"
        "lock = RunLock(RunFolder(Path(sys.argv[1]))); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder.path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert folder.is_alive()
        process.kill()
    assert not folder.is_alive()


@pytest.mark.parametrize("name", [".hidden", "a b", "-", "x" * 65, "été"])
def test_a_name_that_a_shell_would_trip_over_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="cannot be named"):
        RunFolder(tmp_path / name).create()


def test_wishes_arrive_over_a_socket_that_only_its_owner_can_open(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "one")
    folder.create()
    control = Control()
    server = ControlServer(folder, control)
    assert stat.S_IMODE(folder.control_socket.stat().st_mode) == 0o600
    assert ask(folder, "pause")["paused"] is True
    assert control.paused
    ask(folder, "resume")
    ask(folder, "save")
    assert control.take_save()
    assert not control.take_save()
    assert ask(folder, "stop")["stopping"] is True
    assert control.stop_requested
    server.close()
    with pytest.raises(RunError, match="does not answer"):
        ask(folder, "status")


def test_stopping_ends_a_pause() -> None:
    control = Control()
    control.pause()
    control.stop()
    control.wait_while_paused()
    assert control.stop_requested


def test_a_path_too_long_for_a_socket_still_gets_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / ("long" * 30) / "one")
    folder.create()
    server = ControlServer(folder, Control())
    assert ask(folder, "status")["ok"] is True
    server.close()


def test_runs_are_listed_the_latest_first(tmp_path: Path) -> None:
    import os

    for age, name in ((2, "old"), (1, "new")):
        folder = RunFolder(tmp_path / "runs" / name)
        folder.create()
        folder.journal.touch()
        os.utime(folder.journal, (1e9 - age, 1e9 - age))
    assert [folder.name for folder in list_runs(tmp_path)] == ["new", "old"]


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_json(path, {"step": 1})

    def fails_midway() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails_midway()
    assert path.read_text() == '{\n  "step": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]
