"""Which bucket a clip trains in. Arithmetic on what the scan found; no file is opened here.

Frames are counted after resampling to the dataset's rate. A clip that is longer than its bucket gives its first frames; one
that is shorter than video.num_frames goes to a shorter bucket. Only what is below the smallest bucket, or beyond a limit that
was set, is left out, with the reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from ltx2core.data.captions import CaptionRule
from ltx2core.data.clip import Bucket, Clip, Problem, Sample, SoundBucket

if TYPE_CHECKING:
    from collections.abc import Iterable

ResolutionType = Literal["pixel", "area", "pixel_area"]
BucketStrategy = Literal["aspect_ratio", "resolution_frames"]

SIDE_STEP = 32  # pixels a latent, each way
FRAME_STEP = 8  # frames a latent, after the first
MIN_FRAMES = 9  # the shortest clip with motion in its latents
MAX_SECONDS = 20.0  # the reach of the model's time positions
MAX_ASPECT = 4.0
_OF_PICTURES = frozenset({"variable_frame_rate", "rotated", "interlaced", "hdr"})  # what is said of a clip before it is placed


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketRule:
    """A dataset's wishes, in SimpleTuner's units.

    resolution: pixels of the shorter edge (pixel), megapixels (area), or the edge of a square of equal area (pixel_area).
    num_frames: what a clip is cut to; None takes all that it has. min_frames, max_frames: clips outside are left out.
    resolution_frames keeps every clip's own length, in steps of frame_interval; aspect_ratio cuts all to num_frames.
    sound_only: the sound of those frames is trained, and no picture.
    """

    resolution: float = 512
    resolution_type: ResolutionType = "pixel"
    num_frames: int | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    frame_rate: float = 25.0
    bucket_strategy: BucketStrategy = "aspect_ratio"
    frame_interval: int | None = None
    repeats: int = 0
    captions: CaptionRule = field(default_factory=CaptionRule)
    sound_only: bool = False

    def __post_init__(self) -> None:
        if self.frame_rate <= 0 or self.resolution <= 0:
            raise ValueError(f"frame_rate and resolution are above 0, not {self.frame_rate} and {self.resolution}")


def assign_buckets(
    clips: Iterable[Clip],
    *,
    resolution: float = 512,
    resolution_type: ResolutionType = "pixel",
    num_frames: int | None = None,
    min_frames: int | None = None,
    max_frames: int | None = None,
    frame_rate: float = 25.0,
    bucket_strategy: BucketStrategy = "aspect_ratio",
    frame_interval: int | None = None,
    repeats: int = 0,
    captions: CaptionRule | None = None,
) -> tuple[list[Sample], list[Clip]]:
    """Every usable clip with its bucket, and the clips left out, each with the problem that says why. Both in the given order."""
    rule = BucketRule(
        resolution=resolution,
        resolution_type=resolution_type,
        num_frames=num_frames,
        min_frames=min_frames,
        max_frames=max_frames,
        frame_rate=frame_rate,
        bucket_strategy=bucket_strategy,
        frame_interval=frame_interval,
        repeats=repeats,
        captions=captions or CaptionRule(),
    )
    return place_all(clips, rule)


def place_all(clips: Iterable[Clip], rule: BucketRule) -> tuple[list[Sample], list[Clip]]:
    """Every clip that can be trained on as a sample, and the clips left out, both in the given order."""
    placed = [place(clip, rule) for clip in clips]
    return [item for item in placed if isinstance(item, Sample)], [item for item in placed if isinstance(item, Clip)]


def place(clip: Clip, rule: BucketRule) -> Sample | Clip:
    """The clip as a sample, its problems completed; or, when it cannot be trained on, the clip with the error added."""
    if not clip.usable:
        return clip
    captions = rule.captions.captions(clip.path, clip.caption)
    if not captions:
        return clip.having(_no_caption(clip, rule.captions))
    available = frames_at(clip.seconds, rule.frame_rate)
    if (problem := _outside(clip, available, rule)) is not None:
        return clip.having(problem)
    frames = bucket_frames(available, rule)
    if rule.sound_only:
        return _place_sound(clip, frames, captions, rule)
    width, height = bucket_size(clip.width, clip.height, resolution=rule.resolution, resolution_type=rule.resolution_type)
    bucket = Bucket(width=width, height=height, frames=frames)
    noted = clip.having(*_size_notes(clip, bucket, rule.resolution_type), *_time_notes(clip, bucket, available, rule))
    return Sample(clip=noted, bucket=bucket, fps=rule.frame_rate, captions=captions, repeats=rule.repeats)


def _place_sound(clip: Clip, frames: int, captions: tuple[str, ...], rule: BucketRule) -> Sample | Clip:
    """The sound of a clip's first frames; the clip with the error added when there is none in them."""
    seconds = frames / rule.frame_rate
    clip = replace(clip, problems=tuple(problem for problem in clip.problems if problem.code not in _OF_PICTURES))
    if clip.audio is None or clip.audio.start >= seconds:
        what = "has no sound" if clip.audio is None else f"has no sound in its first {seconds:.2f} s"
        text = f"{clip.path.name} {what}, and this dataset trains sound alone."
        return clip.having(Problem(code="no_sound", level="error", text=text, fix="Use a clip with sound, or set audio_only to false."))
    if clip.seconds - seconds >= FRAME_STEP / rule.frame_rate:
        text = f"{clip.path.name} lasts {clip.seconds:.2f} s; the sound of the first {seconds:.2f} s is used."
        clip = clip.having(Problem(code="trimmed", level="info", text=text, fix="Cut it into several clips to use the rest."))
    bucket = SoundBucket.of_seconds(seconds)
    return Sample(clip=clip, bucket=bucket, fps=rule.frame_rate, captions=captions, repeats=rule.repeats)


