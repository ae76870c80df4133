"""The run's other processes: what they say is heard, why one ends is told, and none outlives the run."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from processes import ForkedPython

from ltx2core.distributed import launch
from ltx2core.distributed.launch import others_of
from ltx2core.distributed.ranks import ALONE, RankLost
from ltx2core.errors import ConfigError, RunError, Stopped
from ltx2core.runs.events import Notice

if TYPE_CHECKING:
    from ltx2core.runs.events import Event


@pytest.fixture(autouse=True)
def _odd_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_MODULE", "odd_rank")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


def run(do: str, log: Path, *, size: int = 2, emit: list[Event] | None = None, stop: bool = False) -> None:
    """Start the others with this task, and join them."""
    said: list[Event] = [] if emit is None else emit
    with others_of(size, emit=said.append, log=log, should_stop=lambda: stop) as others:
        others.send({"do": do})
        others.emit(Notice(code="told", level="warning", text="both say this"))
        if do == "warn":
            while len(said) < 2:
                time.sleep(0.01)
            return
        assert others.join(torch.device("cpu")) is ALONE


def test_a_run_of_one_starts_nothing(tmp_path: Path) -> None:
    run("", tmp_path / "log", size=1)
    assert not (tmp_path / "log").exists()


def test_what_a_rank_says_of_its_failure_is_the_run_s_and_what_it_prints_is_in_the_log(tmp_path: Path) -> None:
    with pytest.raises(RunError) as found:
        run("fail", tmp_path / "log")
    assert (found.value.text, found.value.fix) == ("Rank 1 of 2: no room for block 7.", "Lower resolution.")
    assert (tmp_path / "log").read_text() == "a library's line\n"


def test_the_rank_that_was_killed_is_named_not_the_one_that_waited_for_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="Rank 2 of 3 was ended by signal 9: the system may have run out of memory") as found:
        run("lose", tmp_path / "log", size=3)
    assert "output.log" in found.value.fix


def test_words_that_are_cut_or_a_library_s_are_passed_over(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="Rank 1 of 2 was ended by signal 9"):
        run("garble", tmp_path / "log")


def test_a_warning_that_cannot_be_told_ends_the_run_and_not_the_thread_that_hears_it(tmp_path: Path) -> None:
    def emit(event: Event) -> None:
        raise OSError(28, "No space left on device")

    def act() -> None:
        with others_of(2, emit=emit, log=tmp_path / "log", should_stop=lambda: False) as others:
            others.send({"do": "warn"})
            assert others._others[0].ended.wait(30)
            others.join(torch.device("cpu"))

    with pytest.raises(RunError, match=r"Rank 1 of 2: a warning of it could not be told: .*No space left"):
        act()


def test_ranks_meet_when_all_are_ready_and_the_run_s_process_takes_its_share_of_the_cores_only_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []

    def connect(*_: object, **__: object) -> None:
        threads.append(torch.get_num_threads())
        raise RankLost("waited in vain")

    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(launch, "share_of_cores", lambda _: before + 2)
    monkeypatch.setattr(launch, "Together", connect)

    def act() -> None:
        with others_of(2, emit=lambda _: None, log=tmp_path / "log", should_stop=lambda: False) as others:
            others.send({"do": "meet"})
            threads.append(torch.get_num_threads())
            others.join(torch.device("cpu"))

    with pytest.raises(RunError) as found:
        act()
    assert found.value.text == 'Rank 1 of 2: heard {"go": true}'
    assert threads == [before, before + 2]
    assert torch.get_num_threads() == before


def test_a_stop_while_ranks_are_waited_for_ends_them(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run("wait", tmp_path / "log", stop=True)


def test_warnings_of_one_rank_are_told_with_its_name_and_those_of_all_once(tmp_path: Path) -> None:
    said: list[Event] = []
    run("warn", tmp_path / "log", emit=said)
    assert [event.text for event in said if isinstance(event, Notice)] == ["both say this", "Rank 1 of 2: only this one says that"]


def test_errors_of_the_run_itself_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError), others_of(1, emit=lambda _: None, log=tmp_path / "log", should_stop=lambda: False):
        raise ConfigError(["x"])
    with pytest.raises(RankLost), others_of(1, emit=lambda _: None, log=tmp_path / "log", should_stop=lambda: False):
        raise RankLost("gone")


def test_a_rank_ends_when_the_process_that_started_it_is_killed() -> None:
    """What holds its stdin here is `sleep`, whose death closes it as that of the run's process does."""
    rank = ForkedPython("from ltx2core.distributed.follow import main; main()", "1", "2")
    handle = rank.stdin.fileno()
    holder = subprocess.Popen(["sleep", "100"], pass_fds=[handle])
    rank.stdin.close()
    assert rank.returncode is None
    holder.kill()
    holder.wait()
    assert rank.wait(timeout=60) == 0


def test_ranks_do_not_hear_ctrl_c_and_leave_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.tempfile, "tempdir", str(tmp_path))
    with others_of(2, emit=lambda _: None, log=tmp_path / "log", should_stop=lambda: False) as others:
        (other,) = others._others
        assert isinstance(other.process, subprocess.Popen)
        assert os.getsid(other.process.pid) != os.getsid(0)
        assert others.folder.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == [tmp_path / "log"]
