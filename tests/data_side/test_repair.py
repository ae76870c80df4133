"""Every repair done to a real file, and the mended file checked again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest

from ltx2core.data.buckets import BucketRule
from ltx2core.data.repair.folder import Outcome, mend_folder, mended_folder
from ltx2core.data.repair.plan import FIXABLE, Repair
from ltx2core.data.repair.tone import HLG, PEAK, PQ, WHITE, roll_off, tone_map
from ltx2core.data.results import Results
from ltx2core.data.survey import Row, Survey
from ltx2core.errors import DatasetError, Stopped
from tests.shots import barred, grey, panning, still, then

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RULE = BucketRule(resolution=96, frame_rate=25.0)
FINE = {"preset": "ultrafast", "crf": "4"}


class Mended:
    """A folder before and after."""

    def __init__(self, folder: Path, rule: BucketRule = RULE) -> None:
        with Results(None) as results:
            survey = Survey(folder, results, rule=rule, processes=1)
            survey.measure()
            self.before = {row.clip.path.name: row for row in survey.rows()}
            self.out = mended_folder(folder)
            self.outcomes = {outcome.path.name: outcome for outcome in mend_folder(survey, self.out, processes=1)}
            self.after: dict[str, Row] = {}
            if any(outcome.outputs for outcome in self.outcomes.values()):
                again = survey.over(self.out)
                again.measure()
                self.after = {row.clip.path.name: row for row in again.rows()}

    def codes(self, name: str) -> set[str]:
        return {problem.code for problem in self.after[name].clip.problems}

    def outcome(self, name: str = "a.mp4") -> Outcome:
        return self.outcomes[name]


@pytest.fixture
def clip(make_clip) -> Callable[..., Path]:
    """Writes a clip into the folder that is mended."""
    return lambda name="a.mp4", **more: make_clip(f"clips/{name}", **{"frames": 50, "picture": panning(1)} | more)


def pictures(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def make_rows() -> dict[str, dict[str, object]]:
    """How to make a clip that has the problem and no other, by code."""
    rng = np.random.default_rng(0)
    tone = 0.3 * np.sin(np.arange(96000) / 20)[None].repeat(2, 0).astype(np.float32)
    shot = panning(1)
    hdr = "transfer=smpte2084:colorprim=bt2020:colormatrix=bt2020nc"
    return {
        "rotated": {"rotation": 90},
        "interlaced": {"options": {"preset": "ultrafast", "x264-params": "tff=1"}},
        "hdr": {"pixel_format": "yuv420p10le", "options": {"preset": "ultrafast", "x264-params": hdr}},
        "high_bit_depth": {"pixel_format": "yuv420p10le"},
        "variable_frame_rate": {"times_ms": [int(when) for when in np.cumsum([0, *rng.integers(15, 65, 49)])]},
        "unusual_frame_rate": {"fps": 40},
        "letterbox": {"picture": barred(shot, top=12, bottom=12), "options": FINE},
        "hard_cut": {"picture": then((shot, 25), (panning(2), 25))},
        "black_frames": {"picture": then((grey(0), 10), (shot, 40))},
        "frozen": {"frames": 100, "picture": then((shot, 40), (still(shot, 40), 30), (lambda number: shot(number + 41), 30))},
        "audio_silent": {"sound": 0 * tone},
        "audio_short": {"sound": tone[:, :72000]},
        "audio_late": {"name": "a.mkv", "sound": tone[:, :72000], "sound_start": 0.5},
        "audio_early": {"name": "a.mkv", "sound": np.tile(tone, 2), "times_ms": [500 + 40 * number for number in range(50)]},
        "caption_not_utf8": {"caption": "a café".encode("cp1252")},
    }


@pytest.mark.parametrize("code", sorted(make_rows()))
def test_a_mended_clip_is_clean_and_the_original_as_it_was(clip, tmp_path: Path, code: str) -> None:
    path = clip(**make_rows()[code])
    bytes_before = path.read_bytes()
    mended = Mended(tmp_path / "clips")
    assert code in {problem.code for problem in mended.before[path.name].clip.problems}
    outcome = mended.outcome(path.name)
    assert outcome.did, outcome
    assert outcome.left == ()
    assert outcome.outputs
    for output in outcome.outputs:
        found = mended.codes(output.name)
        assert not found - {"no_audio", "odd_size", "trimmed", "upscaled"}, found
        assert mended.after[output.name].bucket is not None
        assert output.with_suffix(".txt").is_file()
    assert path.read_bytes() == bytes_before
    assert sorted(file.name for file in (tmp_path / "clips").iterdir()) == sorted([path.name, "a.txt"])


def test_every_repair_that_is_promised_is_tested() -> None:
    elsewhere = {"truncated", "unsupported_type", "too_long", "near_duplicate", "unknown_audio_codec"}
    assert set(make_rows()) | elsewhere == FIXABLE


def test_a_turned_clip_comes_out_as_a_player_shows_it(clip, tmp_path: Path) -> None:
    for degrees in (90, 180, 270):
        clip(f"{degrees}.mp4", rotation=degrees, frames=10, options=FINE, picture=panning(degrees))
    mended = Mended(tmp_path / "clips")
    for degrees in (90, 180, 270):
        shown = np.rot90(panning(degrees)(5), degrees // 90)
        (output,) = mended.outcome(f"{degrees}.mp4").outputs
        assert np.abs(pictures(output)[5].astype(int) - shown).mean() < 6
        assert mended.after[f"{degrees}.mp4"].clip.rotation == 0


def test_bars_are_cropped_to_the_line_and_nothing_else_is(clip, tmp_path: Path) -> None:
    clip(picture=barred(panning(1), top=12, bottom=16, left=8, right=8), frames=20, options=FINE)
    clip("turned.mp4", picture=barred(panning(1), left=16, right=24), rotation=90, frames=20, options=FINE)
    mended = Mended(tmp_path / "clips")
    assert "12 px at its top, 16 px at its bottom, 8 px at its left, 8 px at its right" in mended.outcome().did[0]
    after = mended.after["a.mp4"].clip
    assert (after.width, after.height) == (112, 68)
    assert np.abs(pictures(mended.outcome().outputs[0])[3].astype(int) - panning(1)(3)[12:80, 8:120]).mean() < 6
    turned = mended.after["turned.mp4"].clip
    assert (turned.width, turned.height) == (96, 88)


def test_a_clip_is_split_at_its_cuts_and_each_part_has_its_frames_sound_and_caption(clip, tmp_path: Path) -> None:
    low, high = (np.sin(2 * np.pi * hertz * np.arange(48000) / 48000) * 0.3 for hertz in (300, 3000))
    sound = np.concatenate([low, high])[None].repeat(2, 0).astype(np.float32)
    clip(picture=then((panning(1), 25), (panning(2), 25)), sound=sound)
    mended = Mended(tmp_path / "clips")
    outcome = mended.outcome()
    assert [output.name for output in outcome.outputs] == ["a-part1.mp4", "a-part2.mp4"]
    assert outcome.did == ("split at its cuts: 1.00 s", "its caption copied to each part: read them again")
    for output, seed, hertz in zip(outcome.outputs, (1, 2), (300, 3000), strict=True):
        shown = pictures(output)
        assert len(shown) == 25
        assert np.abs(shown[4].astype(int) - panning(seed)(4)).mean() < 12
        assert output.with_suffix(".txt").read_text() == "a square moves to the right"
        clip_after = mended.after[output.name].clip
        assert clip_after.audio is not None
        assert clip_after.audio.seconds == pytest.approx(1.0, abs=0.05)
        with av.open(str(output)) as container:
            wave = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])[4096:36864]
        assert np.argmax(np.abs(np.fft.rfft(wave))) * 48000 / len(wave) == pytest.approx(hertz, rel=0.02)


def test_what_is_too_short_after_a_split_is_named(clip, tmp_path: Path) -> None:
    clip(picture=then((panning(1), 6), (panning(2), 44)))
    clip("b.mp4", frames=14, picture=then((panning(1), 7), (panning(2), 7)))
    mended = Mended(tmp_path / "clips")
    assert "left out as too short: 0.00 to 0.24 s" in mended.outcome().did
    assert len(pictures(mended.outcome().outputs[0])) == 44
    assert "no part of it is left that is long enough" in mended.outcome("b.mp4").left_out


def test_a_variable_rate_becomes_the_datasets_and_keeps_its_timing(clip, tmp_path: Path) -> None:
    """A grey that follows the clock: frame k of the result shows the grey of k / 25 s."""
    times = [0, *range(40, 1000, 60), *range(1000, 2000, 20)]
    clip(times_ms=times, frames=len(times), picture=lambda number: np.full((96, 128, 3), 20 + times[number] // 10, np.uint8), options=FINE)
    mended = Mended(tmp_path / "clips")
    shown = pictures(mended.outcome().outputs[0]).mean(axis=(1, 2, 3))
    assert mended.after["a.mp4"].clip.fps == 25.0
    assert np.abs(shown[:48] - (20 + 4 * np.arange(48))).max() < 6  # 40 ms are 4 levels, a gap of 60 ms one step more


def test_a_silent_track_is_removed_without_touching_the_pictures(clip, tmp_path: Path) -> None:
    path = clip(sound=np.zeros((2, 96000), dtype=np.float32))
    mended = Mended(tmp_path / "clips")
    (output,) = mended.outcome().outputs
    assert (pictures(output) == pictures(path)).all()
    assert mended.after["a.mp4"].clip.audio is None


def test_combs_are_gone_after_deinterlacing(clip, tmp_path: Path) -> None:
    """Two half pictures of a thing that moves 8 pixels between them: the lines of a frame differ, and after mending hardly do."""
    one = panning(1, speed=8)

    def picture(number: int) -> np.ndarray:
        canvas = one(2 * number).copy()
        canvas[1::2] = one(2 * number + 1)[1::2]
        return canvas

    path = clip(picture=picture, options={"preset": "ultrafast", "crf": "4", "x264-params": "tff=1"})

    def combs(shown: np.ndarray) -> float:
        lines = shown[20].astype(int)
        return float(np.abs(lines[1:-1] - (lines[:-2] + lines[2:]) / 2).mean())

    mended = Mended(tmp_path / "clips")
    assert combs(pictures(mended.outcome().outputs[0])) < combs(pictures(path)) / 3


def test_copies_are_left_out_and_named(clip, tmp_path: Path) -> None:
    clip()
    clip("b.mp4")
    mended = Mended(tmp_path / "clips")
    assert mended.outcome("b.mp4").outputs == ()
    assert "b.mp4 looks like a.mp4" in mended.outcome("b.mp4").left_out
    assert list(mended.after) == ["a.mp4"]


def test_a_clip_without_a_fault_is_linked_and_its_caption_copied(clip, tmp_path: Path) -> None:
    path = clip("sub/a.mp4", picture=panning(3), sound_seconds=2.0)
    mended = Mended(tmp_path / "clips")
    outcome = mended.outcome()
    assert (outcome.did, outcome.outputs) == ((), (mended.out / "sub" / "a.mp4",))
    assert outcome.outputs[0].samefile(path)
    assert not outcome.outputs[0].with_suffix(".txt").samefile(path.with_suffix(".txt"))


def test_what_cannot_be_mended_is_named_and_nothing_is_invented(clip, tmp_path: Path) -> None:
    clip("low.mp4", fps=12)
    clip("stands.mp4", picture=still(panning(2)))
    clip("short.mp4", frames=5, picture=panning(3))
    clip("empty.mp4", picture=panning(4), caption="")
    clip("loud.mp4", picture=panning(5), sound=np.clip(5 * np.sin(np.arange(96000) / 20), -1, 1)[None].repeat(2, 0).astype(np.float32))
    (tmp_path / "clips" / "none.mp4").touch()
    mended = Mended(tmp_path / "clips")
    assert mended.outcome("low.mp4").left == ("low_frame_rate",)
    assert mended.outcome("stands.mp4").left == ("static_clip",)
    assert mended.outcome("loud.mp4").left == ("audio_clipped",)
    assert "has 5 frames" in mended.outcome("short.mp4").left_out
    assert mended.outcome("none.mp4").left_out == "none.mp4 is empty (0 bytes)."
    assert mended.outcome("empty.mp4").outputs[0].with_suffix(".txt").read_text() == ""
    assert mended.outcome("low.mp4").line() == "low.mp4: as it was. Stays: low frame rate."


def test_what_can_be_read_of_a_cut_off_file_is_kept(clip, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 96, 128, 3), dtype=np.uint8)
    path = clip(frames=60, picture=lambda number: noise[number], format_options={"movflags": "+faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 7 // 10])
    mended = Mended(tmp_path / "clips")
    assert mended.outcome().did == ("what can be read of it kept",)
    after = mended.after["a.mp4"]
    assert 30 <= after.clip.frames <= 45
    assert after.bucket is not None


def test_an_avi_becomes_an_mp4(clip, tmp_path: Path) -> None:
    clip("a.avi", codec="mpeg4", sound_seconds=2.0, sound_codec="pcm_s16le")
    mended = Mended(tmp_path / "clips")
    assert mended.outcome("a.avi").did == ("encoded as H.264 in mp4",)
    assert mended.after["a.mp4"].bucket is not None
    assert mended.after["a.mp4"].clip.audio is not None


def test_a_container_that_is_not_read_is_named(tmp_path: Path, clip) -> None:
    clip()
    (tmp_path / "clips" / "b.wmv").write_bytes(b"\x30\x26\xb2\x75" + bytes(2000))
    mended = Mended(tmp_path / "clips")
    assert mended.outcome("b.wmv").left_out.startswith("It could not be mended: ")


def test_a_clip_beyond_max_frames_is_cut_up(clip, tmp_path: Path) -> None:
    clip(frames=100)
    mended = Mended(tmp_path / "clips", BucketRule(resolution=96, max_frames=40))
    assert sorted(mended.after[output.name].clip.frames for output in mended.outcome().outputs) == [33, 33, 34]


def test_sound_that_nothing_can_decode_is_removed(clip, tmp_path: Path) -> None:
    path = clip(sound_seconds=2.0)
    data = path.read_bytes()
    assert data.count(b"\x40\x15") == 1  # the kind of sound (MPEG-4 audio) in the track's description
    path.write_bytes(data.replace(b"mp4a", b"zzzz").replace(b"\x40\x15", b"\x99\x15"))
    mended = Mended(tmp_path / "clips")
    assert "unknown_audio_codec" in {problem.code for problem in mended.before["a.mp4"].clip.problems}
    assert mended.outcome().did == ("its sound, which cannot be decoded, removed",)
    assert mended.codes("a.mp4") <= {"no_audio", "upscaled", "odd_size", "trimmed"}


def test_names_never_meet(clip, tmp_path: Path) -> None:
    clip(picture=then((panning(1), 25), (panning(2), 25)))
    clip("a-part1.mp4", picture=panning(3))
    clip("b.mov", picture=panning(4), rotation=90)
    clip("b.mp4", picture=panning(5), rotation=90)
    mended = Mended(tmp_path / "clips")
    outputs = [output for outcome in mended.outcomes.values() for output in outcome.outputs]
    assert len({output.with_suffix("") for output in outputs}) == len(outputs) == 5


def test_mending_again_does_only_what_is_new(clip, tmp_path: Path) -> None:
    clip(rotation=90)
    clip("b.mp4", rotation=90, picture=panning(2))
    first = Mended(tmp_path / "clips")
    times = {output: output.stat().st_mtime_ns for outcome in first.outcomes.values() for output in outcome.outputs}
    clip("b.mp4", rotation=180, picture=panning(3))
    second = Mended(tmp_path / "clips")
    assert [output.stat().st_mtime_ns == times[output] for output in sorted(times)] == [True, False]
    assert second.outcomes["a.mp4"] == first.outcomes["a.mp4"]
    assert len(json.loads((first.out / "mended.json").read_text())) == 2


def test_a_folder_that_holds_something_else_or_lies_inside_is_refused(clip, tmp_path: Path) -> None:
    clip()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("words")
    with Results(None) as results:
        survey = Survey(tmp_path / "clips", results, rule=RULE, processes=1)
        survey.measure()
        with pytest.raises(DatasetError, match="holds something else"):
            list(mend_folder(survey, tmp_path / "mine"))
        with pytest.raises(DatasetError, match="is inside"):
            list(mend_folder(survey, tmp_path / "clips" / "fixed"))


def test_mending_stops_when_asked_and_keeps_what_is_done(clip, tmp_path: Path) -> None:
    for number in range(4):
        clip(f"{number}.mp4", rotation=90, picture=panning(number))
    done: list[Outcome] = []
    with Results(None) as results:
        survey = Survey(tmp_path / "clips", results, rule=RULE, processes=1)
        survey.measure()
        with pytest.raises(Stopped):
            done.extend(mend_folder(survey, tmp_path / "out", processes=1, should_stop=lambda: (tmp_path / "out" / "0.mp4").exists()))
    assert (tmp_path / "out" / "mended.json").is_file()
    assert not [file for file in (tmp_path / "out").iterdir() if ".tmp" in file.name]


def test_a_plan_travels_as_json() -> None:
    from ltx2core.data.inspection import Bars

    repair = Repair(steps=("x",), left=("y",), segments=((0.0, 1.0), (2.0, None)), crop=Bars(top=2, bottom=3), rate=25.0, encode=True)
    assert Repair.from_json(json.loads(json.dumps(repair.to_json()))) == repair


# -- tone mapping


def pq(nits: float) -> int:
    """The 16-bit code value of a luminance (SMPTE ST 2084, written out again)."""
    power = (nits / 10000) ** 0.1593017578125
    return round(65535 * ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


def test_greys_of_pq_keep_their_light_below_the_knee_and_end_in_white() -> None:
    nits = np.array([0.0, 1.0, 20.0, 100.0, 160.0, WHITE, 500.0, PEAK, 4000.0])
    codes = np.array([pq(one) for one in nits], dtype=np.uint16)
    picture = tone_map(np.broadcast_to(codes[None, :, None], (2, len(codes), 3)), PQ)[0].astype(int)
    assert np.abs(picture - picture[:, :1]).max() <= 1  # greys stay grey
    expected = 255 * (nits[:5] / WHITE) ** (1 / 2.4)
    assert np.abs(picture[:5, 0] - expected).max() <= 1
    assert 225 < picture[5, 0] < 250
    assert (np.diff(picture[:8, 0]) > 0).all()
    assert picture[7, 0] == picture[8, 0] == 255


def test_the_roll_off_has_no_corner() -> None:
    light = np.linspace(0, PEAK / WHITE, 10001, dtype=np.float32)
    slope = np.diff(roll_off(light)) / np.diff(light)
    assert np.abs(np.diff(slope)).max() < 0.02
    assert slope[0] == pytest.approx(1.0, abs=1e-3)


def test_hlg_white_is_white_and_its_middle_is_as_bright_as_pq() -> None:
    picture = tone_map(np.full((1, 1, 3), round(0.75 * 65535), dtype=np.uint16), HLG)
    assert (
        abs(int(picture[0, 0, 0]) - int(tone_map(np.full((1, 1, 3), pq(WHITE), np.uint16), PQ)[0, 0, 0])) <= 2
    )  # BT.2408: 75 % is 203 cd/m2


def test_a_colour_of_bt2020_keeps_its_hue() -> None:
    red = tone_map(np.array([[[pq(150), pq(20), pq(20)]]], dtype=np.uint16), PQ)[0, 0]
    assert red[0] > 200
    assert max(red[1], red[2]) < 110
