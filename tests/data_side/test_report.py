from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltx2core.config.datasets import AudioSettings, VideoDataset, VideoSettings
from ltx2core.data.buckets import BucketRule, place_all
from ltx2core.data.captions import CaptionRule
from ltx2core.data.clip import PROBLEM_CODES, Clip, Treatment
from ltx2core.data.dataset import bucket_rule
from ltx2core.data.report import JsonReport, Summary, row_json, row_lines, summarise
from ltx2core.data.results import Results
from ltx2core.data.scan import scan_folder
from ltx2core.data.sound_alone import SoundRule
from ltx2core.data.survey import Row, Survey
from ltx2core.data.write import write_png, write_wav

if TYPE_CHECKING:
    from ltx2core.data.media import Media


def check_folder(folder: Path, rule: BucketRule | None = None) -> list[Row]:
    """The rows of a folder, from its headers alone."""
    with Results(None) as results:
        survey = Survey(folder, results, rule=rule, depth="header", processes=1)
        survey.measure()
        return list(survey.rows())


def test_a_report_has_the_documented_form_and_is_plain_json(make_clip, tmp_path: Path) -> None:
    make_clip("a.mp4", width=768, height=512, frames=49, sound_seconds=1.96)
    make_clip("b.mp4", frames=5)
    make_clip("c.mp4", caption=None)
    (tmp_path / "d.mp4").touch()
    rows = check_folder(tmp_path, BucketRule(resolution=512, num_frames=49))
    written: list[str] = []
    report, summed = JsonReport(written.append), Summary()
    for row in rows:
        summed.add(row)
        report.add(row)
    report.close(summed)
    assert len(written) == len(rows) + 2  # as it goes, not at the end
    value = json.loads("".join(written))
    first = value["clips"][0]
    assert set(first) == {"path", "width", "height", "fps", "frames", "duration", "audio", "caption", "bucket", "issues"}
    assert (first["bucket"], first["fps"], first["duration"], first["issues"]) == ("768x512@49", 25.0, 1.96, [])
    assert first["audio"] == {"codec": "aac", "sample_rate": 48000, "channels": 2, "duration": 1.96}
    assert [clip["bucket"] for clip in value["clips"]] == ["768x512@49", None, None, None]
    assert set(value["clips"][1]["issues"][0]) == {"code", "level", "text", "fix"}
    summary = value["summary"]
    assert (summary["clips"], summary["usable"], summary["left_out"], summary["with_audio"]) == (4, 1, 3, 1)
    assert summary["buckets"] == {"768x512@49": 1}
    assert summary["issues"]["empty_file"] == 1
    assert set(summary["issues"]) <= set(PROBLEM_CODES)
    assert summed.closing_line() == "1 of 4 clips can be trained on: 2 s, 1 with sound, 1 bucket; 3 left out."


def test_the_lines_name_file_problem_and_way_out(make_clip, tmp_path: Path) -> None:
    make_clip("b.mp4", frames=5)
    (row,) = check_folder(tmp_path)
    head, error, *_ = row_lines(row)
    assert head.startswith(f"{tmp_path / 'b.mp4'}  128x96  25 fps  5 frames  0.20 s  h264  no sound  ~7 tokens  ->  left out")
    assert error == (
        "  error: b.mp4 has 5 frames at 25 fps (0.20 s); the smallest bucket takes 9. Use a clip of at least 0.36 s. [too_short]"
    )


def test_every_level_in_the_table_is_a_level(tmp_path: Path) -> None:
    assert all(text.split(":")[0] in ("error", "warning", "info") for text in PROBLEM_CODES.values())


def test_a_path_that_is_not_utf8_can_be_printed() -> None:
    row = Row(clip=Clip(path=Path(os.fsdecode(b"caf\xe9.mp4"))), bucket=None)
    assert row_lines(row)[0].encode()
    assert json.dumps(row_json(row), ensure_ascii=False).encode()


def test_the_rows_of_several_datasets_add_up(make_clip, tmp_path: Path) -> None:
    make_clip("one/a.mp4")
    make_clip("two/b.mp4")
    summary = summarise([*check_folder(tmp_path / "one"), *check_folder(tmp_path / "two")])
    assert (summary.clips, summary.usable) == (2, 2)


