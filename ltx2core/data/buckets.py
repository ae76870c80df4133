"""Which bucket a clip trains in, and which stretches of it. Arithmetic on what the scan found; no file is opened here.

Frames are counted after resampling to the dataset's rate. What becomes of a clip that is longer than its bucket is the rule's
`segments`; one that is shorter than video.num_frames goes to a shorter bucket. Only what is below the smallest bucket, or beyond a
limit that was set, is left out, with the reason. Sizes and crops are crops.py's subject, stretches segments.py's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from ltx2core.data.captions import CaptionRule
from ltx2core.data.clip import Bucket, Clip, Problem, Sample, Treatment
from ltx2core.data.crops import (
    MAX_ASPECT,
    SIDE_STEP,
    CropRule,
    ResolutionType,
    SizeLimits,
    bucket_size,
    crop_of,
    cropped_size,
    outside_sizes,
    size_notes,
    snap_size,
)
from ltx2core.data.segments import FRAME_STEP, MAX_TURNS, Segments, Stretch, snap_frames, split, stretches
from ltx2core.data.sound_alone import HeardPart, SoundRule, cut_sound, sound_of_frames

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "FRAME_STEP",
    "MAX_ASPECT",
    "MAX_SECONDS",
    "MIN_FRAMES",
    "SIDE_STEP",
    "BucketRule",
    "assign_buckets",
    "bucket_frames",
    "bucket_size",
    "frames_at",
    "place",
    "place_all",
    "samples_of",
    "snap_frames",
    "snap_size",
]

BucketStrategy = Literal["aspect_ratio", "resolution_frames"]

MIN_FRAMES = 9  # the shortest clip with motion in its latents
MAX_SECONDS = 20.0  # the reach of the model's time positions
STILL_FPS = 24.0  # a picture lasts one frame of this rate: the positions that the model knows for stills


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketRule:
    """A dataset's wishes, in SimpleTuner's units.

    resolution: pixels of the shorter edge (pixel), megapixels (area), or the edge of a square of equal area (pixel_area).
    num_frames: what a clip is cut to; None takes all that it has. min_frames, max_frames: clips outside are left out.
    resolution_frames keeps every clip's own length, in steps of frame_interval; aspect_ratio cuts all to num_frames.
    seed: of what is drawn for each file (crops, stretches). treatment: what training does with the samples.
    sound_only: the sound of those frames is trained, and no picture. sound: the files are sound, and are cut by that rule instead.
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
    segments: Segments = "first"
    crop: CropRule = field(default_factory=CropRule)
    sizes: SizeLimits = field(default_factory=SizeLimits)
    sound_only: bool = False
    sound: SoundRule | None = None
    seed: int = 0
    treatment: Treatment = field(default_factory=Treatment)

    def __post_init__(self) -> None:
        if self.frame_rate <= 0 or self.resolution <= 0:
            raise ValueError(f"frame_rate and resolution are above 0, not {self.frame_rate} and {self.resolution}")

    @property
    def least_frames(self) -> int:
        """Frames of the shortest clip that is used."""
        return snap_frames(self.min_frames) if self.min_frames is not None else min(MIN_FRAMES, snap_frames(self.num_frames or MIN_FRAMES))


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
    """Every clip that can be trained on as one or more samples, and the clips left out, both in the given order."""
    samples: list[Sample] = []
    left_out: list[Clip] = []
    for clip in clips:
        found = samples_of(clip, rule)
        if isinstance(found, Clip):
            left_out.append(found)
        else:
            samples += found
    return samples, left_out


def place(clip: Clip, rule: BucketRule) -> Sample | Clip:
    """The clip as its first sample, with all that is to be said of it; or, when it cannot be trained on, with the error added."""
    found = samples_of(clip, rule)
    return found if isinstance(found, Clip) else found[0]


