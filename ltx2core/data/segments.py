"""Which stretches of a long clip are trained on: its first frames, all of it in pieces, or a few stretches that take turns."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from ltx2core.data.clip import Bucket, Sample
from ltx2core.data.crops import chance

if TYPE_CHECKING:
    from ltx2core.data.clip import Clip

Segments = Literal["first", "all", "random"]

FRAME_STEP = 8  # frames a latent, after the first
MAX_TURNS = 4  # stretches that `random` keeps of a clip: each costs its latents on disk and its encoding


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A piece of a clip, in frames at the dataset's rate. `frames` is 8k + 1."""

    start: int
    frames: int


def snap_frames(frames: int) -> int:
    """The largest 8k + 1 that is not above `frames`; 1 at least."""
    return max(frames - 1, 0) // FRAME_STEP * FRAME_STEP + 1


def stretches(available: int, frames: int, *, segments: Segments, least: int, seed: int, name: str) -> list[Stretch]:
    """The stretches of a clip with `available` frames whose bucket takes `frames`; at least one, in order of time.

    all: one after the other without a gap; what is left over makes a shorter one where it has `least` frames.
    random: up to MAX_TURNS, never more than the clip holds side by side, each drawn by seed and name from its own part of the clip.
    """
    if segments == "first" or available < frames + 1:
        return [Stretch(start=0, frames=frames)]
    whole = available // frames
    if segments == "all":
        found = [Stretch(start=number * frames, frames=frames) for number in range(whole)]
        rest = snap_frames(available - whole * frames) if available > whole * frames else 0
        return [*found, Stretch(start=whole * frames, frames=rest)] if rest >= max(least, 2) else found
    turns = min(MAX_TURNS, math.ceil(available / frames))
    room = available - frames + 1  # places where a stretch may begin
    edges = [room * number // turns for number in range(turns + 1)]
    starts = [low + int(chance(seed, "stretch", number, name) * (high - low)) for number, (low, high) in enumerate(pairwise(edges))]
    return [Stretch(start=start, frames=frames) for start in dict.fromkeys(starts)]


def split(sample: Sample, pieces: list[Stretch], *, clip: Clip, turns: bool) -> list[Sample]:
    """The sample, whose bucket has pictures, once for each stretch of its clip."""
    width, height = (sample.picture.width, sample.picture.height) if sample.picture is not None else (0, 0)
    return [
        replace(
            sample,
            clip=clip,
            bucket=Bucket(width=width, height=height, frames=piece.frames),
            start=piece.start / sample.fps,
            takes_turns=turns and len(pieces) > 1,
        )
        for piece in pieces
    ]
