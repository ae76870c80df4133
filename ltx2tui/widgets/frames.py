"""Frames of a clip as half-cell pictures: decoding and turning into strips, off the event loop. No widget here; see thumbnail.py."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

if TYPE_CHECKING:
    from pathlib import Path

Pixels = NDArray[np.uint8]  # [height, width, 3]
MOST_FRAMES = 64


@dataclass(frozen=True, slots=True)
class Pictures:
    """A clip drawn for a box of cells: a list of strips for each frame shown, and its size in cells."""

    frames: tuple[tuple[Strip, ...], ...]
    width: int
    height: int


def read_pictures(path: Path, *, width: int, height: int, fps: float = 8.0, most: int = MOST_FRAMES) -> Pictures:
    """A clip fitted into width x height cells, at most `most` frames taken `fps` a second. Raises ValueError for no picture.

    A cell shows two pixels, one over the other; a cell is about twice as tall as wide, so pixels are square.
    """
    from ltx2core.data.thumbnail import read_thumbnails
    from ltx2core.errors import DatasetError

    try:
        pictures = read_thumbnails(path, size=(width, height * 2), fps=fps, most=most)
    except DatasetError as error:
        raise ValueError(error.text) from error
    if pictures.shape[1] % 2:  # two rows of pixels to a row of cells
        pictures = np.concatenate([pictures, pictures[:, -1:]], axis=1)
    frames = tuple(strips_of(pixels) for pixels in pictures)
    return Pictures(frames, frames[0][0].cell_length, len(frames[0]))


def strips_of(pixels: Pixels) -> tuple[Strip, ...]:
    """Half-cell strips of a picture of even height; 5 bits a channel, which over `ssh -C` halves the bytes and is not seen."""
    coarse = (pixels & 0xF8) | 0x04
    strips = []
    for y in range(0, len(coarse), 2):
        top, bottom = coarse[y].tolist(), coarse[y + 1].tolist()
        segments: list[Segment] = []
        start = 0
        for x in range(1, len(top) + 1):
            if x == len(top) or top[x] != top[start] or bottom[x] != bottom[start]:
                segments.append(Segment("▀" * (x - start), _style(*top[start], *bottom[start])))
                start = x
        strips.append(Strip(segments, len(top)))
    return tuple(strips)


@lru_cache(maxsize=8192)
def _style(r: int, g: int, b: int, under_r: int, under_g: int, under_b: int) -> Style:
    return Style(color=Color.from_rgb(r, g, b), bgcolor=Color.from_rgb(under_r, under_g, under_b))
