"""Small pictures of a video, for lists and for playing it in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ltx2core.data.decode import Fitter
from ltx2core.data.media import reading, shown_size, upright_rotation, video_stream
from ltx2core.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray


def read_thumbnail(path: Path, positions: Iterable[int], *, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The frames with these numbers, counted from 0: uint8 [n, h, w, 3], RGB, upright, as large as fits in size (width, height).

    Numbers beyond the end are left out, so `range(0, 1000, 2)` takes every other frame there is. Decoding stops after the last.
    Raises DatasetError when the file cannot be decoded or has no frame.
    """
    wanted = sorted(set(positions))
    if not wanted or wanted[0] < 0 or min(size) < 1:
        raise ValueError(f"expected frame numbers from 0 up and a size of 1 or more, got {wanted[:3]} and {size}")
    pictures: list[NDArray[np.uint8]] = []
    with reading(path) as container:
        stream = video_stream(container)
        if stream is None:
            raise DatasetError(f"{path} holds no video.", fix="Choose another file.")
        stream.thread_type = "AUTO"
        fitter: Fitter | None = None
        for number, frame in enumerate(container.decode(stream)):
            if fitter is None:
                width, height = shown_size(frame, stream, upright_rotation(frame))
                scale = min(size[0] / width, size[1] / height)
                fitter = Fitter(stream, width=max(int(width * scale + 1e-6), 1), height=max(int(height * scale + 1e-6), 1))
            if number == wanted[len(pictures)]:
                pictures.append(fitter.fit(frame))
                if len(pictures) == len(wanted):
                    break
    if not pictures:
        raise DatasetError(f"{path} has no frame {wanted[0]}.", fix="Choose an earlier frame.")
    return np.stack(pictures)
