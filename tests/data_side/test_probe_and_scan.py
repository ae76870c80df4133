from __future__ import annotations

import os
import shutil
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ltx2core.data.captions import CaptionRule
from ltx2core.data.probe import Limits, probe_clip
from ltx2core.data.scan import scan_folder
from ltx2core.errors import DatasetError, Stopped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ltx2core.data.clip import Clip


def codes(clip: Clip) -> list[str]:
    return [problem.code for problem in clip.problems]


def errors(clip: Clip) -> list[str]:
    return [problem.code for problem in clip.problems if problem.level == "error"]


def test_a_plain_clip_is_counted_and_captioned(make_clip) -> None:
    clip = probe_clip(make_clip(frames=33, sound_seconds=33 / 25))
    assert (clip.width, clip.height, clip.frames, clip.fps, clip.codec) == (128, 96, 33, 25.0, "h264")
    assert clip.seconds == pytest.approx(33 / 25)
    assert clip.caption == "a square moves to the right"
    assert clip.audio is not None
    assert (clip.audio.sample_rate, clip.audio.channels, clip.audio.codec) == (48000, 2, "aac")
    assert clip.audio.seconds == pytest.approx(33 / 25, abs=1e-3)
    assert clip.problems == ()
    assert clip.usable


def test_the_real_clips_are_what_their_package_says(real_clips: Path) -> None:
    bikes = probe_clip(real_clips / "bikes.mp4", captions=CaptionRule(strategy="filename"))
    bunny = probe_clip(real_clips / "bigbuckbunny.mp4", captions=CaptionRule(strategy="filename"))
    assert (bikes.width, bikes.height, bikes.frames, bikes.fps, bikes.audio) == (640, 272, 250, 25.0, None)
    assert (bunny.width, bunny.height, bunny.frames, bunny.fps) == (1280, 720, 132, 25.0)
    assert bunny.audio is not None
    assert (bunny.audio.channels, bunny.audio.sample_rate) == (6, 48000)
    assert codes(bikes) == ["no_audio"]
    assert bikes.usable
    assert bunny.usable


@pytest.mark.parametrize("name", ["clip.mkv", "clip.mov", "clip.MP4"])
def test_every_container_is_read_whatever_the_case_of_its_name(make_clip, tmp_path: Path, name: str) -> None:
    make_clip("clip.mp4" if name.endswith("MP4") else name, frames=30, fps=30, sound_seconds=1.0)
    if name.endswith("MP4"):
        (tmp_path / "clip.mp4").rename(tmp_path / name)
    (clip,) = scan_folder(tmp_path)
    assert (clip.frames, round(clip.fps, 3), errors(clip)) == (30, 30.0, [])
    assert not clip.variable_frame_rate
    assert clip.audio is not None


def test_a_webm_clip_is_read(make_clip) -> None:
    clip = probe_clip(make_clip("clip.webm", codec="libvpx", frames=17, sound_seconds=0.68))
    assert (clip.codec, clip.frames, clip.audio is not None) == ("vp8", 17, True)


def test_a_missing_caption_is_an_error_only_where_a_text_file_is_wanted(make_clip) -> None:
    path = make_clip("red_ball_on_grass.mp4", caption=None)
    assert errors(probe_clip(path)) == ["missing_caption"]
    assert probe_clip(path).problems[-1].fix.startswith("Write what it shows into red_ball_on_grass.txt")
    assert errors(probe_clip(path, captions=CaptionRule(strategy="filename"))) == []
    assert errors(probe_clip(path, captions=CaptionRule(strategy="instanceprompt", instance_prompts=("sks",)))) == []


@pytest.mark.parametrize("caption", ["", " \n\n\t\n"])
def test_an_empty_caption_is_named(make_clip, caption: str) -> None:
    assert errors(probe_clip(make_clip(caption=caption))) == ["empty_caption"]


def test_a_caption_that_is_not_utf8_is_read_and_said(make_clip) -> None:
    clip = probe_clip(make_clip(caption="a café at dusk".encode("cp1252")))
    assert clip.caption == "a café at dusk"
    assert "caption_not_utf8" in codes(clip)
    assert clip.usable
    assert probe_clip(make_clip("b.mp4", caption="a café".encode("utf-16"))).caption == "a café"
    assert probe_clip(make_clip("c.mp4", caption="\ufeffa café".encode())).caption == "a café"


def test_a_caption_of_bytes_is_refused(make_clip) -> None:
    assert errors(probe_clip(make_clip(caption=b"\x00\x01\x02\xff" * 100))) == ["caption_unreadable"]


def test_a_caption_beyond_the_text_encoder_is_warned_about(make_clip) -> None:
    assert "caption_long" in codes(probe_clip(make_clip(caption="word " * 2000)))


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    clip = probe_clip(tmp_path / "a.mp4")
    assert errors(clip)[:1] == ["empty_file"]
    assert "a.mp4 is empty (0 bytes)." in clip.problems[0].text


