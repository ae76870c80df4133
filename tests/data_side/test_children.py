"""Files that attack their reader: it ends, the scan does not, and the file is named."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ltx2core.data.children import Bounds, Children, Reading
from ltx2core.errors import Stopped
from tests.shots import panning

if TYPE_CHECKING:
    from collections.abc import Callable


def read(paths: list[Path], bounds: Bounds | None = None, *, depth: str = "deep", count: int = 1) -> list[Reading]:
    with Children(count, bounds=bounds) as children:
        return children.read(paths, depth).result(timeout=120)


def codes(reading: Reading) -> list[str]:
    return [problem.code for problem in reading.clip.problems]


def test_readings_come_in_the_order_asked_and_say_what_this_process_would(make_clip) -> None:
    from ltx2core.data.captions import CaptionRule
    from ltx2core.data.inspection import inspect_clip
    from ltx2core.data.probe import probe_clip

    paths = [make_clip(f"{number}.mp4", frames=20, picture=panning(number), sound_seconds=0.8) for number in range(3)]
    for reading, path in zip(read(paths), paths, strict=True):
        assert reading.clip == probe_clip(path, captions=CaptionRule(strategy="filename"))
        assert reading.inspection == inspect_clip(path, frames=20)
        assert reading.kept
    assert all(reading.inspection is None for reading in read(paths, depth="header"))


@pytest.fixture
def reader_that(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Makes the readers' own Python do something at the file bad.mp4: the decoder of this build has no known crash to call on."""

    def make(does: str) -> None:
        patch = f"""
import os, time, ltx2core.data.probe as probe
whole = probe.probe_clip
def bad(path, **more):
    if path.name == "bad.mp4":
        {does}
    return whole(path, **more)
probe.probe_clip = bad
"""
        (tmp_path / "patch").mkdir()
        (tmp_path / "patch" / "sitecustomize.py").write_text(patch)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "patch"), os.environ.get("PYTHONPATH", "")]))

    return make


def test_a_reader_that_dies_is_replaced_and_the_file_it_read_is_named(make_clip, reader_that: Callable[[str], None]) -> None:
    paths = [make_clip(f"{name}.mp4", frames=9) for name in ("good", "bad", "fine")]
    reader_that("os.kill(os.getpid(), 11)")
    readings = read(paths, depth="header")
    assert [codes(reading) for reading in readings] == [["no_audio"], ["decoder_crashed"], ["no_audio"]]
    assert readings[1].clip.problems[0].text == "bad.mp4 made the decoder crash; only its own process ended."
    assert [reading.kept for reading in readings] == [True, False, True]


def test_a_fault_of_our_own_at_one_file_is_told_with_its_name(make_clip, reader_that: Callable[[str], None]) -> None:
    paths = [make_clip(f"{name}.mp4", frames=9) for name in ("bad", "fine")]
    reader_that("1 / 0")
    readings = read(paths, depth="header")
    assert "(ZeroDivisionError: division by zero)" in readings[0].clip.problems[0].text
    assert codes(readings[1]) == ["no_audio"]


def test_a_file_that_takes_too_long_is_given_up_and_its_reader_ended(make_clip, reader_that: Callable[[str], None]) -> None:
    paths = [make_clip(f"{name}.mp4", frames=9) for name in ("bad", "good")]
    reader_that("time.sleep(600)")
    begun = time.monotonic()
    readings = read(paths, Bounds(header_seconds=1.0, grace=1.0), depth="header")
    assert time.monotonic() - begun < 30
    assert [codes(reading)[0] for reading in readings] == ["timed_out", "no_audio"]
    assert "bad.mp4 was still being read after 2 s" in readings[0].clip.problems[0].text


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to RLIMIT_AS")
def test_a_picture_that_unpacks_to_too_much_memory_is_named_and_the_next_is_read(make_clip) -> None:
    """50 MB of one colour in 50 kB, for a reader that may map 30 MB more than it does at rest."""
    flat = np.zeros((4096, 4096, 3), dtype=np.uint8)
    bomb = make_clip("bomb.mov", width=4096, height=4096, frames=1, picture=lambda _: flat, codec="png", pixel_format="rgb24")
    assert bomb.stat().st_size < 1 << 18
    rest = "import ltx2core.data.child, re; print(re.search('VmSize:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    at_rest = int(subprocess.run([sys.executable, "-c", rest], env=env, capture_output=True, text=True, check=True).stdout) << 10
    good = make_clip("good.mp4", frames=9)
    readings = read([bomb, good], Bounds(memory_bytes=at_rest + (30 << 20)))
    assert codes(readings[0]) == ["out_of_memory"]
    assert codes(readings[1]) == ["no_audio"]


