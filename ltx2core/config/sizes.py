"""LTX-2's rules for sizes: width and height are multiples of 32, a clip has 8k + 1 frames."""

from __future__ import annotations

SIDE = 32  # pixels of a latent cell
FRAME_STEP = 8  # frames of a latent frame; the first one holds a single frame


def lower_frames(frames: int) -> int:
    """The longest length of 8k + 1 frames that is at most `frames`; 1 at least."""
    return max(1, (frames - 1) // FRAME_STEP * FRAME_STEP + 1)


def nearest_side(pixels: float) -> int:
    """The multiple of 32 that is nearest; the lower one of two, 32 at least."""
    return max(SIDE, -int((SIDE / 2 - pixels) // SIDE) * SIDE)


def other_side(pixels: float) -> int:
    """The second nearest multiple of 32: the one on the other side of `pixels`."""
    nearest = nearest_side(pixels)
    return nearest + SIDE if nearest < pixels else max(SIDE, nearest - SIDE)
