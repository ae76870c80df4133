"""Small pictures of a video, for lists and for playing it in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ltx2core.data.decode import Fitter
from ltx2core.data.media import reading, shown_size, upright_rotation, video_stream
from ltx2core.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def read_thumbnails(path: Path, *, size: tuple[int, int], fps: float, most: int) -> NDArray[np.uint8]:
    """The first `most` frames, about `fps` of them a second: uint8 [n, h, w, 3], RGB, upright, fitted into size (width, height).

    Decodes on one thread, since training has the others. Raises DatasetError when the file has no frame that can be decoded.
    """
    pictures: list[NDArray[np.uint8]] = []
    with reading(path) as container:
        stream = video_stream(container)
        if stream is None:
            raise DatasetError(f"{path} holds no video.", fix="Choose another file.")
        stream.thread_type = "NONE"
        every = max(round(float(stream.average_rate or fps) / fps), 1)
        fitter: Fitter | None = None
        for number, frame in enumerate(container.decode(stream)):
            if number % every:
                continue
            if fitter is None:
                width, height = shown_size(frame, stream, upright_rotation(frame))
                scale = min(size[0] / width, size[1] / height)
                fitter = Fitter(stream, width=max(int(width * scale + 1e-6), 1), height=max(int(height * scale + 1e-6), 1))
            pictures.append(fitter.fit(frame))
            if len(pictures) == most:
                break
    if not pictures:
        raise DatasetError(f"{path} has no frame that can be decoded.", fix="Export it again.")
    return np.stack(pictures)
