from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltx2core.data.buckets import BucketRule, assign_buckets, bucket_frames, bucket_size, frames_at, place, snap_frames, snap_size
from ltx2core.data.captions import CaptionRule
from ltx2core.data.clip import AudioTrack, Bucket, Clip, Problem, Sample, SoundBucket


def clip(
    *, width: int = 768, height: int = 512, frames: int = 49, fps: float = 25.0, caption: str | None = "words", name: str = "a.mp4"
) -> Clip:
    return Clip(path=Path(name), width=width, height=height, frames=frames, fps=fps, seconds=frames / fps, codec="h264", caption=caption)


def codes(item: Sample | Clip) -> list[str]:
    problems = item.clip.problems if isinstance(item, Sample) else item.problems
    return [problem.code for problem in problems]


@given(frames=st.integers(-5, 10**6))
def test_frames_snap_down_to_8k_plus_1(frames: int) -> None:
    snapped = snap_frames(frames)
    assert snapped % 8 == 1
    assert snapped >= 1
    assert frames < 1 or snapped <= frames < snapped + 8


@given(pixels=st.floats(0.1, 1e5))
def test_sizes_snap_to_the_nearest_multiple_of_32(pixels: float) -> None:
    snapped = snap_size(pixels)
    assert snapped % 32 == 0
    assert snapped >= 32
    assert snapped == 32 or abs(snapped - pixels) <= 16


def test_the_known_numbers_of_users_snap_as_the_facts_say() -> None:
    assert [snap_frames(n) for n in (61, 49, 50, 125, 8, 9)] == [57, 49, 49, 121, 1, 9]
    assert [snap_size(n) for n in (720, 512, 480, 1080, 500, 1)] == [704, 512, 480, 1088, 512, 32]


@given(
    width=st.integers(1, 8192),
    height=st.integers(1, 8192),
    resolution=st.floats(32, 2048),
    kind=st.sampled_from(["pixel", "pixel_area"]),
)
def test_every_shape_gets_a_bucket_that_is_near_it(width: int, height: int, resolution: float, kind) -> None:
    wide, high = bucket_size(width, height, resolution=resolution, resolution_type=kind)
    assert wide % 32 == high % 32 == 0
    assert bucket_size(height, width, resolution=resolution, resolution_type=kind) == (high, wide)
    if kind == "pixel":
        assert min(wide, high) == snap_size(resolution)
    assert max(wide, high) <= 4 * snap_size(resolution) + 32


@pytest.mark.parametrize(
    ("shape", "resolution", "kind", "expected"),
    [
        ((1280, 720), 512, "pixel", (896, 512)),
        ((720, 1280), 512, "pixel", (512, 896)),
        ((640, 272), 512, "pixel", (1216, 512)),
        ((1024, 1024), 512, "pixel", (512, 512)),
        ((1280, 720), 0.25, "area", (672, 384)),
        ((1280, 720), 512, "pixel_area", (672, 384)),
        ((1920, 1080), 720, "pixel", (1248, 704)),
        ((853, 481), 480, "pixel", (864, 480)),
    ],
)
def test_resolution_means_what_its_type_says(shape, resolution: float, kind, expected) -> None:
    assert bucket_size(*shape, resolution=resolution, resolution_type=kind) == expected


@given(
    frames=st.integers(1, 5000),
    fps=st.sampled_from([10.0, 23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 60.0, 120.0]),
    rate=st.sampled_from([16.0, 24.0, 25.0, 30.0]),
    wanted=st.one_of(st.none(), st.integers(1, 300)),
    least=st.one_of(st.none(), st.integers(1, 300)),
    most=st.one_of(st.none(), st.integers(1, 600)),
    interval=st.one_of(st.none(), st.integers(1, 50)),
    strategy=st.sampled_from(["aspect_ratio", "resolution_frames"]),
)
def test_no_clip_is_lost_without_a_reason_and_none_is_asked_for_frames_it_lacks(
    frames, fps, rate, wanted, least, most, interval, strategy
) -> None:
    rule = BucketRule(
        num_frames=wanted, min_frames=least, max_frames=most, frame_rate=rate, bucket_strategy=strategy, frame_interval=interval
    )
    placed = place(clip(frames=frames, fps=fps), rule)
    if isinstance(placed, Clip):
        assert not placed.usable
        assert codes(placed)[-1] in ("too_short", "too_long")
        assert placed.problems[-1].fix
        return
    available = frames_at(frames / fps, rate)
    assert placed.bucket.frames <= max(available, 1)
    assert placed.bucket.frames <= 20 * rate + 1
    if wanted is not None and strategy == "aspect_ratio":
        assert placed.bucket.frames <= snap_frames(wanted)


