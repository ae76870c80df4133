"""Opening media files that nobody vouches for. The only place that calls `av.open` for reading.

Only local files of the listed containers: a playlist or a `concat:` script named .mp4 must not make us open what it names.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Literal

import av
from av.stream import Disposition

from ltx2core.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from av.audio.stream import AudioStream
    from av.container.input import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

MAX_PIXELS = 8192 * 8192
Media = Literal["video", "image", "audio", "both"]  # what the files of a dataset are; both: videos and images

CLIPS = frozenset({".mp4", ".mov", ".mkv", ".webm"})
SOUNDS = frozenset({".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus", ".aac"})
PICTURES = {".png": "png_pipe", ".jpg": "jpeg_pipe", ".jpeg": "jpeg_pipe", ".webp": "webp_pipe", ".bmp": "bmp_pipe"}

_FORMATS = "mov,mp4,matroska,webm,mpegts,avi,flv"
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
# Titles that are no UTF-8 must not make a clip unreadable; from 19 on PyAV sees to that itself, and knows the argument no more.
_METADATA: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
_SOUND_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": f"{_FORMATS},wav,flac,mp3,ogg,aac"}


def open_media(path: Path, *, picture: bool = False) -> InputContainer:
    """The opened container, to be used in a `with`. Raises av.FFmpegError or OSError.

    picture: a still, of one of the formats in PICTURES. A read that hangs (a dead network share) is given up after 20 s.
    """
    name = f"file:{os.fspath(path)}"  # with its protocol, so that no part of a name is taken for another one
    if picture:  # the format by name: FFmpeg's own choice for a still reads `%d` in a name as a number to count up
        options = {"protocol_whitelist": "file"}
        still: InputContainer = av.open(name, "r", format=PICTURES[path.suffix.lower()], options=options, timeout=20.0, **_METADATA)
        return still
    options = _SOUND_OPTIONS if path.suffix.lower() in SOUNDS else _OPTIONS
    container: InputContainer = av.open(name, "r", options=dict(options), timeout=20.0, **_METADATA)
    return container


@contextlib.contextmanager
def reading(path: Path, *, picture: bool = False) -> Iterator[InputContainer]:
    """The opened container; every failure inside the block becomes a DatasetError that names the file."""
    try:
        with open_media(path, picture=picture) as container:
            yield container
    except (av.FFmpegError, OSError) as error:
        reason = error.strerror or str(error)
        raise DatasetError(f"{path} cannot be decoded: {reason}.", fix="Run `ltx2tui check` on its folder, or encode it anew.") from error


def video_stream(container: InputContainer) -> VideoStream | None:
    """The first video track that is not a cover picture, with a decoder of bounded memory; None without one."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            return stream
    return None


def audio_stream(container: InputContainer) -> AudioStream | None:
    """The first sound track with a decoder, a rate and channels; None without one."""
    for stream in container.streams.audio:
        if stream.codec_context is not None and stream.rate and stream.channels:
            return stream
    return None


def upright_rotation(frame: VideoFrame) -> int:
    """Degrees counter-clockwise that turn a stored frame upright, from its display matrix: 0, 90, 180 or 270."""
    return round(frame.rotation / 90) % 4 * 90


def shown_size(frame: VideoFrame, stream: VideoStream, rotation: int) -> tuple[int, int]:
    """Width and height as a player shows them: pixels made square, then turned upright."""
    ratio = stream.sample_aspect_ratio
    width = max(round(frame.width * ratio), 1) if ratio and 0.1 < ratio < 10 else frame.width
    return (frame.height, width) if rotation in (90, 270) else (width, frame.height)
