"""Pictures for clips whose content matters: shots that move, textured so that an encoder keeps them apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Picture = Callable[[int], np.ndarray]  # frame number -> uint8 [H, W, 3]


def texture(seed: int, width: int, height: int, *, cell: int = 16, low: int = 30, high: int = 225) -> np.ndarray:
    """Squares in random colours: uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(low, high, (-(-height // cell), -(-width // cell), 3), dtype=np.uint8)
    return cells.repeat(cell, axis=0).repeat(cell, axis=1)[:height, :width]


def panning(seed: int, width: int = 128, height: int = 96, *, speed: int = 2, low: int = 30, high: int = 225) -> Picture:
    """A shot of a texture that moves sideways by `speed` pixels a frame."""
    still = texture(seed, width, height, low=low, high=high)
    return lambda number: np.roll(still, speed * number, axis=1)


def then(*shots: tuple[Picture, int]) -> Picture:
    """Shots one after the other, each for so many frames; the last goes on."""

    def picture(number: int) -> np.ndarray:
        for draw, frames in shots[:-1]:
            if number < frames:
                return draw(number)
            number -= frames
        return shots[-1][0](number)

    return picture


def still(draw: Picture, number: int = 0) -> Picture:
    """One picture of a shot, for ever."""
    one = draw(number)
    return lambda _: one


def grey(level: int, width: int = 128, height: int = 96) -> Picture:
    """One grey for ever."""
    return still(lambda _: np.full((height, width, 3), level, dtype=np.uint8))


def barred(draw: Picture, *, top: int = 0, bottom: int = 0, left: int = 0, right: int = 0, level: int = 0) -> Picture:
    """A shot with so many dark lines laid over its sides."""

    def picture(number: int) -> np.ndarray:
        canvas = draw(number).copy()
        height, width = canvas.shape[:2]
        canvas[:top] = canvas[height - bottom :] = level
        canvas[:, :left] = canvas[:, width - right :] = level
        return canvas

    return picture
