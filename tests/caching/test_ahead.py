"""Clips decoded ahead: in order, within bounds, and past files that end their decoder or hold it up. Real files and real processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from ltx2core.caching import ahead as module
from ltx2core.caching.ahead import Ahead, Decoded, Request
from ltx2core.data.clip import Bucket
from ltx2core.data.decode import decode_frames
from ltx2core.errors import DatasetError, Stopped
from ltx2core.hardware.helper_memory import HELPERS
from ltx2core.hardware.limits import locked_for
from ltx2core.planning.phases import _DECODER_BYTES, _DECODER_CLIPS, _MOST_DECODERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import MakeClip

SIZE = {"width": 64, "height": 64, "frames": 9}
CLIP_BYTES = 3 * 64 * 64 * 9


def request(path: Path) -> Request:
    return Request(kind="frames", path=str(path), fps=25, rotation=0, **SIZE)


@pytest.fixture
def requests(make_clip: MakeClip) -> list[Request]:
    """Six clips, of which the fourth is no video and the fifth does not exist."""
    paths = [make_clip(f"clip{index}.mp4", width=64, height=64, frames=9 + index) for index in range(4)]
    broken = paths[0].with_name("broken.mp4")
    broken.write_bytes(b"no video")
    order = [*paths[:3], broken, paths[0].with_name("gone.mp4"), paths[3]]
    return [request(path) for path in order]


def test_clips_come_in_order_as_decoded_here_and_broken_ones_say_what_they_are(requests: list[Request]) -> None:
    with Ahead(requests, processes=2, max_bytes=1 << 30) as ahead:
        found = list(ahead)
    assert [isinstance(one, Decoded) for one in found] == [True, True, True, False, False, True]
    for one, asked in zip(found, requests, strict=True):
        if isinstance(one, Decoded):
            expected = decode_frames(module.Path(asked.path), bucket=Bucket(**SIZE), fps=25, rotation=0)
            assert np.array_equal(one.array.numpy(), expected)
    assert all("mp4" in one.text for one in found if isinstance(one, DatasetError))


def test_sound_and_masks_come_the_same_way(make_clip: MakeClip) -> None:
    path = make_clip(width=64, height=64, frames=33, sound_seconds=0.6)
    sound = Request(kind="sound", path=str(path), seconds=33 / 25, sample_rate=16000)
    mask = Request(kind="mask", path=str(path), fps=25, width=64, height=64, frames=33)
    with Ahead([sound, mask, request(path)], processes=1, max_bytes=1 << 30) as ahead:
        heard, given, seen = ahead
    assert isinstance(heard, Decoded)
    assert heard.array.shape == (2, 33 * 16000 // 25)
    assert abs(heard.valid - 0.6 * 16000) < 1100
    assert isinstance(given, Decoded)
    assert given.array.shape == (5, 2, 2)
    assert isinstance(seen, Decoded)
    assert seen.array.shape == (9, 64, 64, 3)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel's peak counter is Linux's")
def test_what_the_decoders_hold_is_told_and_is_what_a_plan_counts(make_clip: MakeClip) -> None:
    path = make_clip(width=640, height=384, frames=49)
    large = Request(kind="frames", path=str(path), fps=25, rotation=0, width=640, height=384, frames=49)
    HELPERS.take()
    with Ahead([large] * 4, processes=2, max_bytes=1 << 30) as ahead:
        assert len(list(ahead)) == 4
    held = HELPERS.take()
    assert _MOST_DECODERS == module.MOST_PROCESSES
    assert held == pytest.approx(2 * (_DECODER_BYTES + _DECODER_CLIPS * large.array_bytes), rel=0.25)
    assert HELPERS.take() == 0


def test_no_more_is_decoded_than_there_is_room_for(requests: list[Request]) -> None:
    good = [requests[0], requests[1], requests[2], requests[5]] * 3
    most = 0
    with Ahead(good, processes=4, max_bytes=2 * CLIP_BYTES) as ahead:
        for _ in ahead:
            _until(lambda: ahead._next - ahead._taken >= 2 or ahead._next == len(good))
            most = max(most, ahead._bytes)
    assert most == 2 * CLIP_BYTES


def test_memory_is_counted_as_it_is_page_locked_for_a_card(requests: list[Request]) -> None:
    assert [locked_for(size) for size in (1, 4096, 4097, 3 * 1280 * 704 * 121)] == [1, 4096, 8192, 512 << 20]
    size = requests[0].array_bytes
    room = 2 * locked_for(size)
    assert locked_for(size) > size
    assert [len(Ahead(requests[:4], processes=4, max_bytes=room, pinned=pinned)._threads) for pinned in (True, False)] == [2, room // size]


def test_a_clip_larger_than_the_room_is_decoded_alone(requests: list[Request]) -> None:
    with Ahead(requests[:3], processes=2, max_bytes=1) as ahead:
        assert all(isinstance(one, Decoded) for one in ahead)


def test_a_decoder_that_dies_costs_its_clip_and_no_other(requests: list[Request], tmp_path: Path) -> None:
    pipe = tmp_path / "endless.mp4"
    os.mkfifo(pipe)  # opening it waits for ever, as a file on a dead network disk does
    asked = [requests[0], request(pipe), requests[1], requests[2]]
    with Ahead(asked, processes=1, max_bytes=1 << 30) as ahead:
        found = iter(ahead)
        first = next(found)
        threading.Thread(target=_kill_the_reader_of, args=(pipe,)).start()
        rest = list(found)
    assert isinstance(first, Decoded)
    assert isinstance(rest[0], DatasetError)
    assert rest[0].text == "it made the decoder crash (signal 11)."
    assert all(isinstance(one, Decoded) for one in rest[1:])
    assert not _decoders()


def test_a_decoder_that_never_answers_is_given_up(requests: list[Request], tmp_path: Path) -> None:
    pipe = tmp_path / "endless.mp4"
    os.mkfifo(pipe)
    with Ahead([request(pipe), requests[0]], processes=1, max_bytes=1 << 30, seconds_allowed=2.0) as ahead:
        late, good = ahead
    assert isinstance(late, DatasetError)
    assert late.text == "it was still being decoded after 2 s."
    assert isinstance(good, Decoded)


def test_a_stop_is_heard_while_a_clip_is_decoded(tmp_path: Path) -> None:
    pipe = tmp_path / "endless.mp4"
    os.mkfifo(pipe)
    stop = threading.Event()
    begin = time.monotonic()
    threading.Thread(target=lambda: (_until(lambda: bool(_decoders())), stop.set())).start()
    with Ahead([request(pipe)], processes=1, max_bytes=1 << 30, should_stop=stop.is_set) as ahead, pytest.raises(Stopped):
        list(ahead)
    assert time.monotonic() - begin < 20  # the pipe would never end
    assert not _decoders()


def test_what_is_made_meanwhile_is_not_decoded(requests: list[Request]) -> None:
    with Ahead(requests[:3], processes=1, max_bytes=1 << 30, is_made=lambda index: index == 1) as ahead:
        first, second, third = ahead
    assert second is None
    assert isinstance(first, Decoded)
    assert isinstance(third, Decoded)


def _decoders() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.is_running() and "ltx2core.caching.decoder" in child.cmdline()]


def _kill_the_reader_of(pipe: Path) -> None:
    """Open the pipe, which waits until the decoder reads it, and end that with the signal of a crash."""
    with pipe.open("wb"):
        (decoder,) = _decoders()
        decoder.send_signal(signal.SIGSEGV)


def _until(true: Callable[[], bool]) -> None:
    for _ in range(2000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to pass in 20 s")
