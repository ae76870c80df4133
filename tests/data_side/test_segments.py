"""Stretches of long clips: which they are, that they are decoded as the whole clip is, and that their sound is theirs."""

from __future__ import annotations

from dataclasses import asdict
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltx2core.caching.decoder import decode
from ltx2core.caching.fingerprint import cut_of
from ltx2core.caching.pictures import frames_request
from ltx2core.caching.sounds import sound_request
from ltx2core.data.buckets import BucketRule, samples_of
from ltx2core.data.captions import CaptionRule
from ltx2core.data.clip import AudioTrack, Bucket, Clip, Sample
from ltx2core.data.decode import decode_frames
from ltx2core.data.probe import probe_clip
from ltx2core.data.segments import MAX_TURNS, snap_frames, stretches
from ltx2core.data.sound import read_sound

CLEAR = {"preset": "ultrafast", "crf": "4"}


def numbered(number: int) -> np.ndarray:
    """A frame that carries its number: ten stripes, white for a 1."""
    bits = [255 if number >> bit & 1 else 0 for bit in range(10)]
    return np.broadcast_to(np.repeat(np.array(bits, np.uint8), 32)[None, :, None], (64, 320, 3))


def numbers_of(frames: np.ndarray) -> list[int]:
    stripes = frames.mean(axis=(1, 3)).reshape(len(frames), 10, -1).mean(axis=2) > 128
    return [int(sum(1 << bit for bit in range(10) if row[bit])) for row in stripes]


def clip(frames: int, *, fps: float = 25.0, name: str = "a.mp4") -> Clip:
    return Clip(path=Path(name), width=96, height=64, frames=frames, fps=fps, seconds=frames / fps, codec="h264", caption="words")


