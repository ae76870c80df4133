from __future__ import annotations

import tracemalloc
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest

from ltx2core.data.clip import Bucket
from ltx2core.data.decode import decode_frames
from ltx2core.data.probe import probe_clip
from ltx2core.data.thumbnail import read_thumbnails
from ltx2core.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

CLEAR = {"preset": "ultrafast", "crf": "4"}


def numbered(width: int = 64, height: int = 64):
    """Frames that carry their number: eight stripes, white for a 1."""

    def picture(number: int) -> np.ndarray:
        bits = [255 if number >> bit & 1 else 0 for bit in range(8)]
        return np.broadcast_to(np.repeat(np.array(bits, np.uint8), width // 8)[None, :, None], (height, width, 3))

    return picture


def numbers_of(frames: np.ndarray) -> list[int]:
    stripes = frames.mean(axis=(1, 3)).reshape(len(frames), 8, -1).mean(axis=2) > 128
    return [int(sum(1 << bit for bit in range(8) if row[bit])) for row in stripes]


def bucket(frames: int, width: int = 64, height: int = 64) -> Bucket:
    return Bucket(width=width, height=height, frames=frames)


def test_frames_come_back_one_for_one_at_their_own_rate(make_clip) -> None:
    path = make_clip(width=64, height=64, frames=33, picture=numbered(), options=CLEAR)
    frames = decode_frames(path, bucket=bucket(33), fps=25)
    assert (frames.shape, frames.dtype) == ((33, 64, 64, 3), np.uint8)
    assert numbers_of(frames) == list(range(33))
    assert numbers_of(decode_frames(path, bucket=bucket(9), fps=25)) == list(range(9))


@pytest.mark.parametrize(("source", "target", "count"), [(50, 25, 33), (30, 25, 33), (60, 24, 17), (25, 50, 33), (24, 25, 25), (30, 10, 9)])
def test_another_rate_takes_the_frame_nearest_in_time(make_clip, source: int, target: int, count: int) -> None:
    path = make_clip(width=64, height=64, frames=80, fps=source, picture=numbered(), options=CLEAR)
    got = numbers_of(decode_frames(path, bucket=bucket(count), fps=target))
    exact = [k * source / target for k in range(count)]
    assert all(abs(number - place) <= (0.51 if target <= source else 1) for number, place in zip(got, exact, strict=True))
    assert got == sorted(got)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_ntsc_rates_and_a_clock_of_milliseconds_repeat_no_frame(make_clip, name: str) -> None:
    path = make_clip(name, width=64, height=64, frames=65, fps=Fraction(30000, 1001), picture=numbered(), options=CLEAR)
    assert numbers_of(decode_frames(path, bucket=bucket(65), fps=30000 / 1001)) == list(range(65))


def test_a_variable_rate_keeps_its_timing(make_clip) -> None:
    times = [0, 40, 80, 490, 530, 570, 610, 650, 690, 730]  # a frame held for 410 ms
    path = make_clip(width=64, height=64, frames=10, times_ms=times, picture=numbered(), options=CLEAR)
    assert numbers_of(decode_frames(path, bucket=bucket(17), fps=25)) == [0, 1, *[2] * 10, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_phone_clip_is_turned_upright(make_clip, rotation: int) -> None:
    upright = np.zeros((64, 128, 3), dtype=np.uint8)  # red above left, green above right, blue below
    upright[:32, :64, 0] = upright[:32, 64:, 1] = upright[32:, :, 2] = 255
    stored = np.ascontiguousarray(np.rot90(upright, k=-rotation // 90))
    height, width = stored.shape[:2]
    path = make_clip(width=width, height=height, frames=9, rotation=rotation, picture=lambda _: stored, options=CLEAR)
    clip = probe_clip(path)
    assert (clip.width, clip.height, clip.rotation) == (128, 64, rotation)
    for given in (None, clip.rotation):
        frames = decode_frames(path, bucket=bucket(9, 128, 64), fps=25, rotation=given)
        assert np.abs(frames[4, 16, 32].astype(int) - (255, 0, 0)).max() < 12
        assert np.abs(frames[4, 16, 96].astype(int) - (0, 255, 0)).max() < 12
        assert np.abs(frames[4, 48, 64].astype(int) - (0, 0, 255)).max() < 12


def test_the_picture_covers_the_bucket_and_is_cropped_in_the_middle(make_clip) -> None:
    canvas = np.zeros((64, 192, 3), dtype=np.uint8)
    canvas[:, 64:128] = 255  # the middle third is white
    path = make_clip(width=192, height=64, frames=9, picture=lambda _: canvas, options=CLEAR)
    frames = decode_frames(path, bucket=bucket(9), fps=25)
    assert frames[:, :, 3:-3].min() > 240
    whole = decode_frames(path, bucket=bucket(9, 96, 32), fps=25)
    assert whole[:, :, :30].max() < 15


def test_odd_pixel_numbers_are_read(make_clip) -> None:
    path = make_clip(width=101, height=75, frames=9, codec="libx264", pixel_format="yuv444p", options=CLEAR)
    clip = probe_clip(path)
    assert (clip.width, clip.height) == (101, 75)
    assert decode_frames(path, bucket=bucket(9, 96, 64), fps=25).shape == (9, 64, 96, 3)


def test_pixels_that_are_not_square_are_made_so(make_clip, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for number in range(9):
            frame = av.VideoFrame.from_ndarray(np.full((96, 96, 3), 128, np.uint8), format="rgb24").reformat(format="yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    clip = probe_clip(tmp_path / "a.mkv")
    assert (clip.width, clip.height) == (128, 96)


@pytest.mark.parametrize(("space", "matrix"), [(1, "ITU709"), (6, "ITU601")])
@pytest.mark.parametrize(("value", "range_name"), [(1, "MPEG"), (2, "JPEG")])
def test_colours_come_back_whatever_matrix_and_range_the_file_names(
    tmp_path: Path, space: int, matrix: str, value: int, range_name: str
) -> None:
    from av.video.reformatter import ColorRange, Colorspace

    colour = (200, 120, 40)
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.colorspace, stream.color_range = space, value
        for number in range(9):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), colour, np.uint8), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace[matrix], dst_color_range=ColorRange[range_name])
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    got = decode_frames(path, bucket=bucket(9), fps=25)[4, 32, 32]
    assert np.abs(got.astype(int) - colour).max() <= 3


def test_a_clip_shorter_than_its_bucket_is_an_error_that_counts(make_clip) -> None:
    path = make_clip(width=64, height=64, frames=20)
    with pytest.raises(DatasetError, match="holds 20 frames at 25 fps, its bucket 64x64@33 takes 33"):
        decode_frames(path, bucket=bucket(33), fps=25)


def test_a_file_that_is_no_video_is_an_error_that_names_it(tmp_path: Path, make_clip) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video at all" * 100)
    with pytest.raises(DatasetError, match=r"a\.mp4 cannot be decoded"):
        decode_frames(tmp_path / "a.mp4", bucket=bucket(9), fps=25)
    with pytest.raises(DatasetError, match=r"gone\.mp4"):
        decode_frames(tmp_path / "gone.mp4", bucket=bucket(9), fps=25)


def test_a_long_clip_costs_no_more_memory_than_the_frames_asked_for(make_clip) -> None:
    path = make_clip(width=256, height=256, frames=200)
    tracemalloc.start()
    frames = decode_frames(path, bucket=bucket(17, 256, 256), fps=25)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * frames.nbytes


def test_the_real_clips_decode(real_clips: Path) -> None:
    bikes = decode_frames(real_clips / "bikes.mp4", bucket=bucket(17, 320, 128), fps=25)
    bunny = decode_frames(real_clips / "bigbuckbunny.mp4", bucket=bucket(17, 448, 256), fps=25)
    assert bikes.std() > 20
    assert bunny.std() > 20
    # Against the frame as PIL makes it small: the same picture, another filter.
    with av.open(str(real_clips / "bigbuckbunny.mp4")) as container:
        first = next(container.decode(video=0)).to_image(width=455, height=256).crop((3, 0, 451, 256))
    assert np.abs(np.asarray(first, dtype=int) - bunny[0]).mean() < 6


def test_thumbnails_are_so_many_a_second_and_fit(make_clip, tmp_path: Path) -> None:
    path = make_clip(width=128, height=64, frames=20, picture=numbered(width=128), options=CLEAR)
    small = read_thumbnails(path, size=(40, 40), fps=5, most=64)
    assert small.shape == (4, 20, 40, 3)
    assert numbers_of(small) == [0, 5, 10, 15]
    assert read_thumbnails(path, size=(1000, 10), fps=25, most=3).shape == (3, 10, 20, 3)
    (tmp_path / "a.mp4").write_bytes(b"no video" * 50)
    with pytest.raises(DatasetError, match=r"a\.mp4"):
        read_thumbnails(tmp_path / "a.mp4", size=(40, 40), fps=5, most=1)


def test_a_thumbnail_of_a_phone_clip_is_upright(make_clip) -> None:
    path = make_clip(width=128, height=64, frames=5, rotation=90)
    assert read_thumbnails(path, size=(32, 32), fps=25, most=1).shape == (1, 32, 16, 3)