def test_frames_are_counted_at_the_datasets_rate() -> None:
    assert frames_at(61 / 30, 25) == 50
    (sample,), left_out = assign_buckets([clip(frames=61, fps=30)], resolution=512, num_frames=57, frame_rate=25)
    assert (sample.bucket.frames, sample.fps, left_out) == (49, 25, [])
    assert {"resampled", "fewer_frames"} <= set(codes(sample))


@pytest.mark.parametrize("fps", [23.976, 24.0, 25.0, 29.97, 30.0])
def test_a_clip_at_its_own_rate_keeps_all_its_frames(fps: float) -> None:
    assert all(frames_at(frames / fps, fps) == frames for frames in range(1, 500))


def test_a_clip_shorter_than_num_frames_trains_in_its_own_bucket() -> None:
    (sample,), _ = assign_buckets([clip(frames=30)], num_frames=121)
    assert sample.bucket.frames == 25
    assert codes(sample) == ["fewer_frames"]


def test_only_below_the_smallest_bucket_a_clip_is_left_out_with_what_would_work() -> None:
    samples, (short,) = assign_buckets([clip(frames=8)], num_frames=49)
    assert samples == []
    assert short.problems == (
        Problem(
            code="too_short",
            level="error",
            text="a.mp4 has 8 frames at 25 fps (0.32 s); the smallest bucket takes 9.",
            fix="Use a clip of at least 0.36 s.",
        ),
    )
    _, (short,) = assign_buckets([clip(frames=40)], num_frames=61, min_frames=61)
    assert short.problems[0].fix == "Use a clip of at least 2.28 s, or lower video.min_frames to 33."


def test_the_quickstarts_61_frames_take_clips_of_57() -> None:
    (sample,), _ = assign_buckets([clip(frames=57)], num_frames=61, min_frames=61)
    assert sample.bucket.frames == 57


def test_a_clip_beyond_max_frames_is_left_out_by_name() -> None:
    _, (long,) = assign_buckets([clip(frames=200)], num_frames=49, max_frames=120)
    assert codes(long) == ["too_long"]


def test_a_long_clip_says_how_much_of_it_is_used() -> None:
    (sample,), _ = assign_buckets([clip(frames=250)], num_frames=49)
    assert codes(sample) == ["trimmed"]
    assert "the first 49 are used (1.96 s)" in sample.clip.problems[0].text


def test_resolution_frames_keeps_each_clips_own_length() -> None:
    clips = [clip(frames=n) for n in (25, 60, 130, 250)]
    samples, _ = assign_buckets(clips, bucket_strategy="resolution_frames", max_frames=300)
    assert [sample.bucket.frames for sample in samples] == [25, 57, 129, 249]
    samples, _ = assign_buckets(clips, bucket_strategy="resolution_frames", max_frames=300, frame_interval=50)
    assert [sample.bucket.frames for sample in samples] == [25, 49, 97, 249]
    assert bucket_frames(2000, BucketRule(bucket_strategy="resolution_frames", frame_rate=25)) == 497  # 20 s


def test_nothing_is_enlarged_without_saying_so() -> None:
    (sample,), _ = assign_buckets([clip(width=640, height=272)], resolution=512, num_frames=49)
    assert sample.bucket.label == "1216x512@49"
    assert codes(sample) == ["odd_size", "upscaled"]
    assert "1.9" in sample.clip.problems[1].text
    (sample,), _ = assign_buckets([clip(width=640, height=288)], resolution=256, num_frames=49)
    assert "upscaled" not in codes(sample)


