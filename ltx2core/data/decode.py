"""Frames of a clip as the model takes them: at one rate, upright, scaled to cover the bucket, cropped.

Memory is the frames asked for, one decoded frame, and what the decoder holds back to reorder (16 frames at most).
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from ltx2core.data.clip import Crop
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
_WORTH_SEEKING = 2.0  # seconds: what comes before is decoded in less time than a jump takes
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED


def decode_frames(
    path: Path,
    *,
    bucket: Bucket,
    fps: float,
    rotation: int | None = None,
    start: float = 0.0,
    crop: Crop | None = None,
    threads: int = 0,
) -> NDArray[np.uint8]:
    """The frames of a clip from `start` on: uint8 [F, H, W, 3], RGB, full range, of the bucket's size.

    Output k is the frame on show start + k / fps seconds after the first one, so a variable rate keeps its timing. rotation: degrees
    counter-clockwise; None takes what the file's display matrix says. crop: what of the picture is kept; None keeps the middle.
    threads: of the decoder; 0 is as many as there are cores.
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
        fitter = Fitter(stream, width=bucket.width, height=bucket.height, rotation=rotation, crop=crop)
        filled = 0
        for filled, frame in enumerate(_at_rate(container, stream, fps=fps, count=bucket.frames, begin=start), start=1):
            pictures[filled - 1] = fitter.fit(frame)
    if filled + 1 < bucket.frames or filled == 0:
        where = f" from {start:.2f} s on" if start else ""
        raise DatasetError(
            f"{path} holds {filled} frames at {fps:g} fps{where}, its bucket {bucket.label} takes {bucket.frames}.",
            fix="Scan the folder again: the file has changed, or is damaged.",
        )
    pictures[filled:] = pictures[filled - 1]  # one frame at most: where the last one's length was rounded
    return pictures


class Fitter:
    """Turns decoded frames into RGB pictures of one size. Not for several threads at once."""

    def __init__(self, stream: VideoStream, *, width: int, height: int, rotation: int | None = None, crop: Crop | None = None) -> None:
        self._stream, self._width, self._height, self._rotation = stream, width, height, rotation
        self._crop = crop or Crop()
        self._reformatter = VideoReformatter()
        self._last: tuple[VideoFrame, Picture] | None = None

    def fit(self, frame: VideoFrame) -> Picture:
        """uint8 [H, W, 3]: scaled until it covers the size, then cropped. The same frame twice costs once."""
        if self._last is None or self._last[0] is not frame:
            self._last = (frame, self._convert(frame))
        return self._last[1]

    def _convert(self, frame: VideoFrame) -> Picture:
        rotation = upright_rotation(frame) if self._rotation is None else self._rotation % 360
        shown_width, shown_height = shown_size(frame, self._stream, rotation)
        scale = max(self._width / shown_width, self._height / shown_height) * self._crop.zoom
        width, height = max(round(shown_width * scale), self._width), max(round(shown_height * scale), self._height)
        stored = (height, width) if rotation in (90, 270) else (width, height)
        upright = np.rot90(to_rgb(self._reformatter, frame, *stored), k=rotation // 90)
        top, left = int((height - self._height) * self._crop.down), int((width - self._width) * self._crop.across)
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


def _at_rate(container: InputContainer, stream: VideoStream, *, fps: float, count: int, begin: float = 0.0) -> Iterator[VideoFrame]:
    """The frame on show at begin, begin + 1/fps, ... seconds after the first one; `count` of them, or fewer when the clip ends."""
    rate = float(stream.average_rate or fps)
    # A timestamp is rounded to its container's clock (1 ms in Matroska), so a frame is taken from half an interval early.
    early = 0.5 * min(1 / rate, 1 / fps)
    stream.thread_type = "AUTO"
    shown: VideoFrame | None = None
    end = 0.0
    made = 0
    first, frames = _from(container, stream, begin - early)
    for frame in frames:
        time = frame.time if frame.pts is not None else end
        if shown is None:
            shown = frame
        while made < count and begin + made / fps + early < time - first:
            yield shown
            made += 1
        if made == count:
            return
        length = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 1 / rate
        shown, end = frame, time + length
    while shown is not None and made < count and begin + made / fps + early / 2 < end - first:
        yield shown
        made += 1


def _from(container: InputContainer, stream: VideoStream, begin: float) -> tuple[float, Iterator[VideoFrame]]:
    """(time of the clip's first frame, its frames from a keyframe at or before `begin` seconds after that one).

    Seeking finds keyframes by their decoding times, and some files have a wrong index: a jump that lands too late is tried again
    from further back, and at last the clip is read from its beginning.
    """
    frames = container.decode(stream)
    opening = next(frames, None)
    if opening is None:
        return 0.0, frames
    first = opening.time if opening.pts is not None else 0.0
    if begin < _WORTH_SEEKING or opening.pts is None or stream.time_base is None:
        return first, chain((opening,), frames)
    for back in (0.5, 5.0, 60.0):
        if back >= begin:
            break
        container.seek(int((first + begin - back) / stream.time_base), stream=stream, backward=True)
        frames = container.decode(stream)
        landed = next(frames, None)
        if landed is not None and landed.pts is not None and landed.time - first <= begin:
            return first, chain((landed,), frames)
    container.seek(stream.start_time or 0, stream=stream, backward=True)
    return first, container.decode(stream)
