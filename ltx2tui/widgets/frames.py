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


def read_pictures(path: Path, *, width: int, height: int, fps: float = 8.0, rotation: int = 0, most: int = MOST_FRAMES) -> Pictures:
    """A clip fitted into width x height cells, at most `most` frames taken `fps` a second. Raises OSError or ValueError for no picture.

    A cell shows two pixels, one over the other; a cell is about twice as tall as wide, so pixels are square.
    """
    frames = tuple(strips_of(pixels) for pixels in _read(path, width=width, height=height * 2, fps=fps, rotation=rotation, most=most))
    if not frames:
        raise ValueError(f"{path.name} has no frame that can be decoded")
    return Pictures(frames, frames[0][0].cell_length, len(frames[0]))


def _read(path: Path, *, width: int, height: int, fps: float, rotation: int, most: int) -> list[Pixels]:
    import av

    pictures: list[Pixels] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"  # training has the cores
        every = max(1, round(float(stream.average_rate or 25) / fps))
        for index, frame in enumerate(container.decode(stream)):
            if index % every:
                continue
            turned = rotation % 180 == 90
            wide, tall = (frame.height, frame.width) if turned else (frame.width, frame.height)
            scale = min(width / wide, height / tall)
            fit_width, fit_height = max(1, round(wide * scale)), max(2, round(tall * scale) // 2 * 2)
            size = (fit_height, fit_width) if turned else (fit_width, fit_height)  # (width, height) of the stored frame
            pixels = frame.reformat(width=size[0], height=size[1], format="rgb24").to_ndarray().astype(np.uint8, copy=False)
            pictures.append(np.rot90(pixels, rotation // 90 % 4) if rotation else pixels)
            if len(pictures) == most:
                break
    return pictures


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
