"""Frames and sound to files that play everywhere: H.264 and AAC in mp4, WAV, and PNG. Whole files or none."""

from __future__ import annotations

import errno
import wave
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from ltx2core.errors import StorageError
from ltx2core.runs.files import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from av.audio.stream import AudioStream
    from av.container.output import OutputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_CRF = 18  # no loss to the eye
_BT709 = 1  # AVCOL_PRI_BT709, AVCOL_TRC_BT709 and AVCOL_SPC_BT709 alike
_LIMITED = 1  # AVCOL_RANGE_MPEG


def write_video(
    path: Path,
    frames: NDArray[np.uint8],
    *,
    fps: float | Fraction,
    sound: NDArray[np.float32] | None = None,
    sample_rate: int = 48000,
) -> None:
    """Write an mp4. frames: uint8 [F, H, W, 3], RGB; sound: float32 [2, n] in -1..1, n samples of any length.

    An odd side gets one more line, a copy of its last: 4:2:0 has no odd sides. Raises StorageError when it cannot be written.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise ValueError(f"expected uint8 [F, H, W, 3], got {frames.dtype} {[*frames.shape]}")
    if sound is not None and (sound.ndim != 2 or sound.shape[0] != 2):
        raise ValueError(f"expected sound [2, n], got {[*sound.shape]}")
    if sound is not None and sample_rate not in AAC_RATES:
        raise ValueError(f"AAC has no {sample_rate} Hz; it has {', '.join(map(str, AAC_RATES))}")
    with replacing(path) as temporary:
        try:
            _encode(temporary, frames, rate=exact_rate(fps), sound=sound, sample_rate=sample_rate)
        except av.FFmpegError as error:
            raise _as_os_error(path, error) from error


def write_png(path: Path, frame: NDArray[np.uint8]) -> None:
    """Write one picture: uint8 [H, W, 3], RGB."""
    from PIL import Image

    with replacing(path) as temporary:
        Image.fromarray(np.ascontiguousarray(frame)).save(temporary)


def write_wav(path: Path, sound: NDArray[np.float32], *, sample_rate: int) -> None:
    """Write sound, float32 [2, n] in -1..1, as WAV of 16 bits. Raises StorageError when it cannot be written."""
    if sound.ndim != 2 or sound.shape[0] != 2:
        raise ValueError(f"expected sound [2, n], got {[*sound.shape]}")
    samples = np.round(np.clip(np.nan_to_num(sound), -1.0, 1.0) * 32767).astype("<i2")
    with replacing(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.T.tobytes())


def exact_rate(fps: float | Fraction) -> Fraction:
    """The rate as a fraction; 23.976, 29.97 and 59.94 become the n * 1000/1001 that they stand for."""
    if fps <= 0:
        raise ValueError(f"a frame rate is above 0, not {fps}")
    if isinstance(fps, Fraction | int):
        return Fraction(fps)
    ntsc = Fraction(round(fps * 1.001) * 1000, 1001)
    if abs(float(ntsc) - fps) < 0.002 and abs(round(fps) - fps) > 1e-6:
        return ntsc
    return Fraction(fps).limit_denominator(1000)


def _encode(path: Path, frames: NDArray[np.uint8], *, rate: Fraction, sound: NDArray[np.float32] | None, sample_rate: int) -> None:
    height, width = frames.shape[1:3]
    pad = ((0, height % 2), (0, width % 2), (0, 0))
    # The header's own clock is 1 ms unless told otherwise, and would cut or lengthen the sound by part of one.
    options = {"movflags": "+faststart", "movie_timescale": str(sample_rate)}
    with av.open(f"file:{path}", "w", format="mp4", options=options) as container:
        video = container.add_stream("libx264", rate=rate, options={"crf": str(_CRF), "preset": "medium"})
        video.width, video.height, video.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        video.color_primaries = video.color_trc = video.colorspace = _BT709
        video.color_range = _LIMITED
        audio = None
        if sound is not None:
            audio = container.add_stream("aac", rate=sample_rate, layout="stereo")
            audio.bit_rate = 192_000
        reformatter = VideoReformatter()
        for index, picture in enumerate(frames):
            _encode_picture(container, video, reformatter, np.pad(picture, pad, mode="edge"), index, rate)
        container.mux(video.encode(None))
        if sound is not None and audio is not None:
            _encode_sound(container, audio, sound, sample_rate)


def _encode_picture(
    container: OutputContainer, stream: VideoStream, reformatter: VideoReformatter, picture: NDArray[np.uint8], index: int, rate: Fraction
) -> None:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    yuv = reformatter.reformat(
        frame,
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP,
        threads=1,
    )
    yuv.pts, yuv.time_base = index, 1 / rate
    container.mux(stream.encode(yuv))


def _encode_sound(container: OutputContainer, stream: AudioStream, sound: NDArray[np.float32], sample_rate: int) -> None:
    size = stream.frame_size or 1024
    limited = np.clip(np.nan_to_num(sound), -1.0, 1.0).astype(np.float32)
    for begin in range(0, limited.shape[1], size):
        part = np.ascontiguousarray(limited[:, begin : begin + size])
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = sample_rate, begin, Fraction(1, sample_rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _as_os_error(path: Path, error: av.FFmpegError) -> OSError | StorageError:
    """FFmpeg's errors carry errno for what the disk said; `replacing` words those."""
    if isinstance(error, OSError) or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES):
        return OSError(error.errno, error.strerror)
    return StorageError(f"{path} cannot be encoded: {error.strerror}.", fix="Check that PyAV is a build with libx264.")