def snap_frames(frames: int) -> int:
    """The largest 8k + 1 that is not above `frames`; 1 at least."""
    return max(frames - 1, 0) // FRAME_STEP * FRAME_STEP + 1


def snap_size(pixels: float) -> int:
    """The nearest multiple of 32, the lower of two as near; 32 at least."""
    return max(math.ceil(pixels / SIDE_STEP - 0.5), 1) * SIDE_STEP


def frames_at(seconds: float, fps: float) -> int:
    """How many frames of 1 / fps a clip of this length fills; the last may lack a tenth, for clocks that round."""
    return math.floor(seconds * fps + 0.1)


def bucket_frames(available: int, rule: BucketRule) -> int:
    """Frames of the bucket for a clip with so many: 8k + 1, never more than there are."""
    limit = math.floor(MAX_SECONDS * rule.frame_rate)
    wanted = rule.num_frames
    if rule.bucket_strategy == "resolution_frames" and rule.max_frames is not None:
        wanted = rule.max_frames  # every clip keeps its own length
    frames = min(available, limit, limit if wanted is None else wanted)
    if rule.bucket_strategy == "resolution_frames" and rule.frame_interval and frames > rule.frame_interval:
        frames = frames // rule.frame_interval * rule.frame_interval
    return snap_frames(frames)


def bucket_size(width: int, height: int, *, resolution: float, resolution_type: ResolutionType = "pixel") -> tuple[int, int]:
    """Width and height, multiples of 32, nearest to the clip's shape at this resolution."""
    aspect = min(max(width / height, 1 / MAX_ASPECT), MAX_ASPECT)
    if resolution_type == "pixel":
        short = snap_size(resolution)
        long = snap_size(short * max(aspect, 1 / aspect))
        return (long, short) if aspect >= 1 else (short, long)
    area = resolution * 1e6 if resolution_type == "area" else resolution**2
    return snap_size(math.sqrt(area * aspect)), snap_size(math.sqrt(area / aspect))


def _no_caption(clip: Clip, rule: CaptionRule) -> Problem:
    if rule.needs_text_file:
        text, fix = f"{clip.path.name} has no caption.", f"Write what it shows into {clip.path.stem}.txt."
        return Problem(code="missing_caption" if clip.caption is None else "empty_caption", level="error", text=text, fix=fix)
    text = f"{clip.path.name} has no caption: caption_strategy {rule.strategy} gives it no text."
    return Problem(code="missing_caption", level="error", text=text, fix="Set instance_prompt, or use caption_strategy textfile.")