def samples_of(clip: Clip, rule: BucketRule) -> list[Sample] | Clip:
    """The clip's samples, one for each stretch that is trained on; or the clip with the error that keeps it from being trained on.

    The first sample's clip has all the notes; those of further stretches have none, so that nothing is said twice.
    """
    if not clip.usable:
        return clip
    captions = rule.captions.captions(clip.path, clip.caption)
    if not captions:
        return clip.having(rule.captions.missing(clip))
    if rule.sound_only or rule.sound is not None:
        return _sounds_of(clip, captions, rule)
    available = 1 if clip.still else frames_at(clip.seconds, rule.frame_rate)
    problem = outside_sizes(clip, rule.sizes, rule.resolution_type) or (None if clip.still else _outside(clip, available, rule))
    if problem is not None:
        return clip.having(problem)
    size = cropped_size(clip, rule.crop, resolution=rule.resolution, resolution_type=rule.resolution_type, seed=rule.seed)
    if size is None:
        text = f"{clip.path.name} is {clip.width}x{clip.height}, too small for every shape of crop_aspect_buckets."
        return clip.having(Problem(code="no_crop_shape", level="error", text=text, fix="Lower resolution, or raise max_upscale_threshold."))
    bucket = Bucket(width=size[0], height=size[1], frames=1 if clip.still else bucket_frames(available, rule))
    crop = crop_of(clip, bucket, rule.crop, resolution_type=rule.resolution_type, seed=rule.seed)
    notes = size_notes(clip, bucket, crop, resolution_type=rule.resolution_type)
    sample = Sample(
        clip=clip,
        bucket=bucket,
        fps=STILL_FPS if clip.still else rule.frame_rate,
        captions=captions,
        repeats=rule.repeats,
        crop=crop,
        treatment=rule.treatment,
    )
    pieces = [Stretch(start=0, frames=1)] if clip.still else _stretches(clip, available, bucket.frames, rule)
    if not clip.still:
        notes += _time_notes(clip, bucket, available, pieces, rule)
    first, *others = split(sample, pieces, clip=clip, turns=rule.segments == "random")
    return [replace(first, clip=clip.having(*notes)), *(replace(other, clip=replace(clip, problems=())) for other in others)]


def _sounds_of(clip: Clip, captions: tuple[str, ...], rule: BucketRule) -> list[Sample] | Clip:
    """The samples of a clip of which sound is trained and no picture; or the clip with the error that leaves it out."""
    found: tuple[Clip, list[HeardPart]] | Clip
    if rule.sound is not None:
        cut = cut_sound(clip, rule.sound, seed=rule.seed)
        found = cut if isinstance(cut, Clip) else (cut[0], [cut[1]])
    else:
        available = frames_at(clip.seconds, rule.frame_rate)
        if (problem := _outside(clip, available, rule)) is not None:
            return clip.having(problem)
        pieces = _stretches(clip, available, bucket_frames(available, rule), rule)
        found = sound_of_frames(clip, pieces, frame_rate=rule.frame_rate)
    if isinstance(found, Clip):
        return found
    noted, parts = found
    sample = Sample(
        clip=noted,
        bucket=parts[0].bucket,
        fps=rule.frame_rate,
        captions=captions,
        repeats=rule.repeats,
        start=parts[0].start,
        takes_turns=rule.segments == "random" and len(parts) > 1,
        treatment=rule.treatment,
    )
    quiet = replace(noted, problems=())
    return [sample, *(replace(sample, clip=quiet, bucket=part.bucket, start=part.start) for part in parts[1:])]


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


def _stretches(clip: Clip, available: int, frames: int, rule: BucketRule) -> list[Stretch]:
    return stretches(available, frames, segments=rule.segments, least=rule.least_frames, seed=rule.seed, name=clip.path.name)


def _outside(clip: Clip, available: int, rule: BucketRule) -> Problem | None:
    """Why the clip is too short or too long; None when it is neither."""
    name, rate, least = clip.path.name, rule.frame_rate, rule.least_frames
    if available < least:
        text = f"{name} has {available} frames at {rate:g} fps ({clip.seconds:.2f} s); the smallest bucket takes {least}."
        setting = "" if least <= MIN_FRAMES else f", or lower video.min_frames to {snap_frames(available)}"
        return Problem(code="too_short", level="error", text=text, fix=f"Use a clip of at least {least / rate:.2f} s{setting}.")
    if rule.max_frames is not None and available > rule.max_frames:
        text = f"{name} has {available} frames at {rate:g} fps; video.max_frames allows {rule.max_frames}."
        return Problem(code="too_long", level="error", text=text, fix="Cut it into shorter clips, or raise video.max_frames.")
    return None


def _time_notes(clip: Clip, bucket: Bucket, available: int, pieces: list[Stretch], rule: BucketRule) -> list[Problem]:
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
    used = sum(piece.frames for piece in pieces)
    if len(pieces) > 1:
        text = f"{name} has {available} frames at {rate:g} fps; it trains in {len(pieces)} stretches of {bucket.frames}"
        how = f", up to {MAX_TURNS}, which take turns" if rule.segments == "random" else f", {used} frames in all"
        notes.append(Problem(code="segmented", level="info", text=f"{text}{how}."))
    elif available - bucket.frames >= FRAME_STEP:
        text = f"{name} has {available} frames at {rate:g} fps; the first {bucket.frames} are used ({bucket.frames / rate:.2f} s)."
        fix = "Set video.segments to all, or cut it into several clips, to use the rest."
        notes.append(Problem(code="trimmed", level="info", text=text, fix=fix))
    return notes
