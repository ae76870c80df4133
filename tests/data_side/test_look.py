from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ltx2core.data.inspection import inspect_clip
from ltx2core.data.look import Look, find_alike, group_by_first, look_at
from ltx2core.data.probe import probe_clip
from tests.shots import grey, panning, texture

if TYPE_CHECKING:
    from pathlib import Path


def look(path: Path) -> Look | None:
    return inspect_clip(path, frames=probe_clip(path).frames).look


def random_looks(count: int, seed: int = 0) -> list[Look]:
    rng = np.random.default_rng(seed)
    return [Look(rng.bytes(32), rng.bytes(1024)) for _ in range(count)]


def test_copies_in_another_size_rate_codec_and_quality_are_alike_and_other_clips_are_not(make_clip) -> None:
    shot = panning(1, 256, 192)
    paths = [
        make_clip("a.mp4", width=256, height=192, frames=50, picture=shot),
        make_clip("b.mp4", width=128, height=96, frames=50, picture=lambda n: shot(n)[::2, ::2], options={"crf": "35"}),
        make_clip("c.mkv", width=256, height=192, frames=100, fps=50, picture=lambda n: shot(n // 2)),
        make_clip("d.webm", width=256, height=192, frames=50, picture=shot, codec="libvpx"),
        make_clip("e.mp4", width=256, height=192, frames=50, picture=panning(2, 256, 192)),
        make_clip("f.mp4", width=256, height=192, frames=50, picture=lambda n: np.clip(shot(n).astype(int) + 12, 0, 255).astype(np.uint8)),
    ]
    looks = [(number, found) for number, path in enumerate(paths) if (found := look(path)) is not None]
    assert len(looks) == 6
    assert find_alike(looks) == {1: 0, 2: 0, 3: 0, 5: 0}


def test_two_takes_from_one_tripod_are_not_copies(make_clip) -> None:
    ground = texture(1, 256, 192)

    def take(row: int):
        def picture(number: int) -> np.ndarray:
            canvas = ground.copy()
            canvas[row : row + 60, 2 * number : 2 * number + 60] = 255 - canvas[row : row + 60, 2 * number : 2 * number + 60]
            return canvas

        return picture

    paths = [make_clip(f"{row}.mp4", width=256, height=192, frames=50, picture=take(row)) for row in (10, 110)]
    assert find_alike((number, found) for number, path in enumerate(paths) if (found := look(path)) is not None) == {}


def test_the_real_clips_are_not_alike(real_clips: Path) -> None:
    paths = [real_clips / name for name in ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")]
    assert find_alike((number, found) for number, path in enumerate(paths) if (found := look(path)) is not None) == {}


def test_none_and_one_are_like_nothing() -> None:
    assert find_alike([]) == {}
    assert find_alike([(0, random_looks(1)[0])]) == {}


def test_plain_pictures_have_no_look(make_clip) -> None:
    assert look(make_clip(frames=30, picture=grey(120))) is None


def test_chains_of_likeness_end_at_the_first_and_numbers_may_have_gaps() -> None:
    one, two = random_looks(2)
    near = np.frombuffer(one.hashes, dtype=np.uint64).copy()
    near[0] ^= np.uint64(0b111)
    assert find_alike([(3, one), (10, two), (20, Look(near.tobytes(), one.thumbs)), (30, one)]) == {20: 3, 30: 3}
    assert group_by_first({20: 3, 30: 3}) == {3: [20, 30]}


@pytest.mark.parametrize(("bits", "alike"), [(20, True), (21, False)])
def test_up_to_20_bits_may_differ(bits: int, alike: bool) -> None:
    (one,) = random_looks(1)
    other = bytearray(one.hashes)
    for bit in range(bits):  # all in a few pieces, so that others stay equal
        other[bit // 8] ^= 1 << bit % 8
    assert (find_alike([(0, one), (1, Look(bytes(other), one.thumbs))]) == {1: 0}) == alike


@pytest.mark.parametrize(("levels", "alike"), [(20, True), (60, False)])
def test_like_hashes_with_other_pictures_are_not_copies(levels: int, alike: bool) -> None:
    one = Look(random_looks(1)[0].hashes, bytes([100]) * 1024)
    thumbs = bytearray(one.thumbs)
    thumbs[500] += levels
    assert (find_alike([(0, one), (1, Look(one.hashes, bytes(thumbs)))]) == {1: 0}) == alike


def test_a_brighter_copy_is_a_copy() -> None:
    one = Look(random_looks(1)[0].hashes, bytes(range(50, 178)) * 8)
    brighter = Look(one.hashes, bytes(level + 30 for level in one.thumbs))
    assert find_alike([(0, one), (1, brighter)]) == {1: 0}


def test_many_copies_and_many_different_clips_take_seconds_not_hours() -> None:
    same = random_looks(1)[0]
    looks = [same] * 5000 + random_looks(15000, seed=1)
    begun = time.process_time()
    assert len(find_alike(enumerate(looks))) == 4999
    assert time.process_time() - begun < 60  # each with each would be 200 million comparisons


@pytest.mark.parametrize(("frames", "numbers"), [(8, (1, 3, 5, 7)), (100, (12, 37, 62, 87)), (1, (0,)), (0, (0,))])
def test_a_look_is_taken_at_odd_eighths(frames: int, numbers: tuple[int, ...]) -> None:
    assert look_at(frames) == numbers
