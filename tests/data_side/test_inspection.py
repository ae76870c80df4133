"""Every check of pictures and sound, on files encoded here: on both sides of its threshold, and quiet on real footage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ltx2core.data import verdicts
from ltx2core.data.captions import CaptionRule
from ltx2core.data.inspection import Bars, Inspection, InspectionLimits, find_cuts, inspect_clip
from ltx2core.data.probe import probe_clip
from ltx2core.data.verdicts import judge_inspection, upright
from tests.shots import barred, grey, panning, still, then

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.data.clip import Clip, Problem

WIDTH, HEIGHT = 128, 96


def look(path: Path) -> tuple[Clip, Inspection]:
    clip = probe_clip(path, captions=CaptionRule(strategy="filename"))
    return clip, inspect_clip(path, frames=clip.frames)


def found(path: Path) -> dict[str, Problem]:
    """The problems of pictures and sound, by code."""
    return {problem.code: problem for problem in judge_inspection(*look(path))}


def test_a_clip_with_nothing_wrong_has_no_problem_and_a_look(make_clip) -> None:
    path = make_clip(frames=50, picture=panning(1), sound_seconds=2.0)
    clip, inspection = look(path)
    assert judge_inspection(clip, inspection) == []
    assert (inspection.frames, inspection.complete, inspection.errors) == (50, True, 0)
    assert inspection.seconds == pytest.approx(2.0)
    assert inspection.look is not None


def test_the_cuts_of_a_real_clip_are_found_and_nothing_else(real_clips: Path) -> None:
    clip, inspection = look(real_clips / "bikes.mp4")
    assert [round(when * 25) for when in inspection.cuts] == [30, 76, 137, 187, 242]
    (problem,) = judge_inspection(clip, inspection)
    assert problem.code == "hard_cut"
    assert "5 more shots begin at 1.20 s, 3.04 s, 5.48 s and 2 more times;" in problem.text


def test_a_real_clip_without_a_fault_gets_no_line(real_clips: Path) -> None:
    for name in ("bigbuckbunny.mp4", "carphone_pristine.mp4"):
        assert found(real_clips / name) == {}


# -- cuts


def test_a_cut_is_found_at_its_frame(make_clip) -> None:
    path = make_clip(frames=60, picture=then((panning(1), 24), (panning(2), 36)))
    problem = found(path)["hard_cut"]
    assert problem.text == "clip.mp4: another shot begins at 0.96 s; the jump is learned as motion."
    assert problem.level == "warning"


@pytest.mark.parametrize("speed", [0, 8, 24])
def test_motion_however_fast_is_no_cut(make_clip, speed: int) -> None:
    assert "hard_cut" not in found(make_clip(frames=50, picture=panning(1, speed=speed)))


def test_a_flash_is_no_cut(make_clip) -> None:
    shot = panning(1)
    path = make_clip(frames=50, picture=lambda number: np.full((HEIGHT, WIDTH, 3), 255, np.uint8) if number == 25 else shot(number))
    assert "hard_cut" not in found(path)


def test_a_dissolve_is_no_cut(make_clip) -> None:
    one, two = panning(1), panning(2)

    def picture(number: int) -> np.ndarray:
        share = min(max((number - 15) / 20, 0), 1)
        return (one(number) * (1 - share) + two(number) * share).astype(np.uint8)

    assert "hard_cut" not in found(make_clip(frames=50, picture=picture))


def test_a_change_counts_as_a_cut_from_12_levels_and_from_twice_its_surroundings() -> None:
    def cuts(size: float, around: float) -> list[int]:
        changes = np.full(20, around, dtype=np.float32)
        changes[10] = size
        return find_cuts(changes)

    assert cuts(12.0, 1.0) == [11]
    assert cuts(11.9, 1.0) == []
    assert cuts(30.0, 15.0) == [11]
    assert cuts(29.9, 15.0) == []


# -- black


@pytest.mark.parametrize(("frames", "said"), [(3, True), (2, False)])
def test_black_of_a_tenth_of_a_second_is_said(make_clip, frames: int, said: bool) -> None:
    path = make_clip(frames=50, picture=then((panning(1), 20), (grey(0), frames), (panning(1), 50)))
    problems = found(path)
    assert ("black_frames" in problems) == said
    if said:
        assert "from 0.80 to 0.92 s" in problems["black_frames"].text
        assert "hard_cut" not in problems  # black that begins and ends is told once


@pytest.mark.parametrize(("level", "said"), [(4, True), (16, False)])
def test_a_dark_picture_is_not_black(make_clip, level: int, said: bool) -> None:
    path = make_clip(frames=50, picture=then((panning(1), 20), (grey(level), 10), (panning(1), 20)))
    assert ("black_frames" in found(path)) == said


# -- stillness


@pytest.mark.parametrize(("frames", "said"), [(25, True), (23, False)])
def test_a_picture_that_stands_for_a_second_is_frozen(make_clip, frames: int, said: bool) -> None:
    shot = panning(1)
    path = make_clip(frames=100, picture=then((shot, 30), (still(shot, 30), frames), (lambda number: shot(number + 31), 45)))
    problems = found(path)
    assert ("frozen" in problems) == said
    if said:
        assert problems["frozen"].text.startswith("clip.mp4 stands still from 1.20 to 2.")
    assert "static_clip" not in problems


@pytest.mark.parametrize(("moving", "said"), [(8, True), (25, False)])
def test_a_clip_of_four_fifths_stillness_is_static(make_clip, moving: int, said: bool) -> None:
    shot = panning(1)
    path = make_clip(frames=75, picture=then((shot, moving), (still(shot, moving), 75)))
    assert ("static_clip" in found(path)) == said


def test_a_short_clip_that_does_not_move_is_static(make_clip) -> None:
    assert "static_clip" in found(make_clip(frames=17, picture=still(panning(1))))


def test_one_small_thing_that_moves_is_motion(make_clip) -> None:
    ground = still(panning(1, 640, 480))

    def picture(number: int) -> np.ndarray:
        canvas = ground(0).copy()
        canvas[200:260, 100 + 4 * number : 160 + 4 * number] = 255
        return canvas

    problems = found(make_clip(width=640, height=480, frames=50, picture=picture))
    assert not {"static_clip", "frozen"} & set(problems)


def test_a_slow_zoom_is_motion(make_clip) -> None:
    from PIL import Image

    whole = Image.fromarray(panning(1, 512, 384)(0))

    def picture(number: int) -> np.ndarray:
        inset = 0.6 * number
        return np.asarray(whole.resize((256, 192), Image.Resampling.BICUBIC, box=(inset, inset * 0.75, 512 - inset, 384 - inset * 0.75)))

    problems = found(make_clip(width=256, height=192, frames=75, picture=picture))
    assert not {"static_clip", "frozen"} & set(problems)


def test_stillness_in_grain_is_seen_and_grain_is_no_motion(make_clip) -> None:
    ground = panning(1, 320, 240)(0).astype(int)
    rng = np.random.default_rng(0)
    path = make_clip(
        width=320, height=240, frames=50, picture=lambda _: np.clip(ground + rng.normal(0, 3, ground.shape), 0, 255).astype(np.uint8)
    )
    assert "static_clip" in found(path)


# -- bars


@pytest.mark.parametrize(
    ("bars", "said"),
    [
        ({"top": 12, "bottom": 12}, "12 px at its top, 12 px at its bottom"),
        ({"left": 16, "right": 16}, "16 px at its left, 16 px at its right"),
        ({"top": 12, "bottom": 12, "level": 14}, "12 px at its top, 12 px at its bottom"),
        ({"top": 2, "bottom": 2}, "2 px at its top, 2 px at its bottom"),
        ({"top": 1, "bottom": 1}, None),  # 1 % is an encoder's edge
        ({"top": 24}, None),  # one side alone is a sky at night
        ({"top": 24, "bottom": 8}, None),
        ({"top": 12, "bottom": 12, "level": 40}, None),
    ],
)
def test_bars_are_named_by_side_and_width(make_clip, bars: dict[str, int], said: str | None) -> None:
    # Lossless: at this size an encoder would soften the edge by a line
    path = make_clip(frames=30, picture=barred(panning(1), **bars), options={"preset": "ultrafast", "crf": "4"})
    problems = found(path)
    assert (said is not None) == ("letterbox" in problems)
    if said is not None:
        assert said in problems["letterbox"].text


def test_bars_of_a_turned_clip_are_named_as_seen(make_clip) -> None:
    path = make_clip(frames=30, rotation=90, picture=barred(panning(1), left=16, right=24), options={"preset": "ultrafast", "crf": "4"})
    assert "24 px at its top, 16 px at its bottom" in found(path)["letterbox"].text  # turned counter-clockwise, the right side is up


@pytest.mark.parametrize(("rotation", "sides"), [(0, "ltrb"), (90, "trbl"), (180, "rblt"), (270, "bltr")])
def test_sides_turn_with_the_picture(rotation: int, sides: str) -> None:
    numbers = dict(zip("ltrb", (1, 2, 3, 4), strict=True))
    turned = upright(Bars(left=1, top=2, right=3, bottom=4), rotation)
    assert [turned.left, turned.top, turned.right, turned.bottom] == [numbers[side] for side in sides]


def test_a_night_sky_over_dark_ground_is_no_letterbox(make_clip) -> None:
    rng = np.random.default_rng(0)
    stars = rng.random((HEIGHT, WIDTH)) > 0.97
    ramp = np.abs(np.linspace(-1, 1, HEIGHT))[:, None, None]

    def picture(number: int) -> np.ndarray:
        canvas = np.broadcast_to(140 * (1 - ramp) + 8, (HEIGHT, WIDTH, 3)).copy()
        canvas[np.roll(stars, number, axis=1)] += 60
        return canvas.astype(np.uint8)

    assert "letterbox" not in found(make_clip(frames=30, picture=picture))


def test_bars_that_come_and_go_are_none(make_clip) -> None:
    path = make_clip(frames=40, picture=then((barred(panning(1), top=12, bottom=12), 20), (panning(1), 20)))
    assert "letterbox" not in found(path)


# -- sound


def tone(level: float, seconds: float = 2.0) -> np.ndarray:
    wave = level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * 48000)) / 48000)
    return np.repeat(wave[None], 2, axis=0).astype(np.float32)


@pytest.mark.parametrize(("level", "said"), [(0.0, True), (0.0005, True), (0.004, False)])
def test_a_silent_track_is_said(make_clip, level: float, said: bool) -> None:
    assert ("audio_silent" in found(make_clip(frames=50, picture=panning(1), sound=tone(level)))) == said


@pytest.mark.parametrize(("level", "said"), [(0.9, False), (1.0, False), (1.3, True), (4.0, True)])
def test_sound_driven_over_full_scale_is_said_and_loud_sound_is_not(make_clip, level: float, said: bool) -> None:
    path = make_clip(frames=50, picture=panning(1), sound=np.clip(tone(level), -1, 1))
    assert ("audio_clipped" in found(path)) == said


def test_loud_noise_is_not_clipped_and_clipped_noise_is(make_clip) -> None:
    noise = np.random.default_rng(0).normal(0, 0.25, (2, 96000)).astype(np.float32)
    assert "audio_clipped" not in found(make_clip("a.mp4", frames=50, picture=panning(1), sound=np.clip(noise, -1, 1)))
    assert "audio_clipped" in found(make_clip("b.mkv", frames=50, picture=panning(1), sound=np.clip(4 * noise, -1, 1), sound_codec="flac"))


def test_the_bounds_of_sound_are_where_the_constants_say() -> None:
    from ltx2core.data.loudness import Loudness
    from ltx2core.data.verdicts import is_clipped, is_silent

    def sound(**values: float) -> Loudness:
        return Loudness(**{"peak": 1.0, "rms": 0.1, "top": 0.0, "high": 0.0, "seconds": 1.0} | values)

    assert is_clipped(sound(top=verdicts.CLIPPED_SHARE, high=verdicts.CLIPPED_SHARE / verdicts.CLIPPED_RATIO))
    assert not is_clipped(sound(top=verdicts.CLIPPED_SHARE * 0.99))
    assert not is_clipped(sound(top=0.03, high=0.011))
    assert is_silent(sound(peak=verdicts.SILENT_PEAK * 0.99))
    assert not is_silent(sound(peak=verdicts.SILENT_PEAK))


# -- reading


def test_a_clip_too_long_to_look_through_says_how_far_it_was_seen(make_clip) -> None:
    path = make_clip(frames=100, picture=panning(1))
    clip = probe_clip(path)
    inspection = inspect_clip(path, frames=100, limits=InspectionLimits(frames=50))
    (problem,) = judge_inspection(clip, inspection)
    assert problem.code == "partly_checked"
    assert "first 2 s" in problem.text
    assert inspection.look is None


def test_a_hole_in_the_middle_of_the_pictures_is_found(make_clip) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, HEIGHT, WIDTH, 3), dtype=np.uint8)
    path = make_clip(frames=60, picture=lambda number: noise[number])
    data = bytearray(path.read_bytes())
    at = data.index(b"mdat") + 4
    middle = at + (len(data) - at) // 2
    data[middle : middle + 20000] = bytes(20000)
    path.write_bytes(data)
    assert "decode_errors" in found(path)
