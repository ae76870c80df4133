"""A contact sheet: frames of a sample over time in one picture, so that motion, flicker and drift are seen at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS, ROWS = 4, 3
_WIDE, _HIGH = 320, 320  # pixels that a frame gets at most
_GAP = 4


def contact_sheet(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Twelve frames, or as many as there are, evenly from the first to the last, in reading order: uint8 [H, W, 3].

    frames: uint8 [F, H, W, 3]. Each is made smaller by a whole number until it fits its cell.
    """
    count = min(COLUMNS * ROWS, len(frames))
    chosen = frames[np.round(np.linspace(0, len(frames) - 1, count)).astype(int)]
    small = np.stack([_smaller(frame) for frame in chosen])
    height, width = small.shape[1:3]
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    sheet = np.zeros((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), dtype=np.uint8)
    for index, frame in enumerate(small):
        top, left = index // columns * (height + _GAP), index % columns * (width + _GAP)
        sheet[top : top + height, left : left + width] = frame
    return sheet


def _smaller(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frame averaged over squares of whole pixels."""
    step = max(1, -(-frame.shape[0] // _HIGH), -(-frame.shape[1] // _WIDE))
    height, width = frame.shape[0] // step, frame.shape[1] // step
    cells = frame[: height * step, : width * step].reshape(height, step, width, step, 3)
    smaller: NDArray[np.uint8] = np.round(cells.mean(axis=(1, 3))).astype(np.uint8)
    return smaller
