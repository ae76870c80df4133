"""Masks and references: files that belong to a clip by name, and what of them the model takes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from ltx2core.data.clip import Bucket, reference_size
from ltx2core.data.decode import Fitter, decode_frames
from ltx2core.data.media import PICTURES, reading, video_stream
from ltx2core.data.scan import SUFFIXES
from ltx2core.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ltx2core.data.clip import Crop, Sample


def link(samples: list[Sample], *, root: Path, folder: Path, kind: Literal["mask", "reference"]) -> tuple[list[Sample], list[Sample]]:
    """The samples with the file of the same name below `folder` as their mask or reference, and those that have none there.

    root: the folder of the clips; a clip in a subfolder of it has its file in the same subfolder of `folder`.
    """
    linked: list[Sample] = []
    missing: list[Sample] = []
    for sample in samples:
        path = sample.clip.path
        place = folder / (path.parent.relative_to(root) if path.is_relative_to(root) else ".")
        found = next((file for suffix in sorted({*SUFFIXES, *PICTURES}) if (file := place / f"{path.stem}{suffix}").is_file()), None)
        if found is None:
            missing.append(sample)
        linked.append(replace(sample, mask=found) if kind == "mask" else replace(sample, reference=found))
    return linked, missing


def decode_linked(
    path: Path, *, bucket: Bucket, fps: float, start: float = 0.0, crop: Crop | None = None, threads: int = 0
) -> NDArray[np.uint8]:
    """A linked file in the bucket of its clip: uint8 [F, H, W, 3]; a picture stands for every frame.

    start, crop: of the clip, so that both show the same.

    Raises DatasetError when it cannot be decoded or is shorter than its clip.
    """
    if path.suffix.lower() not in PICTURES:
        return decode_frames(path, bucket=bucket, fps=fps, start=start, crop=crop, threads=threads)
    with reading(path, picture=True) as container:
        stream = video_stream(container)
        frame = next(container.decode(stream), None) if stream is not None else None
        if stream is None or frame is None:
            raise DatasetError(f"{path} holds no picture.", fix="Save it again as PNG.")
        picture = Fitter(stream, width=bucket.width, height=bucket.height, rotation=0, crop=crop).fit(frame)
    return np.repeat(picture[None], bucket.frames, axis=0)


def mask_tokens(frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which tokens a mask gives: bool [f, h, w] of frames [F, H, W, 3], those whose cell is more than half white.

    A cell is 32 x 32 pixels of the frames that a latent stands for: the first alone, then eight at a time.
    """
    white = frames.astype(np.float32).mean(axis=3) / 255
    count, height, width = white.shape
    cells = white.reshape(count, height // 32, 32, width // 32, 32).mean(axis=(2, 4))
    groups = [cells[:1], *np.split(cells[1:], (count - 1) // 8)] if count > 1 else [cells]
    return np.stack([group.mean(axis=0) for group in groups]) > 0.5


def reference_bucket(bucket: Bucket, *, smaller: int, slower: int) -> Bucket:
    """What a reference of a clip in this bucket is encoded at."""
    width, height, frames = reference_size(bucket.width, bucket.height, bucket.frames, smaller=smaller, slower=slower)
    return Bucket(width=width, height=height, frames=frames)