def test_a_dataset_entry_places_clips_by_its_own_settings(make_clip, tmp_path: Path) -> None:
    make_clip("a.mp4", width=160, height=96, frames=60, fps=30, caption="one\ntwo")
    make_clip("b.mp4", width=96, height=160, frames=12)
    (tmp_path / "c.mp4").touch()
    dataset = VideoDataset(
        instance_data_dir=tmp_path,
        instance_prompt="sks",
        prepend_instance_prompt=True,
        resolution=64,
        repeats=10,
        video=VideoSettings(num_frames=33, min_frames=9),
    )
    rule = bucket_rule(dataset, frame_rate=24)
    (wide, tall), (left_out,) = place_all(scan_folder(tmp_path, captions=rule.captions), rule)
    assert (wide.bucket.label, tall.bucket.label) == ("96x64@33", "64x96@9")
    assert (wide.fps, wide.repeats, wide.captions) == (24, 10, ("sks one", "sks two"))
    assert left_out.path.name == "c.mp4"


def test_every_setting_of_a_dataset_reaches_the_rule() -> None:
    video = VideoSettings(
        num_frames=33, min_frames=17, max_frames=99, frame_rate=30, bucket_strategy="resolution_frames", frame_interval=16
    )
    dataset = VideoDataset(
        instance_data_dir=Path("clips"), resolution=0.25, resolution_type="area", repeats=3, caption_strategy="filename",
        only_instance_prompt=True, instance_prompt=["a", "b"], disable_multiline_split=True,
        video=video, audio=AudioSettings(audio_only=True),
    )  # fmt: skip
    captions = CaptionRule(strategy="filename", instance_prompts=("a", "b"), only_instance_prompt=True, split_lines=False)
    assert bucket_rule(dataset, frame_rate=25) == BucketRule(
        resolution=0.25,
        resolution_type="area",
        num_frames=33,
        min_frames=17,
        max_frames=99,
        frame_rate=30,
        bucket_strategy="resolution_frames",
        frame_interval=16,
        repeats=3,
        captions=captions,
        treatment=Treatment(dataset="clips"),
        sound_only=True,
    )


def test_the_real_clips_are_both_usable(real_clips: Path) -> None:
    rows = check_folder(real_clips, BucketRule(resolution=512, num_frames=121, captions=CaptionRule(strategy="filename")))
    buckets = {row.clip.path.name: row.bucket.label if row.bucket else None for row in rows}
    assert buckets["bikes.mp4"] == "1216x512@121"
    assert buckets["bigbuckbunny.mp4"] == "896x512@121"


def test_sound_alone_is_reported_by_its_length_beside_buckets_of_pictures(make_clip, tmp_path: Path) -> None:
    make_clip("a/one.mp4", frames=49, sound_seconds=1.96)
    make_clip("b/two.mp4", frames=49)
    make_clip("b/three.mp4", frames=49, sound_seconds=1.96)
    pictures = check_folder(tmp_path / "a", rule=BucketRule(resolution=96, num_frames=49))
    sound = check_folder(tmp_path / "b", rule=BucketRule(num_frames=49, sound_only=True))
    summary = summarise([*pictures, *sound])
    assert summary.to_json()["buckets"] == {"128x96@49": 1, "1.96s": 1}
    assert [row_json(row)["bucket"] for row in sound] == ["1.96s", None]
    assert "2 of 3 clips can be trained on" in summary.closing_line()
    assert any("no_sound" in line for line in row_lines(sound[1]))


def test_pictures_and_sounds_are_surveyed_by_what_they_are(make_clip, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.zeros((64, 96, 3), dtype=np.uint8))
    (tmp_path / "a.txt").write_text("black")
    write_wav(tmp_path / "b.wav", np.zeros((2, 32000), dtype=np.float32), sample_rate=16000)
    (tmp_path / "b.txt").write_text("silence")
    make_clip("c.mp4", width=96, height=64, frames=9, sound_seconds=0.5)

    def lines(media: Media, rule: BucketRule) -> list[str]:
        with Results(None) as results:
            survey = Survey(tmp_path, results, rule=rule, processes=1, media=media)
            survey.measure()
            return [row_lines(row)[0].removeprefix(f"{tmp_path}/") for row in survey.rows()]

    rule = BucketRule(resolution=64, num_frames=9)
    stills = lines("image", rule)
    assert stills[0] == "a.png  96x64  png  ~2 tokens  ->  96x64@1"
    assert stills[1].startswith("c.mp4  unknown  ->  left out")
    assert [line.split("  ->  ")[1] for line in lines("both", rule)] == ["96x64@1", "96x64@9"]
    heard = lines("audio", BucketRule(sound=SoundRule(interval=1.5), sound_only=True))
    assert heard[0].startswith("b.wav  2.00 s  pcm_s16le 2 ch")
    assert [line.split("  ->  ")[1] for line in heard] == ["1.52s", "0.48s"]
