"""Pictures as clips of one frame: upright, in 8 bits, over white; and what cannot be one is named."""

from __future__ import annotations

import struct
import zlib
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ltx2core.caching.decoder import decode
from ltx2core.caching.pictures import frames_request
from ltx2core.data.buckets import BucketRule, place, place_all
from ltx2core.data.clip import Bucket, Crop, Sample
from ltx2core.data.scan import scan_folder
from ltx2core.data.stills import decode_still, probe_still
from ltx2core.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.data.clip import Clip

BUCKET = Bucket(width=96, height=64, frames=1)


def codes(clip: Clip) -> list[str]:
    return [problem.code for problem in clip.problems]


def quarters() -> np.ndarray:
    """Red above left, green above right, blue below: 96 wide, 64 high."""
    picture = np.zeros((64, 96, 3), dtype=np.uint8)
    picture[:32, :48, 0] = picture[:32, 48:, 1] = picture[32:, :, 2] = 255
    return picture


@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "webp", "bmp", "PNG"])
def test_a_picture_is_a_clip_of_one_frame_at_24_fps_without_sound(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray(quarters()).save(path, quality=95)
    path.with_suffix(".txt").write_text("three colours")
    clip = probe_still(path)
    assert (clip.width, clip.height, clip.frames, clip.still, clip.audio, codes(clip)) == (96, 64, 1, True, None, [])
    sample = place(clip, BucketRule(resolution=64, num_frames=49, min_frames=49))
    assert isinstance(sample, Sample)
    assert (sample.bucket, sample.fps, sample.captions) == (BUCKET, 24.0, ("three colours",))
    frames, _ = decode(asdict(frames_request(sample)), threads=1)
    assert (frames.shape, frames.dtype) == ((1, 64, 96, 3), np.uint8)
    assert np.abs(frames[0].astype(int) - quarters())[8:24, 8:40].max() < 24


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_phone_picture_is_turned_upright(tmp_path: Path, orientation: int) -> None:
    turns = {
        1: quarters(),
        2: quarters()[:, ::-1],
        3: quarters()[::-1, ::-1],
        4: quarters()[::-1],
        5: quarters().swapaxes(0, 1),
        6: np.rot90(quarters(), k=1),
        7: quarters()[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(quarters(), k=-1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(turns[orientation])).save(tmp_path / "a.png", exif=exif)
    clip = probe_still(tmp_path / "a.png")
    assert (clip.width, clip.height) == (96, 64)
    assert np.array_equal(decode_still(tmp_path / "a.png", bucket=BUCKET)[0], quarters())


def test_every_kind_of_pixel_becomes_8_bit_colour_over_white(tmp_path: Path) -> None:
    grey = np.full((64, 96), 100, dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(np.dstack([grey, grey, grey, np.zeros_like(grey)])).save(tmp_path / "clear.png")
    Image.fromarray(np.dstack([grey, grey, grey, grey])).save(tmp_path / "half.webp", lossless=True)
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png", transparency=100)
    Image.fromarray(np.dstack([grey] * 4), mode="CMYK").save(tmp_path / "print.jpg")
    values = {path.stem: int(decode_still(path, bucket=BUCKET)[0, 32, 48, 1]) for path in tmp_path.iterdir()}
    assert values["grey"] == values["deep"] == 100
    assert values["clear"] == values["palette"] == 255
    assert values["half"] == pytest.approx(255 - 155 * 100 / 255, abs=1)
    told = {path.stem: codes(probe_still(path)) for path in tmp_path.iterdir()}
    assert all(("transparent" in told[name]) == (name in ("clear", "half", "palette")) for name in told)


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")


def test_what_is_no_picture_is_named_with_the_reason(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:-2000])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.webp").touch()
    (tmp_path / "bomb.png").write_bytes(_png_header(60000, 60000))
    (tmp_path / "large.png").write_bytes(_png_header(9000, 9000))
    (tmp_path / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    found = {clip.path.stem: codes(clip)[0] if clip.problems else "" for clip in scan_folder(tmp_path, media="image")}
    assert found == {
        "whole": "missing_caption",
        "cut": "not_a_picture",
        "text": "not_a_picture",
        "empty": "empty_file",
        "bomb": "too_many_pixels",
        "large": "too_many_pixels",
        "script": "not_a_picture",
        "link": "unreadable",
    }
    with pytest.raises(DatasetError, match=r"cut\.png cannot be decoded"):
        decode_still(tmp_path / "cut.png", bucket=BUCKET)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF\x20\0\0\0WEBP", b"BM"]))
def test_no_bytes_crash_the_look_at_a_picture(tmp_path: Path, data: bytes, start: bytes) -> None:
    (tmp_path / "a.png").write_bytes(start + data)
    clip = probe_still(tmp_path / "a.png")
    assert clip.usable or clip.problems[0].fix


def test_a_picture_among_clips_and_a_clip_among_pictures_are_named_and_left_out(make_clip, tmp_path: Path) -> None:
    make_clip("a.mp4")
    Image.fromarray(quarters()).save(tmp_path / "b.png")
    (tmp_path / "b.txt").write_text("colours")
    for media, left_out, code in (("video", "b.png", "still_among_clips"), ("image", "a.mp4", "clip_among_stills")):
        samples, (other,) = place_all(scan_folder(tmp_path, media=media), BucketRule(resolution=64))
        assert len(samples) == 1
        assert (other.path.name, codes(other)) == (left_out, [code])
    samples, left = place_all(scan_folder(tmp_path, media="both"), BucketRule(resolution=64))
    assert (len(samples), left) == (2, [])


def test_a_crop_keeps_the_part_it_is_asked_for_in_pictures_and_clips(make_clip, tmp_path: Path) -> None:
    Image.fromarray(quarters()).save(tmp_path / "a.png")
    clip = make_clip("a.mp4", width=96, height=64, frames=9, picture=lambda _: quarters(), options={"preset": "ultrafast", "crf": "1"})
    small = Bucket(width=32, height=32, frames=1)
    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    from ltx2core.data.decode import decode_frames

    for crop, colour in (
        (Crop(across=0, down=0, zoom=2), red),
        (Crop(across=1, down=0, zoom=2), green),
        (Crop(across=0.5, down=1, zoom=2), blue),
    ):
        for frame in (
            decode_still(tmp_path / "a.png", bucket=small, crop=crop)[0],
            decode_frames(clip, bucket=small, fps=25, crop=crop)[0],
        ):
            assert np.abs(frame[4:28, 4:28].astype(int).mean(axis=(0, 1)) - colour).max() < 12