def _outside(clip: Clip, available: int, rule: BucketRule) -> Problem | None:
    """Why the clip is too short or too long; None when it is neither."""
    name, rate = clip.path.name, rule.frame_rate
    least = snap_frames(rule.min_frames) if rule.min_frames is not None else min(MIN_FRAMES, snap_frames(rule.num_frames or MIN_FRAMES))
    if available < least:
        text = f"{name} has {available} frames at {rate:g} fps ({clip.seconds:.2f} s); the smallest bucket takes {least}."
        setting = "" if least <= MIN_FRAMES else f", or lower video.min_frames to {snap_frames(available)}"
        return Problem(code="too_short", level="error", text=text, fix=f"Use a clip of at least {least / rate:.2f} s{setting}.")
    if rule.max_frames is not None and available > rule.max_frames:
        text = f"{name} has {available} frames at {rate:g} fps; video.max_frames allows {rule.max_frames}."
        return Problem(code="too_long", level="error", text=text, fix="Cut it into shorter clips, or raise video.max_frames.")
    return None


def _size_notes(clip: Clip, bucket: Bucket, resolution_type: ResolutionType) -> list[Problem]:
    notes: list[Problem] = []
    name, shown, target = clip.path.name, f"{clip.width}x{clip.height}", f"{bucket.width}x{bucket.height}"
    scale = max(bucket.width / clip.width, bucket.height / clip.height)
    lost = 1 - bucket.width * bucket.height / (clip.width * clip.height * scale**2)
    if max(clip.width / clip.height, clip.height / clip.width) > MAX_ASPECT:
        text = f"{name} is {shown}, longer than {MAX_ASPECT:g}:1; {lost:.0%} of the picture is cropped away for {target}."
        notes.append(Problem(code="extreme_aspect", level="warning", text=text, fix="Crop it to what matters."))
    elif clip.width % SIDE_STEP or clip.height % SIDE_STEP:
        text = f"{name} is {shown}; sides are multiples of {SIDE_STEP}, so it trains as {target} and {lost:.1%} of the picture is cropped."
        notes.append(Problem(code="odd_size", level="info", text=text))
    if scale > 1.001:
        text = f"{name} is {shown}, smaller than its bucket {target}: it is enlarged {scale:.2f} times, which adds no detail."
        lower = f"Set resolution to {max(min(clip.width, clip.height) // SIDE_STEP, 1) * SIDE_STEP}"
        fix = f"{lower if resolution_type == 'pixel' else 'Lower resolution'}, or use a larger clip."
        notes.append(Problem(code="upscaled", level="info", text=text, fix=fix))
    return notes


def _time_notes(clip: Clip, bucket: Bucket, available: int, rule: BucketRule) -> list[Problem]:
    notes: list[Problem] = []
    name, rate = clip.path.name, rule.frame_rate
    if clip.fps < 0.9 * rate:
        text = f"{name} has {clip.fps:.4g} fps; frames are repeated to reach {rate:g}, which teaches stutter."
        notes.append(
            Problem(code="low_frame_rate", level="warning", text=text, fix=f"Use a clip of {rate:g} fps, or lower video.frame_rate.")
        )
    elif abs(clip.fps - rate) > 0.01 * rate:
        text = f"{name} is resampled from {clip.fps:.4g} to {rate:g} fps by timestamps."
        notes.append(Problem(code="resampled", level="info", text=text))
    if rule.num_frames is not None and rule.bucket_strategy == "aspect_ratio" and bucket.frames < snap_frames(rule.num_frames):
        text = f"{name} has {available} frames at {rate:g} fps, fewer than {snap_frames(rule.num_frames)}; it trains with {bucket.frames}."
        notes.append(Problem(code="fewer_frames", level="info", text=text))
    if available - bucket.frames >= FRAME_STEP:
        text = f"{name} has {available} frames at {rate:g} fps; the first {bucket.frames} are used ({bucket.frames / rate:.2f} s)."
        notes.append(Problem(code="trimmed", level="info", text=text, fix="Cut it into several clips to use the rest."))
    return notes
