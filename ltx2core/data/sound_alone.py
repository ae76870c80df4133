"""How sound without pictures is cut: that of a clip's frames, or files of sound at lengths that share batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from ltx2core.data.clip import Clip, Problem, SoundBucket
from ltx2core.data.crops import chance

if TYPE_CHECKING:
    from ltx2core.data.segments import Stretch

SHORTEST_SECONDS = 0.36  # as long as the shortest clip
LONGEST_SECONDS = 20.0  # the reach of the model's time positions
_OF_PICTURES = frozenset({"variable_frame_rate", "rotated", "interlaced", "hdr"})  # what is said of a clip before it is placed


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundRule:
    """How files of sound are cut: to a multiple of `interval` seconds where they are longer, keeping one part.

    longest: files above so many seconds are left out; None for no limit.
    """

    interval: float = 3.0
    longest: float | None = None
    keep: Literal["beginning", "end", "random"] = "beginning"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardPart:
    """A part of a sound: where it begins, in seconds, and its bucket."""

    start: float
    bucket: SoundBucket


def cut_sound(clip: Clip, rule: SoundRule, *, seed: int) -> tuple[Clip, HeardPart] | Clip:
    """The part of a file of sound that is trained on, and what is to be said of it; or the clip with the error that leaves it out."""
    clip, name = _heard(clip), clip.path.name
    if clip.audio is None:
        text = f"{name} has no sound."
        return clip.having(Problem(code="no_sound", level="error", text=text, fix="Take it out of the dataset of sound."))
    seconds = clip.audio.start + clip.audio.seconds
    if rule.longest is not None and seconds > rule.longest:
        text = f"{name} lasts {seconds:.2f} s; audio.max_duration_seconds allows {rule.longest:g}."
        return clip.having(Problem(code="too_long", level="error", text=text, fix="Cut it, or raise audio.max_duration_seconds."))
    if seconds < SHORTEST_SECONDS:
        text = f"{name} lasts {seconds:.2f} s; the shortest sound that is trained on has {SHORTEST_SECONDS:g} s."
        return clip.having(Problem(code="too_short", level="error", text=text, fix="Use a longer sound."))
    length = seconds if seconds < rule.interval else min(seconds, LONGEST_SECONDS) // rule.interval * rule.interval
    bucket = SoundBucket.of_seconds(length)
    room = max(seconds - bucket.seconds, 0.0)
    start = {"beginning": 0.0, "end": room, "random": room * chance(seed, "sound", name)}[rule.keep]
    if room >= 0.1:
        text = f"{name} lasts {seconds:.2f} s; {bucket.seconds:.2f} s from {start:.2f} s on are used."
        clip = clip.having(Problem(code="trimmed", level="info", text=text, fix="Cut it into several files to use the rest."))
    return clip, HeardPart(start=start, bucket=bucket)


def sound_of_frames(clip: Clip, pieces: list[Stretch], *, frame_rate: float) -> tuple[Clip, list[HeardPart]] | Clip:
    """The sound of stretches of a clip; or the clip with the error, where there is none in any of them."""
    clip, name = _heard(clip), clip.path.name
    parts = [
        HeardPart(start=piece.start / frame_rate, bucket=SoundBucket.of_seconds(piece.frames / frame_rate))
        for piece in pieces
        if clip.audio is not None and clip.audio.start < (piece.start + piece.frames) / frame_rate
    ]
    if not parts:
        first = pieces[0].frames / frame_rate
        what = "has no sound" if clip.audio is None else f"has no sound in its first {first:.2f} s"
        text = f"{name} {what}, and this dataset trains sound alone."
        return clip.having(Problem(code="no_sound", level="error", text=text, fix="Use a clip with sound, or set audio_only to false."))
    heard = sum(piece.frames for piece in pieces) / frame_rate
    if len(pieces) == 1 and clip.seconds - heard >= 8 / frame_rate:
        text = f"{name} lasts {clip.seconds:.2f} s; the sound of the first {heard:.2f} s is used."
        fix = "Set video.segments to all, or cut it into several clips, to use the rest."
        clip = clip.having(Problem(code="trimmed", level="info", text=text, fix=fix))
    return clip, parts


def _heard(clip: Clip) -> Clip:
    """The clip without what is said of its pictures."""
    return replace(clip, problems=tuple(problem for problem in clip.problems if problem.code not in _OF_PICTURES))