@given(
    available=st.integers(1, 5000),
    wanted=st.integers(0, 60),
    segments=st.sampled_from(["first", "all", "random"]),
    least=st.sampled_from([1, 9, 25]),
    seed=st.integers(0, 2**40),
)
def test_stretches_lie_inside_the_clip_and_use_it(available: int, wanted: int, segments, least: int, seed: int) -> None:
    frames = min(8 * wanted + 1, (available - 1) // 8 * 8 + 1)
    found = stretches(available, frames, segments=segments, least=least, seed=seed, name="a.mp4")
    assert found
    assert found == stretches(available, frames, segments=segments, least=least, seed=seed, name="a.mp4")
    assert all(piece.frames % 8 == 1 and piece.start >= 0 and piece.start + piece.frames <= available for piece in found)
    assert [piece.start for piece in found] == sorted({piece.start for piece in found})
    if segments == "first":
        assert [(piece.start, piece.frames) for piece in found] == [(0, frames)]
    elif segments == "all":
        assert all(later.start == piece.start + piece.frames for piece, later in pairwise(found))
        assert available - sum(piece.frames for piece in found) < max(least, 9)  # less than what makes a stretch
    else:
        assert len(found) <= MAX_TURNS
        assert all(piece.frames == frames for piece in found)


def test_a_long_clip_trains_in_pieces_that_are_told_once() -> None:
    samples = samples_of(clip(130), BucketRule(resolution=64, num_frames=49, segments="all"))
    assert isinstance(samples, list)
    assert [(sample.bucket.label, sample.start) for sample in samples] == [("96x64@49", 0.0), ("96x64@49", 1.96), ("96x64@25", 3.92)]
    assert [problem.code for problem in samples[0].clip.problems] == ["segmented"]
    assert "3 stretches of 49, 123 frames in all" in samples[0].clip.problems[0].text
    assert samples[1].clip.problems == ()
    assert [sample.name for sample in samples] == ["a.mp4", "a.mp4 from 1.96 s", "a.mp4 from 3.92 s"]


def test_stretches_by_chance_differ_between_clips_and_seeds_and_nowhere_else() -> None:
    def starts(name: str, seed: int) -> list[float]:
        samples = samples_of(clip(500, name=name), BucketRule(num_frames=49, segments="random", seed=seed))
        assert isinstance(samples, list)
        assert all(sample.takes_turns for sample in samples)
        return [sample.start for sample in samples]

    assert len(starts("a.mp4", 0)) == MAX_TURNS
    assert starts("a.mp4", 0) == starts("a.mp4", 0)
    assert len({tuple(starts(name, seed)) for name in ("a.mp4", "b.mp4") for seed in (0, 1)}) == 4


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_stretch_is_what_the_whole_clip_has_there(make_clip, name: str) -> None:
    path = make_clip(name, width=320, height=64, frames=300, picture=numbered, options={**CLEAR, "g": "50", "bf": "2"})
    bucket = Bucket(width=320, height=64, frames=17)
    for start in (0, 3, 49, 50, 51, 120, 283):
        assert numbers_of(decode_frames(path, bucket=bucket, fps=25, start=start / 25)) == list(range(start, start + 17))


def test_a_stretch_of_a_clip_of_another_rate_and_of_a_variable_one_keeps_its_time(make_clip) -> None:
    path = make_clip("ntsc.mp4", width=320, height=64, frames=240, fps=Fraction(30000, 1001), picture=numbered, options=CLEAR)
    bucket = Bucket(width=320, height=64, frames=9)
    got = numbers_of(decode_frames(path, bucket=bucket, fps=25, start=6.0))
    assert all(abs(number - (6.0 + k / 25) * 30000 / 1001) <= 0.51 for k, number in enumerate(got))
    times = [0]
    for index in range(1, 200):
        times.append(times[-1] + (40 if index % 7 else 90))  # now and then a frame is held
    path = make_clip("vfr.mp4", width=320, height=64, frames=200, times_ms=times, picture=numbered, options=CLEAR)
    whole = numbers_of(decode_frames(path, bucket=Bucket(width=320, height=64, frames=217), fps=25))
    assert numbers_of(decode_frames(path, bucket=bucket, fps=25, start=4.8)) == whole[120:129]


def test_the_sound_of_a_stretch_is_what_the_whole_clip_has_there(make_clip) -> None:
    sweep = 0.3 * np.sin(2 * np.pi * np.cumsum(np.linspace(200, 3000, 48000 * 12)) / 48000)
    path = make_clip(width=64, height=64, frames=300, sound=np.stack([sweep, sweep]).astype(np.float32))
    whole = read_sound(path, seconds=12.0)
    assert whole is not None
    for begin in (0.4, 1.96, 7.0, 9.5):
        part = read_sound(path, seconds=1.96, begin=begin)
        assert part is not None
        at = round(begin * 16000)
        assert np.abs(part.samples[:, 50:-50] - whole.samples[:, at + 50 : at + part.samples.shape[1] - 50]).max() < 0.01
    last = read_sound(path, seconds=1.96, begin=11.0)
    assert last is not None
    assert 15900 <= last.valid <= 16100  # a second is left, the rest is padding


def test_silence_is_as_long_as_its_clip_and_says_so() -> None:
    sample = Sample(clip=clip(49), bucket=Bucket(width=64, height=64, frames=49), fps=25, captions=("x",), silent=True)
    samples, extras = decode(asdict(sound_request(sample, 16000)), threads=1)
    assert (samples.shape, extras, float(np.abs(samples).max())) == ((2, 31360), {"valid": 31360}, 0.0)


def test_only_a_cut_adds_to_the_names_of_cache_entries() -> None:
    plain = Sample(clip=clip(49), bucket=Bucket(width=64, height=64, frames=49), fps=25, captions=("x",))
    assert (cut_of(plain).time, cut_of(plain).place) == ({}, {})
    track = AudioTrack(sample_rate=48000, channels=2, seconds=20.0, codec="aac")
    assert not plain.has_sound
    assert Sample(clip=Clip(path=Path("a"), audio=track), bucket=plain.bucket, fps=25, captions=("x",)).has_sound


@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4"])
def test_the_real_clips_train_in_stretches(real_clips: Path, name: str) -> None:
    captions = CaptionRule(strategy="filename")
    found = probe_clip(real_clips / name, captions=captions)
    samples = samples_of(found, BucketRule(resolution=64, num_frames=41, segments="all", captions=captions))
    assert isinstance(samples, list)
    assert len(samples) > 2
    frames = [decode(asdict(frames_request(sample)), threads=1)[0] for sample in samples]
    first = samples[0].picture
    assert first is not None
    bucket = Bucket(width=first.width, height=first.height, frames=snap_frames(sum(len(part) for part in frames)))
    whole = decode_frames(found.path, bucket=bucket, fps=25)
    for sample, part in zip(samples, frames, strict=True):
        begin = round(sample.start * 25)
        there = whole[begin : begin + len(part)]
        assert np.array_equal(part[: len(there)], there)
