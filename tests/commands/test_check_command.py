from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ltx2tui.cli import main
from tests.shots import panning, then


@pytest.fixture
def clips(make_clip, tmp_path: Path) -> Path:
    make_clip("clips/cut.mp4", frames=60, picture=then((panning(1), 30), (panning(2), 30)), sound_seconds=2.4)
    make_clip("clips/good.mp4", frames=60, picture=panning(3))
    (tmp_path / "clips" / "empty.mp4").touch()
    return tmp_path / "clips"


def test_a_folder_is_told_clip_by_clip_with_every_reason(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(clips)]) == 0
    said = capsys.readouterr()
    assert "empty.mp4  unknown  ->  left out" in said.out
    assert "error: empty.mp4 is empty (0 bytes). Copy or export it again. [empty_file]" in said.out
    assert "another shot begins at 1.20 s" in said.out
    assert "2 of 3 clips can be trained on" in said.out
    assert said.err == ""  # no progress where nobody watches


def test_json_is_whole_and_has_the_documented_keys(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(clips), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert set(value) == {"clips", "summary"}
    keys = {"path", "width", "height", "fps", "frames", "duration", "audio", "caption", "bucket", "issues"}
    assert all(set(clip) == keys for clip in value["clips"])
    assert [Path(clip["path"]).name for clip in value["clips"]] == ["cut.mp4", "empty.mp4", "good.mp4"]
    assert "hard_cut" in {issue["code"] for issue in value["clips"][0]["issues"]}
    assert value["summary"]["issues"]["hard_cut"] == 1
    keys = {"clips", "usable", "left_out", "with_audio", "seconds", "errors", "warnings", "buckets", "issues"}
    assert set(value["summary"]) == keys


def test_quick_looks_at_headers_only(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(clips), "--quick"]) == 0
    assert "hard_cut" not in capsys.readouterr().out


def test_what_is_found_is_kept_below_a_root_that_is_asked_for(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(clips), "--root", str(tmp_path / "root")]) == 0
    assert (tmp_path / "root" / "cache" / "scan.sqlite3").is_file()
    first = capsys.readouterr().out
    assert main(["check", str(clips), "--root", str(tmp_path / "root")]) == 0
    assert capsys.readouterr().out == first


def test_a_dataset_list_is_checked_by_its_own_rules_and_batch(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(clips, tmp_path / "other")
    entries = [
        {"id": "a", "dataset_type": "video", "instance_data_dir": "clips", "resolution": 64, "video": {"num_frames": 17}},
        {"id": "b", "dataset_type": "video", "instance_data_dir": "other", "resolution": 96, "video": {"num_frames": 9}},
    ]
    (tmp_path / "datasets.json").write_text(json.dumps(entries))
    config = {
        "model_family": "ltxvideo2",
        "pretrained_model_name_or_path": "nano",
        "data_backend_config": "datasets.json",
        "train_batch_size": 4,
        "output_dir": "out",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["check", str(tmp_path / "config.json"), "--json", "--quick"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["summary"]["buckets"] == {"128x96@9": 2, "96x64@17": 2}
    assert value["summary"]["issues"]["small_bucket"] == 4


def test_nothing_usable_is_a_failure_and_a_missing_folder_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.mp4").touch()
    assert main(["check", str(tmp_path)]) == 1
    assert "0 of 1 clips" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "nowhere")]) == 1
    assert "is missing" in capsys.readouterr().err


def test_fix_writes_a_folder_beside_says_what_was_done_and_checks_it(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(clips), "--fix"]) == 0
    said = capsys.readouterr().out
    assert "cut.mp4: split at its cuts: 1.20 s; its caption copied to each part: read them again. -> cut-part1.mp4, cut-part2.mp4" in said
    assert "empty.mp4: left out. empty.mp4 is empty (0 bytes)." in said
    assert "good.mp4: as it was." in said
    assert f"{clips} is as it was. The mended clips are in {clips}-fixed:" in said
    assert "3 of 3 clips can be trained on" in said
    assert "hard_cut" not in said
    assert sorted(path.name for path in clips.iterdir()) == ["cut.mp4", "cut.txt", "empty.mp4", "good.mp4", "good.txt"]


def test_fix_in_json_names_every_clip_and_takes_another_folder(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(clips), "--fix", "--json", "--out", str(tmp_path / "better")]) == 0
    value = json.loads(capsys.readouterr().out)
    fixed = {Path(entry["path"]).name: entry for entry in value["summary"]["fixed"]}
    assert set(fixed) == {"cut.mp4", "empty.mp4", "good.mp4"}
    assert set(fixed["cut.mp4"]) == {"path", "outputs", "did", "left", "left_out"}
    assert [Path(path).name for path in fixed["cut.mp4"]["outputs"]] == ["cut-part1.mp4", "cut-part2.mp4"]
    assert {Path(clip["path"]).parent for clip in value["clips"]} == {tmp_path / "better"}


def test_out_without_fix_is_a_wrong_call(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(clips), "--out", "x"]) == 2
    assert "--fix" in capsys.readouterr().err
