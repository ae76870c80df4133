"""The sound of a clip as the model takes it: stereo, at one sample rate, beginning with the first video frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
import numpy as np

from ltx2core.data.media import audio_stream, reading, video_stream

if TYPE_CHECKING:
    from pathlib import Path

    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container.input import InputContainer
    from numpy.typing import NDArray

_JITTER_SECONDS = 0.02  # timestamps that far off their place are rounding, not a gap
_CHUNK_SECONDS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """Stereo samples, float32 [2, n]. Those from `valid` on are padding: the track had ended."""

    samples: NDArray[np.float32]
    valid: int
    sample_rate: int


def read_sound(path: Path, *, seconds: float, sample_rate: int = 16000) -> Sound | None:
    """The first `seconds` of sound from the first video frame on; None without a sound track.

    Mono is given to both sides at full level; more channels are mixed down, and made quieter only if the mix would clip.
    A track that starts late begins with silence; one that starts early loses what comes before the first frame.
    Raises DatasetError when the file cannot be decoded.
    """
    with reading(path) as container:
        stream = audio_stream(container)
        if stream is None:
            return None
        source_rate = stream.rate
        wanted = round(seconds * source_rate)
        layout, planes, valid = _at_source_rate(container, stream, start=_first_picture(container), count=wanted)
    count = round(seconds * sample_rate)
    stereo = _to_stereo(planes, layout=layout, source_rate=source_rate, sample_rate=sample_rate)
    samples = np.zeros((2, count), dtype=np.float32)
    fits = min(count, stereo.shape[1])
    samples[:, :fits] = stereo[:, :fits]
    if planes.shape[0] > 2 and (peak := float(np.abs(samples).max(initial=0.0))) > 1:
        samples /= peak
    return Sound(samples=samples, valid=min(round(valid * sample_rate / source_rate), count), sample_rate=sample_rate)


def _first_picture(container: InputContainer) -> float:
    """Seconds at which the first video frame is shown; 0 without video."""
    stream = video_stream(container)
    if stream is None or stream.start_time is None or stream.time_base is None:
        return 0.0
    return float(stream.start_time * stream.time_base)


def _at_source_rate(container: InputContainer, stream: AudioStream, *, start: float, count: int) -> tuple[str, NDArray[np.float32], int]:
    """The track as it is, placed by its timestamps: layout, float32 [channels, count], and how many samples it reaches."""
    to_float = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
    planes = np.zeros((stream.channels, count), dtype=np.float32)
    cursor: int | None = None
    ended_early = 0  # only of the last frame: a shorter one inside is rounding
    for frame in container.decode(stream):
        time = frame.time
        place = round((time - start) * stream.rate) if time is not None else (cursor or 0)
        if cursor is None or abs(place - cursor) > _JITTER_SECONDS * stream.rate:
            cursor = place
        for part in to_float.resample(frame):
            cursor = _lay(planes, part.to_ndarray().astype(np.float32, copy=False), cursor)
        ended_early = _padding(frame)
        if cursor >= count:
            break
    end = min(max((cursor or 0) - ended_early, 0), count)
    planes[:, end:] = 0
    return stream.layout.name, planes, end


def _padding(frame: AudioFrame) -> int:
    """Samples at the end of a frame that its packet's duration leaves out: codecs fill up their last frame."""
    if not frame.duration or frame.time_base is None:
        return 0
    tick = float(frame.time_base * frame.sample_rate)  # samples to a unit of the container's clock
    missing = frame.samples - frame.duration * tick
    return round(missing) if missing >= max(tick, 1) else 0


def _lay(planes: NDArray[np.float32], part: NDArray[np.float32], at: int) -> int:
    """Copy what of `part` lies inside; the place of the next sample comes back."""
    begin, end = max(at, 0), min(at + part.shape[1], planes.shape[1])
    if begin < end and part.shape[0] == planes.shape[0]:
        planes[:, begin:end] = part[:, begin - at : end - at]
    return at + int(part.shape[1])


def _to_stereo(planes: NDArray[np.float32], *, layout: str, source_rate: int, sample_rate: int) -> NDArray[np.float32]:
    """float32 [2, n] at sample_rate. Mono stays mono until the end: FFmpeg's own way to stereo makes it 3 dB quieter."""
    mono = planes.shape[0] == 1
    resampler = av.AudioResampler(format="fltp", layout="mono" if mono else "stereo", rate=sample_rate)
    parts: list[NDArray[np.float32]] = []
    step = source_rate * _CHUNK_SECONDS
    for begin in range(0, planes.shape[1], step):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(planes[:, begin : begin + step]), format="fltp", layout=layout)
        frame.sample_rate = source_rate
        frame.pts = begin
        parts += [part.to_ndarray().astype(np.float32, copy=False) for part in resampler.resample(frame)]
    if parts:
        parts += [part.to_ndarray().astype(np.float32, copy=False) for part in resampler.resample(None)]
    mixed = np.concatenate(parts, axis=1) if parts else np.zeros((1, 0), dtype=np.float32)
    return np.repeat(mixed, 2, axis=0) if mixed.shape[0] == 1 else mixed
