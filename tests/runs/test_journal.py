from __future__ import annotations

import json
import os
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from ltx2core.errors import StorageError
from ltx2core.runs.events import Notice, StepDone, from_json
from ltx2core.runs.journal import Journal, Tail, read_journal

if TYPE_CHECKING:
    from pathlib import Path


def step(number: int) -> StepDone:
    return StepDone(step=number, loss=0.5, video_loss=0.3, audio_loss=0.2, learning_rate=1e-4, grad_norm=None, seconds=0.1)


def test_what_is_emitted_is_read_back_with_its_time(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).emit(step(1))
    [entry] = read_journal(path)
    assert entry.event == step(1)
    assert entry.at > 1.7e9


def test_a_journal_cut_mid_line_reads_up_to_its_last_whole_event_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).emit(step(1))
    with path.open("a") as file:
        file.write('{"kind": "step_do')  # power lost here
    assert [entry.event for entry in read_journal(path)] == [step(1)]
    Journal(path).emit(step(2))
    assert [entry.event for entry in read_journal(path)] == [step(1), step(2)]


def test_a_tail_waits_for_the_end_of_a_line_and_repeats_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    tail = Tail(path)
    assert tail.read() == []  # no file yet
    Journal(path).emit(step(1))
    assert len(tail.read()) == 1
    line = json.dumps({"kind": "notice", "at": 1.0, "code": "x", "text": "y"})
    with path.open("a") as file:
        file.write(line[:10])
        file.flush()
        assert tail.read() == []
        file.write(line[10:] + "\n")
    assert [entry.event for entry in tail.read()] == [Notice(code="x", text="y")]


def test_events_of_two_threads_never_mix_in_a_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    threads = [Thread(target=lambda: [journal.emit(step(number)) for number in range(200)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_journal(journal.path)) == 400


def test_an_unknown_kind_or_a_newer_field_does_not_stop_a_reader() -> None:
    assert from_json({"kind": "from_the_future", "at": 1.0}) is None
    assert from_json({"kind": "notice", "code": "x", "text": "y", "colour": "red"}) == Notice(code="x", text="y")
    assert from_json({"kind": "step_done"}) is None


def test_a_full_disk_never_stops_the_loop_and_is_told_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    real_write = os.write

    def no_space(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", no_space)
    journal.emit(step(1))
    assert journal.lost == 1
    monkeypatch.setattr(os, "write", real_write)
    journal.emit(step(2))
    kinds = [entry.event.kind for entry in read_journal(journal.path)]
    assert kinds == ["step_done", "notice"]


def test_a_disk_that_fills_up_in_a_line_or_in_the_notice_of_a_gap_loses_only_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    real_write, room = os.write, [40, 0, 10_000, 0, 10_000, 10_000]

    def little_room(descriptor: int, data: bytes) -> int:
        if not (free := room.pop(0)):
            raise OSError(28, "No space left on device")
        return real_write(descriptor, data[:free])

    monkeypatch.setattr(os, "write", little_room)
    for number in range(1, 5):
        journal.emit(step(number))
    events = [entry.event for entry in read_journal(journal.path)]
    assert [event.step for event in events if isinstance(event, StepDone)] == [3, 4]
    assert [event.text[:2] for event in events if isinstance(event, Notice)] == ["2 "]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="journal"):
        Journal(tmp_path / "missing" / "journal.jsonl")
