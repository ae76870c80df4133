"""Whole folders: what is kept, what is read again, and what is said of clips beside each other."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest

from ltx2core.data import results as results_module
from ltx2core.data.buckets import BucketRule
from ltx2core.data.captions import CaptionRule
from ltx2core.data.results import Results, default_results_file
from ltx2core.data.survey import Progress, Row, Survey
from ltx2core.errors import DatasetError, Stopped
from tests.shots import panning, still, then

if TYPE_CHECKING:
    from pathlib import Path

FILENAMES = BucketRule(resolution=96, captions=CaptionRule(strategy="filename"))


@pytest.fixture
def clips(make_clip, tmp_path: Path) -> Path:
    for number in range(4):
        make_clip(f"clips/{number}.mp4", frames=20, picture=panning(number + 1), caption=f"number {number}")
    return tmp_path / "clips"


def survey(folder: Path, file: Path | None, **more: object) -> tuple[list[Row], list[str]]:
    """The rows of a folder, and the names of the files that had to be read."""
    read: list[str] = []
    with Results(file) as results:
        one = Survey(folder, results, **{"processes": 1, "rule": FILENAMES, **more})  # type: ignore[arg-type]
        one.measure(on_readings=lambda found: read.extend(reading.clip.path.name for _, reading in found))
        return list(one.rows()), sorted(read)


def codes(rows: list[Row]) -> dict[str, set[str]]:
    return {row.clip.path.name: {problem.code for problem in row.clip.problems} for row in rows}


def test_a_second_survey_reads_nothing_and_says_the_same(clips: Path, tmp_path: Path) -> None:
    first, read = survey(clips, tmp_path / "kept.sqlite3")
    assert read == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]
    second, read = survey(clips, tmp_path / "kept.sqlite3")
    assert read == []
    assert second == first
    assert [row.number for row in first] == [0, 1, 2, 3]


def test_only_what_changed_is_read_again(clips: Path, tmp_path: Path, make_clip) -> None:
    survey(clips, tmp_path / "kept.sqlite3")
    make_clip("clips/1.mp4", frames=30, picture=panning(9))
    make_clip("clips/4.mp4", frames=20, picture=panning(8))
    (clips / "0.mp4").unlink()
    stat = (clips / "2.mp4").stat()
    os.utime(clips / "2.mp4", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    rows, read = survey(clips, tmp_path / "kept.sqlite3")
    assert read == ["1.mp4", "2.mp4", "4.mp4"]
    assert [(row.clip.path.name, row.clip.frames) for row in rows] == [("1.mp4", 30), ("2.mp4", 20), ("3.mp4", 20), ("4.mp4", 20)]


def test_headers_known_are_not_enough_for_the_pictures_but_the_other_way_round(clips: Path, tmp_path: Path) -> None:
    file = tmp_path / "kept.sqlite3"
    assert len(survey(clips, file, depth="header")[1]) == 4
    assert survey(clips, file, depth="header")[1] == []
    assert len(survey(clips, file)[1]) == 4
    assert survey(clips, file, depth="header")[1] == []


def test_other_code_finds_anew_and_another_rule_does_not(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "kept.sqlite3"
    survey(clips, file)
    rows, read = survey(clips, file, rule=BucketRule(resolution=64, frame_rate=30.0))
    assert read == []
    assert rows[0].bucket is not None
    assert rows[0].bucket.label == "96x64@17"
    assert rows[0].captions == ("number 0",)
    monkeypatch.setattr(results_module, "code_of", lambda modules: "other")
    assert len(survey(clips, file)[1]) == 4


def test_a_caption_written_later_is_seen_without_reading_its_clip(clips: Path, tmp_path: Path) -> None:
    rule = BucketRule(resolution=96)
    (clips / "0.txt").unlink()
    rows, _ = survey(clips, tmp_path / "kept.sqlite3", rule=rule)
    assert "missing_caption" in codes(rows)["0.mp4"]
    (clips / "0.txt").write_text("written now")
    rows, read = survey(clips, tmp_path / "kept.sqlite3", rule=rule)
    assert read == []
    assert rows[0].captions == ("written now",)


def test_a_survey_that_was_stopped_goes_on_where_it_was(clips: Path, tmp_path: Path) -> None:
    file, read = tmp_path / "kept.sqlite3", []
    with Results(file) as results:
        one = Survey(clips, results, rule=FILENAMES, processes=1)
        with pytest.raises(Stopped):
            one.measure(on_readings=read.extend, should_stop=lambda: len(read) >= 2)
    assert 2 <= len(read) < 4
    assert len(survey(clips, file)[1]) == 4 - len(read)


def test_progress_counts_up_and_says_what_was_known(clips: Path, tmp_path: Path) -> None:
    file = tmp_path / "kept.sqlite3"
    survey(clips, file)
    (clips / "new.mp4").write_bytes((clips / "0.mp4").read_bytes())
    told: list[Progress] = []
    with Results(file) as results:
        Survey(clips, results, rule=FILENAMES, processes=1).measure(on_progress=told.append)
    assert [(progress.done, progress.total, progress.known) for progress in told] == [(4, 5, 4), (5, 5, 4)]
    assert told[-1].seconds_left == 0.0
    assert Progress(done=1, total=2, known=0, bytes_read=100, bytes_left=300, seconds=2.0).seconds_left == 6.0


def test_a_damaged_file_of_results_is_set_aside_and_said(clips: Path, tmp_path: Path) -> None:
    file = tmp_path / "kept.sqlite3"
    file.write_bytes(b"no database at all" * 100)
    with Results(file) as results:
        assert "was damaged" in results.trouble
    assert len(survey(clips, file)[1]) == 4
    assert survey(clips, file)[1] == []
    assert (tmp_path / "kept.sqlite3.damaged").exists()


def test_results_of_another_format_are_set_aside(tmp_path: Path) -> None:
    file = tmp_path / "kept.sqlite3"
    with Results(file) as results:
        assert results.trouble == ""
    database = sqlite3.connect(file)
    database.execute("PRAGMA user_version = 99")
    database.commit()
    database.close()
    with Results(file) as results:
        assert "set aside" in results.trouble


def test_where_nothing_can_be_kept_the_survey_works_and_says_so(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Results(tmp_path / "file" / "kept.sqlite3") as results:
        assert "cannot be kept" in results.trouble
        one = Survey(clips, results, rule=FILENAMES, processes=1)
        one.measure()
        assert len(list(one.rows())) == 4


def test_two_surveys_of_one_folder_at_once_share_one_file(clips: Path, tmp_path: Path) -> None:
    found: list[list[Row]] = []
    threads = [threading.Thread(target=lambda: found.append(survey(clips, tmp_path / "kept.sqlite3")[0])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert found[0] == found[1]


def test_results_lie_where_the_root_is_or_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert default_results_file(tmp_path) == tmp_path / "cache" / "scan.sqlite3"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    assert default_results_file(None) == tmp_path / "mine" / "ltx2tui" / "scan.sqlite3"


def test_copies_are_named_with_the_first_of_their_kind(clips: Path, tmp_path: Path) -> None:
    (clips / "sub").mkdir()
    shutil.copy(clips / "2.mp4", clips / "sub" / "again.mp4")
    os.link(clips / "2.mp4", clips / "sub" / "linked.mp4")
    rows, _ = survey(clips, tmp_path / "kept.sqlite3")
    found = codes(rows)
    assert {name for name, seen in found.items() if "near_duplicate" in seen} == {"again.mp4", "linked.mp4"}
    text = next(problem.text for problem in rows[4].clip.problems if problem.code == "near_duplicate")
    assert text == "again.mp4 looks like 2.mp4 from beginning to end; together they weigh twice."


def test_of_copies_one_that_can_be_trained_on_is_the_original(clips: Path, tmp_path: Path) -> None:
    shutil.copy(clips / "2.mp4", clips / "captioned.mp4")
    (clips / "captioned.txt").write_text("a caption")
    (clips / "2.txt").unlink()
    rows, _ = survey(clips, tmp_path / "kept.sqlite3", rule=BucketRule(resolution=96))
    assert {name for name, seen in codes(rows).items() if "near_duplicate" in seen} == {"2.mp4"}


@pytest.mark.parametrize(("batch_size", "named"), [(1, 0), (4, 0), (5, 4)])
def test_a_bucket_smaller_than_a_batch_is_named_at_each_of_its_clips(clips: Path, batch_size: int, named: int) -> None:
    rows, _ = survey(clips, None, batch_size=batch_size, depth="header")
    problems = [problem for row in rows for problem in row.clip.problems if problem.code == "small_bucket"]
    assert len(problems) == named
    if named:
        assert problems[0].text == "0.mp4: bucket 128x96@17 has 4 of the 5 clips that a batch takes."


def test_every_file_is_listed_with_its_reason_and_none_is_lost(clips: Path, tmp_path: Path, make_clip) -> None:
    (clips / "empty.mp4").touch()
    (clips / "old.wmv").write_bytes(b"RIFF")
    (clips / "text.mov").write_text("words")
    (clips / "gone.mp4").symlink_to(tmp_path / "nowhere")
    make_clip("clips/short.mp4", frames=5)
    rows, _ = survey(clips, tmp_path / "kept.sqlite3")
    left_out = {row.clip.path.name: [p.code for p in row.clip.problems if p.level == "error"] for row in rows if row.bucket is None}
    assert left_out == {
        "empty.mp4": ["empty_file"],
        "gone.mp4": ["unreadable"],
        "old.wmv": ["unsupported_type"],
        "short.mp4": ["too_short"],
        "text.mov": ["not_a_video"],
    }
    assert len(rows) == 9
    assert all(problem.fix for row in rows for problem in row.clip.problems if problem.level == "error")


def test_a_file_that_could_not_be_opened_is_tried_again_by_the_next_survey(clips: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.mp4"
    (clips / "link.mp4").symlink_to(target)
    rows, _ = survey(clips, tmp_path / "kept.sqlite3")
    assert "unreadable" in codes(rows)["link.mp4"]
    shutil.copy(clips / "0.mp4", target)
    rows, read = survey(clips, tmp_path / "kept.sqlite3")
    assert read == ["link.mp4"]
    assert "unreadable" not in codes(rows)["link.mp4"]


def test_what_pictures_show_reaches_the_row(make_clip, tmp_path: Path) -> None:
    make_clip("clips/cut.mp4", frames=40, picture=then((panning(1), 20), (panning(2), 20)))
    make_clip("clips/still.mp4", frames=20, picture=still(panning(3)))
    rows, _ = survey(tmp_path / "clips", None)
    found = codes(rows)
    assert "hard_cut" in found["cut.mp4"]
    assert "static_clip" in found["still.mp4"]
    assert all(row.bucket is not None for row in rows)  # warnings leave nothing out


def test_a_low_rate_is_told_once(make_clip, tmp_path: Path) -> None:
    make_clip("clips/a.mp4", frames=20, fps=10, picture=panning(1))
    rows, _ = survey(tmp_path / "clips", None, depth="header")
    assert {"low_frame_rate", "unusual_frame_rate"} & codes(rows)["a.mp4"] == {"low_frame_rate"}


def test_a_folder_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with Results(None) as results, pytest.raises(DatasetError, match="missing"):
        Survey(tmp_path / "nowhere", results)