def test_a_text_file_named_mp4_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    assert errors(probe_clip(tmp_path / "a.mp4"))[:1] == ["not_a_video"]


def test_a_picture_named_mp4_is_named(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.mp4")
    assert errors(probe_clip(tmp_path / "a.mp4"))[:1] == ["not_a_video"]


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(("name", "faststart"), [("a.mp4", False), ("a.mp4", True), ("a.mov", False), ("a.mkv", False)])
def test_a_file_cut_short_is_found(make_clip, name: str, faststart: bool, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 96, 128, 3), dtype=np.uint8)
    path = make_clip(name, frames=60, picture=lambda i: noise[i], format_options={"movflags": "+faststart"} if faststart else {})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    clip = probe_clip(path)
    assert errors(clip) == ["truncated"] or keep == 0.02
    assert not clip.usable
    assert "a." in clip.problems[0].text


def test_sound_only_is_named_even_with_a_cover_picture(tmp_path: Path, make_clip) -> None:
    import av

    source = make_clip(sound_seconds=1.0)
    with av.open(str(source)) as original, av.open(str(tmp_path / "song.mp4"), "w") as copy:
        stream = copy.add_stream_from_template(original.streams.audio[0])
        for packet in original.demux(original.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    clip = probe_clip(tmp_path / "song.mp4", captions=CaptionRule(strategy="filename"))
    assert codes(clip) == ["no_video"]
    assert "only sound" in clip.problems[0].text


def test_a_variable_rate_is_found_from_the_timestamps(make_clip) -> None:
    times = list(np.cumsum([0, *([20, 60] * 20)]))
    clip = probe_clip(make_clip(frames=41, times_ms=[int(t) for t in times]))
    assert clip.variable_frame_rate
    assert "variable_frame_rate" in codes(clip)
    assert (clip.frames, clip.usable) == (41, True)
    assert clip.fps == pytest.approx(25, rel=0.05)


@pytest.mark.parametrize("fps", ["24000/1001", "30000/1001", "60"])
def test_a_clock_of_milliseconds_is_not_a_variable_rate(make_clip, fps: str) -> None:
    from fractions import Fraction

    clip = probe_clip(make_clip("a.mkv", frames=60, fps=Fraction(fps)))
    assert not clip.variable_frame_rate
    assert clip.fps == pytest.approx(float(Fraction(fps)), rel=1e-3)


@pytest.mark.parametrize(("rotation", "size"), [(90, (96, 128)), (180, (128, 96)), (270, (96, 128))])
def test_a_phone_clip_has_the_size_that_is_shown(make_clip, rotation: int, size: tuple[int, int]) -> None:
    clip = probe_clip(make_clip(rotation=rotation))
    assert (clip.width, clip.height) == size
    assert clip.rotation == rotation
    assert "rotated" in codes(clip)
    assert clip.usable


def test_late_and_short_sound_is_said(make_clip) -> None:
    clip = probe_clip(make_clip("a.mkv", frames=50, sound_seconds=0.6, sound_start=0.5))
    assert {"audio_late", "audio_short"} <= set(codes(clip))
    assert clip.audio is not None
    assert clip.audio.start == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("start", "said"), [(-0.5, True), (-0.2, False)])
def test_sound_that_starts_before_the_picture_is_said(make_clip, start: float, said: bool) -> None:
    clip = probe_clip(
        make_clip("a.mkv", frames=50, times_ms=[round(-start * 1000) + 40 * number for number in range(50)], sound_seconds=3.0)
    )
    assert ("audio_early" in codes(clip)) == said


@pytest.mark.parametrize(("missing", "said"), [(0.2, False), (0.4, True)])
def test_sound_may_end_a_quarter_second_early(make_clip, missing: float, said: bool) -> None:
    assert ("audio_short" in codes(probe_clip(make_clip(frames=50, sound_seconds=2.0 - missing)))) == said


@pytest.mark.parametrize(
    ("fps", "said"),
    [
        ("24000/1001", False),
        ("30000/1001", False),
        ("25", False),
        ("48", False),
        ("50", False),
        ("60", False),
        ("120", False),
        ("12", True),
        ("15", True),
        ("20", True),
        ("23", True),
        ("27", True),
        ("40", True),
    ],
)
def test_a_rate_the_model_has_not_seen_is_said(make_clip, fps: str, said: bool) -> None:
    from fractions import Fraction

    clip = probe_clip(make_clip(frames=40, fps=Fraction(fps)))
    assert ("unusual_frame_rate" in codes(clip)) == said


def test_an_interlaced_clip_is_said(make_clip) -> None:
    assert "interlaced" in codes(probe_clip(make_clip(options={"preset": "ultrafast", "x264-params": "tff=1"})))