def test_a_clip_of_very_many_frames_in_a_few_bytes_ends_at_a_limit(make_clip) -> None:
    flat = panning(1, 640, 480)(0)
    bomb = make_clip("bomb.mp4", width=640, height=480, frames=600, picture=lambda _: flat, fps=1000)
    begun = time.monotonic()
    (reading,) = read([bomb], Bounds(deep_seconds=0.05))
    assert time.monotonic() - begun < 30
    assert reading.inspection is not None
    assert not reading.inspection.complete
    assert 0 < reading.inspection.frames < 600


def test_a_header_that_claims_a_huge_picture_is_refused_before_it_is_decoded(make_clip) -> None:
    path = make_clip("huge.mp4", frames=9)
    data = bytearray(path.read_bytes())
    place = data.index(b"avc1") + 28  # width and height of the sample entry (ISO/IEC 14496-12, section 12.1.3)
    data[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    (reading,) = read([path])
    assert reading.clip.frames == 9 or not reading.clip.usable  # the codec's own header says the truth, and is believed


def test_a_recording_that_goes_on_and_on_is_read_for_its_time_and_no_longer(make_clip) -> None:
    """A Matroska file of unknown length whose clusters come again and again, as of a camera that nobody stopped."""
    path = make_clip("live.mkv", frames=50, width=64, height=64, format_options={"live": "1"})
    data = path.read_bytes()
    cluster = data.index(b"\x1f\x43\xb6\x75")
    path.write_bytes(data[:cluster] + data[cluster:] * 6000)
    begun = time.monotonic()
    (reading,) = read([path], Bounds(header_seconds=0.3, deep_seconds=0.3))
    assert time.monotonic() - begun < 20
    assert (
        reading.clip.frames == 0 or {"not_fully_read", "partly_checked", "variable_frame_rate"} & set(codes(reading)) or reading.inspection
    )


def test_a_file_that_claims_to_be_a_terabyte_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "sparse.mp4"
    with path.open("wb") as file:
        file.write(b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + b"\0\0\0\1mdat" + (1 << 40).to_bytes(8))
        file.truncate(1 << 36)
    begun = time.monotonic()
    (reading,) = read([path])
    assert time.monotonic() - begun < 10
    assert codes(reading) == ["truncated"]


def test_closing_ends_readers_in_the_middle_of_a_file(make_clip) -> None:
    long = make_clip("long.mp4", width=512, height=384, frames=200, picture=panning(1, 512, 384))
    with Children(1) as children:
        waiting = children.read([long] * 200, "deep")
        time.sleep(1.0)  # it has begun
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    with pytest.raises(Stopped):
        waiting.result(timeout=1)


def test_a_name_with_a_newline_or_bytes_that_are_no_text_is_read(make_clip, tmp_path: Path) -> None:
    odd = [Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")), tmp_path / "two\nlines.mp4"]
    for path in odd:
        make_clip("a.mp4", frames=9).rename(path)
    assert [(reading.clip.path, reading.clip.frames) for reading in read(odd, depth="header")] == [(path, 9) for path in odd]
