"""Bytes that nobody wrote as a video: no exception, no hang, no line missing."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ltx2core.data.clip import Bucket
from ltx2core.data.decode import decode_frames
from ltx2core.data.probe import probe_clip
from ltx2core.data.sound import read_sound
from ltx2core.data.structure import read_structure
from ltx2core.errors import DatasetError

QUIET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
HEADS = [
    b"",
    b"\0\0\0\x18ftypisom",
    b"\0\0\0\x08mdat",
    b"\0\0\0\0moov",
    b"\0\0\0\1mdat",
    b"\x1a\x45\xdf\xa3",
    b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67",
    b"RIFF",
    b"FLV\x01",
    b"#EXTM3U\n",
    b"ffconcat version 1.0\nfile /etc/passwd\n",
    b"\x47" * 188,
    b"\xff\xd8\xff\xe0",
    b"GIF89a",
]


@QUIET
@given(head=st.sampled_from(HEADS), tail=st.binary(max_size=600))
def test_garbage_named_mp4_is_one_clip_with_one_error(tmp_path: Path, head: bytes, tail: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(head + tail)
    path.with_suffix(".txt").write_text("words")
    clip = probe_clip(path)
    assert not clip.usable
    assert sum(problem.level == "error" for problem in clip.problems) == 1
    assert "a.mp4" in clip.problems[0].text
    assert clip.problems[0].fix


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_clip_with_flipped_bytes_never_raises_but_what_is_documented(make_clip, tmp_path: Path, name: str) -> None:
    original = bytearray(make_clip(name, width=64, height=64, frames=17, sound_seconds=0.68).read_bytes())

    @QUIET
    @given(places=st.lists(st.tuples(st.integers(0, len(original) - 1), st.integers(0, 255)), min_size=1, max_size=30))
    def flip(places: list[tuple[int, int]]) -> None:
        data = bytearray(original)
        for at, value in places:
            data[at] = value
        path = tmp_path / name
        path.write_bytes(data)
        start = time.monotonic()
        clip = probe_clip(path)
        assert clip.usable or clip.problems
        if clip.usable:
            with contextlib.suppress(DatasetError):
                decode_frames(path, bucket=Bucket(width=64, height=64, frames=9), fps=25)
                read_sound(path, seconds=0.36)
        assert time.monotonic() - start < 20

    flip()


def test_a_box_that_claims_more_than_any_disk_holds_is_a_cut_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"\0\0\0\x08moov" + b"\0\0\0\1mdat" + (2**63 - 1).to_bytes(8) + bytes(100))
    assert read_structure(path).missing_bytes > 2**62
    assert probe_clip(path).problems[0].code == "truncated"


def test_a_playlist_named_mp4_opens_nothing_it_names(tmp_path: Path, make_clip) -> None:
    good = make_clip("good.mp4", frames=9)
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile {good.name}\n")
    with pytest.raises(DatasetError):
        decode_frames(tmp_path / "list.mp4", bucket=Bucket(width=32, height=32, frames=9), fps=25)
    with pytest.raises(DatasetError):
        read_sound(Path(f"concat:{good}|{good}"), seconds=1)


def test_a_name_that_is_not_utf8_is_read(make_clip, tmp_path: Path) -> None:
    import os

    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    try:
        make_clip(frames=9).rename(path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert probe_clip(path).frames == 9
    assert decode_frames(path, bucket=Bucket(width=32, height=32, frames=9), fps=25).shape[0] == 9