@pytest.mark.parametrize(("transfer", "name"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG")])
def test_hdr_and_its_ten_bits_are_said(make_clip, transfer: str, name: str) -> None:
    options = {"preset": "ultrafast", "x264-params": f"transfer={transfer}:colorprim=bt2020:colormatrix=bt2020nc"}
    clip = probe_clip(make_clip(pixel_format="yuv420p10le", options=options))
    assert {"hdr", "high_bit_depth"} <= set(codes(clip))
    assert f"HDR ({name})" in next(problem.text for problem in clip.problems if problem.code == "hdr")


def test_ten_bits_alone_are_no_hdr(make_clip) -> None:
    clip = probe_clip(make_clip(pixel_format="yuv420p10le"))
    assert [code for code in codes(clip) if code != "no_audio"] == ["high_bit_depth"]


def test_pictures_that_cannot_be_decoded_are_found(make_clip) -> None:
    path = make_clip(frames=20)
    data = bytearray(path.read_bytes())
    at = data.index(b"mdat") + 4
    length = int.from_bytes(data[at - 8 : at - 4]) - 8
    data[at : at + length] = bytes(length)
    path.write_bytes(data)
    clip = probe_clip(path)
    assert errors(clip) == ["damaged"]


def test_a_file_too_long_to_read_through_keeps_its_headers_word(make_clip) -> None:
    clip = probe_clip(make_clip(frames=200, width=32, height=32), limits=Limits(packets=50))
    assert "not_fully_read" in codes(clip)
    assert (clip.frames, clip.seconds) == (200, 8.0)
    assert clip.usable


def test_frames_too_large_to_hold_are_refused_before_decoding(make_clip) -> None:
    clip = probe_clip(make_clip(frames=3, width=64, height=64), limits=Limits(pixels=64 * 63))
    assert errors(clip) == ["too_many_pixels"]
    assert "64x64" in clip.problems[0].text


@pytest.fixture
def nobody() -> Iterator[None]:
    """Not root for the length of a test: root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_a_file_without_permission_is_named(make_clip, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = make_clip()
    path.chmod(0)
    for folder in [tmp_path, *tmp_path.parents[:2]]:
        folder.chmod(0o755)
    request.getfixturevalue("nobody")
    clip = probe_clip(path)
    assert errors(clip) == ["unreadable"]
    assert clip.problems[0].text == "clip.mp4 cannot be opened: Permission denied."


def test_a_folder_without_permission_is_named_and_the_rest_goes_on(make_clip, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    make_clip("a.mp4", frames=9)
    make_clip("closed/b.mp4", frames=9)
    (tmp_path / "closed").chmod(0)
    for folder in [tmp_path, *takewhile(lambda place: place.name.startswith(("pytest-", "popen-")), tmp_path.parents)]:
        folder.chmod(0o755)
    request.getfixturevalue("nobody")
    clips = scan_folder(tmp_path)
    assert [(clip.path.name, clip.usable) for clip in clips] == [("a.mp4", True), ("closed", False)]


def test_a_broken_link_and_a_pipe_are_named_and_do_not_hang(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").symlink_to(tmp_path / "gone.mp4")
    os.mkfifo(tmp_path / "b.mp4")
    assert [errors(clip) for clip in scan_folder(tmp_path)] == [["unreadable"], ["unreadable"]]


def test_a_folder_is_scanned_whole_in_order_and_past_every_bad_file(make_clip, tmp_path: Path) -> None:
    good = make_clip("b/good.mp4", frames=9)
    for name in ("a.mp4", "b/zz.mkv", "c.mov"):
        shutil.copy(good, tmp_path / name)
        (tmp_path / name).with_suffix(".txt").write_text("words")
    (tmp_path / "bad.mp4").write_text("no video")
    (tmp_path / "old.avi").write_bytes(b"RIFF")
    (tmp_path / "._a.mp4").write_bytes(b"\0\5\26\7")
    (tmp_path / "notes.txt").write_text("not a clip")
    seen: list[Clip] = []
    clips = scan_folder(tmp_path, on_clip=seen.append, workers=3)
    names = [str(clip.path.relative_to(tmp_path)) for clip in clips]
    assert names == ["a.mp4", "b/good.mp4", "b/zz.mkv", "bad.mp4", "c.mov", "old.avi"]
    assert seen == clips
    assert [clip.usable for clip in clips] == [True, True, True, False, True, False]
    assert clips == scan_folder(tmp_path, workers=1)


def test_a_folder_linked_into_itself_is_scanned_once(make_clip, tmp_path: Path) -> None:
    make_clip("in/a.mp4", frames=9)
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    assert len(scan_folder(tmp_path / "in")) == 1


def test_no_clips_at_all_says_what_to_put_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no clips") as caught:
        scan_folder(tmp_path)
    assert ".mp4" in caught.value.fix
    with pytest.raises(DatasetError, match="missing"):
        scan_folder(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="not a folder"):
        scan_folder(tmp_path / "file")


def test_a_scan_stops_when_asked(make_clip, tmp_path: Path) -> None:
    for number in range(4):
        make_clip(f"{number}.mp4", frames=9)
    seen: list[Clip] = []
    with pytest.raises(Stopped):
        scan_folder(tmp_path, on_clip=seen.append, should_stop=lambda: len(seen) >= 2)
    assert len(seen) == 2
