"""Sound as a picture: what a sample of sound alone shows in a player and in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FLOOR = float(np.log(1e-5))  # where the model's log mel is cut off: silence
_LOUD = 2.0  # a tone at full level
_COLOURS = np.array([(8, 8, 24), (70, 30, 120), (220, 80, 70), (255, 230, 150)], dtype=np.float32)  # from silent to loud
_TO_COME = 0.4  # how bright the part is that was not played yet


def draw_spectrogram(mel: NDArray[np.float32], *, width: int, height: int) -> NDArray[np.uint8]:
    """A log mel spectrogram [channels, T, bins] as a picture, uint8 [height, width, 3]: time to the right, pitch upwards.

    Louder is brighter, on one scale for all sounds, so that two pictures compare.
    """
    level = np.clip((np.nan_to_num(mel, nan=_FLOOR).mean(axis=0) - _FLOOR) / (_LOUD - _FLOOR), 0, 1)  # [T, bins]
    times = np.arange(width) * level.shape[0] // width
    bins = (height - 1 - np.arange(height)) * level.shape[1] // height
    place = level[times][:, bins].T * (len(_COLOURS) - 1)  # [height, width]
    below = np.minimum(place.astype(np.intp), len(_COLOURS) - 2)
    share = (place - below)[..., None]
    picture: NDArray[np.uint8] = np.round(_COLOURS[below] * (1 - share) + _COLOURS[below + 1] * share).astype(np.uint8)
    return picture


def play_through(picture: NDArray[np.uint8], *, frames: int) -> NDArray[np.uint8]:
    """The picture as `frames` frames, [F, H, W, 3], in which the part that is yet to come is darker."""
    width = picture.shape[1]
    shown = np.repeat(picture[None], frames, axis=0)
    for index, frame in enumerate(shown):
        begin = width * (index + 1) // frames
        frame[:, begin:] = (frame[:, begin:] * _TO_COME).astype(np.uint8)
    return shown