def test_an_odd_size_says_what_it_becomes() -> None:
    (sample,), _ = assign_buckets([clip(width=853, height=481)], resolution=480, num_frames=49)
    problem = next(problem for problem in sample.clip.problems if problem.code == "odd_size")
    assert problem.text.startswith("a.mp4 is 853x481; sides are multiples of 32, so it trains as 864x480")


def test_an_extreme_shape_is_cropped_to_4_to_1() -> None:
    (sample,), _ = assign_buckets([clip(width=4000, height=400)], resolution=256, num_frames=49)
    assert sample.bucket.label == "1024x256@49"
    assert codes(sample) == ["extreme_aspect"]


def test_a_slow_clip_is_warned_about() -> None:
    (sample,), _ = assign_buckets([clip(frames=30, fps=10)], num_frames=49)
    assert "low_frame_rate" in codes(sample)


def test_a_clip_with_an_error_is_passed_on_as_it_is() -> None:
    bad = Clip(path=Path("a.mp4"), problems=(Problem(code="truncated", level="error", text="a.mp4 is cut off."),))
    assert assign_buckets([bad]) == ([], [bad])


def test_captions_reach_the_sample() -> None:
    (sample,), _ = assign_buckets([clip(caption="one\n\ntwo \n")], repeats=10)
    assert (sample.captions, sample.repeats) == (("one", "two"), 10)
    _, (left_out,) = assign_buckets([clip(caption=None)], captions=CaptionRule(strategy="instanceprompt"))
    assert codes(left_out) == ["missing_caption"]
    assert "Set instance_prompt" in left_out.problems[0].fix


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 100))
def test_a_bucket_is_read_back_from_its_label(width: int, height: int, steps: int) -> None:
    bucket = Bucket(width=32 * width, height=32 * height, frames=8 * steps + 1)
    assert Bucket.from_label(bucket.label) == bucket


@pytest.mark.parametrize("label", ["", "512x512", "512x512@48", "500x512@49", "0x0@1", "512X512@49", "٣٢x32@1", "-32x32@1"])
def test_a_label_that_is_no_bucket_is_refused(label: str) -> None:
    with pytest.raises(ValueError):
        Bucket.from_label(label)


def test_an_unknown_problem_code_is_refused() -> None:
    with pytest.raises(ValueError, match="PROBLEM_CODES"):
        Problem(code="strange", level="info", text="?")


def _track(start: float = 0.0) -> AudioTrack:
    return AudioTrack(sample_rate=48000, channels=2, seconds=2.0, codec="aac", start=start)


def test_sound_alone_is_placed_by_its_length_and_says_nothing_of_pictures() -> None:
    found = replace(clip(width=100, height=30, frames=60), audio=_track()).having(Problem(code="hdr", level="warning", text="pale"))
    placed = place(found, BucketRule(num_frames=49, sound_only=True))
    assert isinstance(placed, Sample)
    assert (placed.bucket, placed.bucket.label, placed.picture) == (SoundBucket(latents=49), "1.96s", None)
    assert placed.seconds == pytest.approx(1.96)
    assert codes(placed) == ["trimmed"]


def test_a_clip_with_nothing_to_hear_is_left_out_of_sound_alone() -> None:
    rule = BucketRule(num_frames=49, sound_only=True)
    silent, late = clip(), replace(clip(), audio=_track(start=1.96))
    for item in (silent, late):
        assert codes(place(item, rule)) == ["no_sound"]
    assert isinstance(place(replace(clip(), audio=_track(start=1.9)), rule), Sample)


@given(seconds=st.floats(0, 1000))
def test_a_bucket_of_sound_is_within_half_a_latent_of_its_length(seconds: float) -> None:
    assert abs(SoundBucket.of_seconds(seconds).seconds - max(seconds, 0.04)) <= 0.0201
