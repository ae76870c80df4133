"""What a clip of nano's world shows, read from its pixels: the colour of its shape, where it goes, and whether a colour is there.

Shapes are bright and backgrounds dark (vocabulary.py), so a threshold separates them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ltx2core.models.nano.vocabulary import COLOURS, DIRECTIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BRIGHT = 150  # of 255, the largest channel
_MIN_SHARE = 0.004  # of the frame: a shape is larger
_MIN_MOVE = 0.06  # of the frame's shorter edge


@dataclass(frozen=True, slots=True)
class Seen:
    """colour: a name of COLOURS, or None when no shape is seen. direction: a name of DIRECTIONS, or None when it hardly moves."""

    colour: str | None
    direction: str | None


def look(frames: NDArray[np.uint8]) -> Seen:
    """Colour and direction of the shape in frames [F, H, W, 3]."""
    bright = frames.max(axis=3) > _BRIGHT
    share = bright.mean(axis=(1, 2))
    seen = np.flatnonzero(share > _MIN_SHARE)
    if seen.size == 0:
        return Seen(None, None)
    mean = frames[bright].mean(axis=0)
    colour = min(COLOURS, key=lambda name: float(np.abs(mean - np.array(COLOURS[name])).sum()))
    centres = np.array([np.argwhere(bright[index]).mean(axis=0) for index in seen])
    third = max(1, len(centres) // 3)
    down, right = centres[-third:].mean(axis=0) - centres[:third].mean(axis=0)
    if max(abs(down), abs(right)) < _MIN_MOVE * min(frames.shape[1:3]):
        return Seen(colour, None)
    step = (int(np.sign(right)), 0) if abs(right) > abs(down) else (0, int(np.sign(down)))
    return Seen(colour, next(name for name, value in DIRECTIONS.items() if value == step))


def share_of_colour(frames: NDArray[np.uint8], rgb: tuple[int, int, int], *, tolerance: int = 60) -> float:
    """The share of pixels, 0..1, whose every channel is within `tolerance` of a colour."""
    difference = np.abs(frames.astype(np.int16) - np.array(rgb, dtype=np.int16))
    return float((difference.max(axis=3) <= tolerance).mean())


def psnr(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB of 8-bit frames."""
    error = float(np.square(found.astype(np.float64) - expected.astype(np.float64)).mean())
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
