"""Frames and sound of a sample, and what of it a cache entry depends on beside the file, its bucket and its rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ltx2core.data import sound
from ltx2core.data.clip import Bucket, Crop
from ltx2core.data.decode import decode_frames
from ltx2core.data.sound import Sound
from ltx2core.data.stills import decode_still
from ltx2core.errors import DatasetError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ltx2core.data.clip import Sample


def sample_frames(sample: Sample) -> NDArray[np.uint8]:
    """The sample's frames: uint8 [F, H, W, 3]. Raises DatasetError when they cannot be decoded."""
    clip = sample.clip
    if not isinstance(sample.bucket, Bucket):
        raise DatasetError(f"{clip.path} is trained as sound alone.")
    if clip.still:
        return decode_still(clip.path, bucket=sample.bucket, crop=sample.crop)
    return decode_frames(clip.path, bucket=sample.bucket, fps=sample.fps, rotation=clip.rotation, start=sample.start, crop=sample.crop)


def sample_sound(sample: Sample, *, sample_rate: int) -> Sound | None:
    """The sample's sound, as long as its frames: of its own file, of the one that belongs to it, or silence. None when it has none.

    Raises DatasetError when it cannot be decoded.
    """
    seconds = sample.seconds
    if sample.silent:
        count = round(seconds * sample_rate)
        return Sound(samples=np.zeros((2, count), dtype=np.float32), valid=count, sample_rate=sample_rate)
    return sound.read_sound(sample.sound or sample.clip.path, seconds=seconds, sample_rate=sample_rate, begin=sample.start)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What a stretch and a crop add to the names of cache entries: nothing for a clip's first frames, cropped in the middle."""

    time: dict[str, str | int | float | bool]
    place: dict[str, str | int | float | bool]


def cut_of(sample: Sample) -> Cut:
    """What of its file the sample shows."""
    crop = sample.crop
    return Cut(
        time={"start": round(sample.start, 6)} if sample.start else {},
        place={} if crop == Crop() else {"crop": f"{crop.across:.6f} {crop.down:.6f} {crop.zoom:.6f}"},
    )
