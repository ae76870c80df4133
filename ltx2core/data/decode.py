"""Frames of a clip as the model takes them: at one rate, upright, scaled to cover the bucket, cropped in the middle.

Memory is the frames asked for, one decoded frame, and what the decoder holds back to reorder (16 frames at most).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from ltx2core.data.media import reading, shown_size, upright_rotation, video_stream
from ltx2core.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from av.container.input import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from ltx2core.data.clip import Bucket

    Picture = NDArray[np.uint8]  # [H, W, 3]

_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED


def decode_frames(path: Path, *, bucket: Bucket, fps: float, rotation: int | None = None, threads: int = 0) -> NDArray[np.uint8]:
    """The first frames of a clip: uint8 [F, H, W, 3], RGB, full range, of the bucket's size.

    Output k is the frame on show k / fps seconds after the first one, so a variable rate keeps its timing. rotation: degrees
    counter-clockwise; None takes what the file's display matrix says. threads: of the decoder; 0 is as many as there are cores.
    Raises DatasetError when the file cannot be decoded or is too short.
    """
    if fps <= 0:
        raise ValueError(f"a frame rate is above 0, not {fps}")
    pictures = np.empty((bucket.frames, bucket.height, bucket.width, 3), dtype=np.uint8)
    with reading(path) as container:
        stream = video_stream(container)
        if stream is None:
            raise DatasetError(f"{path} holds no video.", fix="Remove it from the folder.")
        stream.codec_context.thread_count = threads
        fitter = Fitter(stream, width=bucket.width, height=bucket.height, rotation=rotation)
        filled = 0
        for filled, frame in enumerate(_at_rate(container, stream, fps=fps, count=bucket.frames), start=1):
            pictures[filled - 1] = fitter.fit(frame)
    if filled + 1 < bucket.frames or filled == 0:
        raise DatasetError(
            f"{path} holds {filled} frames at {fps:g} fps, its bucket {bucket.label} takes {bucket.frames}.",
            fix="Scan the folder again: the file has changed, or is damaged.",
        )
    pictures[filled:] = pictures[filled - 1]  # one frame at most: where the last one's length was rounded
    return pictures


class Fitter:
    """Turns decoded frames into RGB pictures of one size. Not for several threads at once."""

    def __init__(self, stream: VideoStream, *, width: int, height: int, rotation: int | None = None) -> None:
        self._stream, self._width, self._height, self._rotation = stream, width, height, rotation
        self._reformatter = VideoReformatter()
        self._last: tuple[VideoFrame, Picture] | None = None

    def fit(self, frame: VideoFrame) -> Picture:
        """uint8 [H, W, 3]: scaled until it covers the size, then cropped in the middle. The same frame twice costs once."""
        if self._last is None or self._last[0] is not frame:
            self._last = (frame, self._convert(frame))
        return self._last[1]

    def _convert(self, frame: VideoFrame) -> Picture:
        rotation = upright_rotation(frame) if self._rotation is None else self._rotation % 360
        shown_width, shown_height = shown_size(frame, self._stream, rotation)
        scale = max(self._width / shown_width, self._height / shown_height)
        width, height = max(round(shown_width * scale), self._width), max(round(shown_height * scale), self._height)
        stored = (height, width) if rotation in (90, 270) else (width, height)
        upright = np.rot90(to_rgb(self._reformatter, frame, *stored), k=rotation // 90)
        top, left = (height - self._height) // 2, (width - self._width) // 2
        return upright[top : top + self._height, left : left + self._width]


def to_rgb(reformatter: VideoReformatter, frame: VideoFrame, width: int, height: int) -> Picture:
    """The frame as uint8 [height, width, 3], with its own colour matrix and range undone.

    A file that does not name its matrix is taken as players take it: BT.709 from 720 lines up, BT.601 below.
    """
    unnamed = frame.colorspace == _UNSPECIFIED
    guess = Colorspace.ITU709 if max(frame.width, frame.height) >= 1280 or min(frame.width, frame.height) >= 720 else Colorspace.ITU601
    source = guess if unnamed else None
    scaled = reformatter.reformat(
        frame, width=width, height=height, format="rgb24", src_colorspace=source, interpolation=_SCALING, threads=1
    )
    picture: Picture = scaled.to_ndarray().astype(np.uint8, copy=False)
    return picture


def _at_rate(container: InputContainer, stream: VideoStream, *, fps: float, count: int) -> Iterator[VideoFrame]:
    """The frame on show at 0, 1/fps, 2/fps ... seconds after the first one; `count` of them, or fewer when the clip ends."""
    rate = float(stream.average_rate or fps)
    # A timestamp is rounded to its container's clock (1 ms in Matroska), so a frame is taken from half an interval early.
    early = 0.5 * min(1 / rate, 1 / fps)
    stream.thread_type = "AUTO"
    shown: VideoFrame | None = None
    start = end = 0.0
    made = 0
    for frame in container.decode(stream):
        time = frame.time if frame.pts is not None else end
        if shown is None:
            shown, start = frame, time
        while made < count and made / fps + early < time - start:
            yield shown
            made += 1
        if made == count:
            return
        length = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 1 / rate
        shown, end = frame, time + length
    while shown is not None and made < count and made / fps + early / 2 < end - start:
        yield shown
        made += 1
