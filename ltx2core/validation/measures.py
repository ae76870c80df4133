"""What a sample looks and sounds like, in numbers: of its pixels and samples alone. diagnosis.py says what they mean.

Pictures are measured on cells of 8 x 8 pixels, which averages codec and sensor noise away. Levels are of 255.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ltx2core.data.loudness import HIGH, TOP, Loudness

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Frames = NDArray[np.uint8]  # [F, H, W, 3]
    Cells = NDArray[np.float32]  # [F, h, w, 3]

CELL = 8
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_TOUCHED = 6.0  # levels by which a cell changes where something moves through it; compression moves it by 1 or 2
_STEP = 0.2  # of the usual change between frames: below it a frame repeats the one before


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """brightness, contrast: mean and spread of luma, levels. neighbours: correlation of adjacent pixels, 1 smooth, 0 white noise.

    coherence: correlation of a frame's cells with the next frame's. moving: share of cells that something moves through.
    flicker: mean change of the whole frame's luma that the next frame takes back, levels. drift: how far luma or colour goes steadily in
    one direction from the first to the last quarter, levels. forth: change over two frames / change over one: 2 for steady motion, 1 for
    motion that goes back and forth. repeats: share of frames that repeat the one before between frames that move. burnt: share of pixels
    at an end of the range. detail: mean difference of adjacent pixels, levels.
    """

    brightness: float
    contrast: float
    neighbours: float
    coherence: float
    moving: float
    flicker: float
    drift: float
    forth: float
    repeats: float
    burnt: float
    detail: float


def measure_frames(frames: Frames) -> Measured:
    """The numbers of a sample's frames. Of a single frame nothing moves."""
    pixels = frames[:: max(1, len(frames) // 8)].astype(np.float32) @ _LUMA  # eight frames are enough for what does not move
    cells = cells_of(frames)
    luma = cells @ _LUMA  # [F, h, w]
    still = luma - luma.mean(axis=(1, 2), keepdims=True)  # without changes of the whole picture
    one = np.abs(np.diff(still, axis=0)).mean(axis=(1, 2))
    return Measured(
        brightness=float(pixels.mean()),
        contrast=float(pixels.std()),
        neighbours=_correlation(pixels[:, :, 1:], pixels[:, :, :-1]),
        coherence=_correlation(still[1:], still[:-1]) if len(still) > 1 else 1.0,
        moving=float((still.max(axis=0) - still.min(axis=0) > _TOUCHED).mean()),
        flicker=_flicker(luma.mean(axis=(1, 2))),
        drift=_drift(cells),
        forth=_forth(still, one),
        repeats=_repeats(one),
        burnt=float(((frames <= 2) | (frames >= 253)).any(axis=3).mean()),
        detail=float(np.abs(np.diff(pixels, axis=2)).mean()),
    )


def cells_of(frames: Frames) -> Cells:
    """The means of cells of 8 x 8 pixels: float32 [F, h, w, 3], levels. What is left over at the right and below is not looked at."""
    height, width = frames.shape[1] // CELL, frames.shape[2] // CELL
    cut = frames[:, : height * CELL, : width * CELL].reshape(len(frames), height, CELL, width, CELL, 3)
    cells: Cells = cut.mean(axis=(2, 4), dtype=np.float32)
    return cells


def difference(found: Cells, base: Cells) -> float:
    """The mean difference of two samples of one seed, levels; infinite where their sizes differ."""
    return float(np.abs(found - base).mean()) if found.shape == base.shape else math.inf


def measure_sound(sound: NDArray[np.float32], *, sample_rate: int) -> Loudness:
    """How loud decoded sound is, [channels, n] in -1..1. What is not a number counts as silence."""
    level = np.abs(np.nan_to_num(sound))
    return Loudness(
        peak=float(level.max(initial=0.0)),
        rms=float(np.sqrt(np.square(level, dtype=np.float64).mean())) if level.size else 0.0,
        top=float((level >= TOP).mean()) if level.size else 0.0,
        high=float(((level >= HIGH) & (level < TOP)).mean()) if level.size else 0.0,
        seconds=sound.shape[1] / sample_rate,
    )


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """1 where nothing varies: a plain picture is no noise."""
    first, second = one - one.mean(), other - other.mean()
    spread = float(np.sqrt(np.square(first, dtype=np.float64).mean() * np.square(second, dtype=np.float64).mean()))
    return 1.0 if spread < 1e-3 else float((first * second).mean(dtype=np.float64) / spread)


def _flicker(brightness: NDArray[np.float32]) -> float:
    """Half the mean second difference, where the change turns round: a fade does not, nor a cut, which turns round nowhere."""
    change = np.diff(brightness)
    if len(change) < 2:
        return 0.0
    turned = change[1:] * change[:-1] < 0
    return float((np.minimum(np.abs(change[1:]), np.abs(change[:-1])) * turned).mean())


def _drift(cells: Cells) -> float:
    means = cells.mean(axis=(1, 2))  # [F, 3]
    luma = means @ _LUMA
    series = np.stack([luma, means[:, 0] - luma, means[:, 2] - luma])  # luma and two colours
    quarter = max(1, len(means) // 4)
    if len(means) < 4:
        return 0.0
    time = np.arange(len(means))
    steady = [abs(float(np.corrcoef(time, one)[0, 1])) if one.std() > 1e-3 else 0.0 for one in series]
    shift = np.abs(series[:, -quarter:].mean(axis=1) - series[:, :quarter].mean(axis=1))
    return float(max(far if along > 0.9 else 0.0 for far, along in zip(shift, steady, strict=True)))


def _forth(still: NDArray[np.float32], one: NDArray[np.float32]) -> float:
    if len(still) < 3 or one.mean() < 1e-3:
        return 2.0
    two = np.abs(still[2:] - still[:-2]).mean()
    return float(2 * two / (one[1:] + one[:-1]).mean())


def _repeats(one: NDArray[np.float32]) -> float:
    """Frames that stand still with motion on both sides, of all. A pause at the beginning or the end, or a long one, is none."""
    if len(one) < 4:
        return 0.0
    moves = one > _STEP * float(np.percentile(one, 90))
    held = [not moves[index] and (moves[index - 1] or moves[index + 1]) for index in range(1, len(moves) - 1)]
    return float(np.mean(held))
