"""The sound of a clip as the model takes it: stereo, at one sample rate, beginning with the first video frame."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np

from ltx2core.data.media import audio_stream, reading, video_stream
from ltx2core.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container.input import InputContainer
    from numpy.typing import NDArray

_JITTER_SECONDS = 0.02  # timestamps that far off their place are rounding, not a gap
_CHUNK_SECONDS = 1
_WORTH_SEEKING = 5.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """Stereo samples, float32 [2, n]. Those from `valid` on are padding: the track had ended."""

    samples: NDArray[np.float32]
    valid: int
    sample_rate: int


def read_sound(path: Path, *, seconds: float, sample_rate: int = 16000, begin: float = 0.0) -> Sound | None:
    """`seconds` of sound from `begin` seconds after the first video frame on, or after the first sample where there is no video.

    None without a sound track.

    Mono is given to both sides at full level; more channels are mixed down, and made quieter only if the mix would clip.
    A track that starts late begins with silence; one that starts early loses what comes before the first frame.
    Raises DatasetError when the file cannot be decoded.
    """
    with reading(path) as container:
        stream = audio_stream(container)
        if stream is None:
            return None
        first = _beginning(container, stream)
        track = _Track(stream, start=first + begin, count=round(seconds * stream.rate))
        try:
            if (
                begin > _WORTH_SEEKING and stream.time_base is not None
            ):  # from a second before: decoders need what comes before to make a sample right
                container.seek(int((first + begin - 1) / stream.time_base), stream=stream, backward=True)
            track.read(container)
        except ValueError as error:  # PyAV's word for channels that it cannot mix
            raise DatasetError(f"{path} has sound that cannot be mixed to stereo.", fix="Encode its sound as stereo AAC.") from error
    count = round(seconds * sample_rate)
    resampled = _resample(track.planes, source_rate=stream.rate, sample_rate=sample_rate)[:, :count]
    samples = np.zeros((2, count), dtype=np.float32)
    samples[:, : resampled.shape[1]] = resampled  # mono is copied to both
    if track.mixed and (peak := float(np.abs(samples).max(initial=0.0))) > 1:
        samples /= peak
    return Sound(samples=samples, valid=min(round(track.end * sample_rate / stream.rate), count), sample_rate=sample_rate)


def _beginning(container: InputContainer, sound: AudioStream) -> float:
    """Seconds at which the first video frame is shown; of a file of sound alone, at which the sound begins."""
    stream = video_stream(container) or sound
    if stream.start_time is None or stream.time_base is None:
        return 0.0
    return float(stream.start_time * stream.time_base)


class _Track:
    """A sound track at its own rate, each piece laid where its timestamp says: `planes`, float32 [1 or 2, count], up to `end`.

    Every frame goes through FFmpeg's mixer before PyAV hands it out as an array: PyAV 18 reads beyond the frame when it has
    eight channels or more (`AudioFrame.planes` looks for an end that is not there), which ends the process.
    """

    def __init__(self, stream: AudioStream, *, start: float, count: int) -> None:
        self._stream, self._start = stream, start
        self.mixed = stream.channels > 2
        self._layout = "mono" if stream.channels == 1 else "stereo"  # FFmpeg's own way from mono to stereo is 3 dB quieter
        self.planes = np.zeros((1 if stream.channels == 1 else 2, count), dtype=np.float32)
        self.end = 0
        self._mixer: av.AudioResampler | None = None
        self._mixes: tuple[str, str, int] | None = None  # the kind of frame that it was made for; a track may change it

    def read(self, container: InputContainer) -> None:
        count, cursor, padding = self.planes.shape[1], 0, 0
        begun = False
        for frame in container.decode(self._stream):
            time = frame.time
            place = cursor if time is None else round((time - self._start) * self._stream.rate)
            if not begun or abs(place - cursor) > _JITTER_SECONDS * self._stream.rate:
                begun, cursor = True, place
            for part in self._mix(frame):
                cursor = self._lay(part.to_ndarray().astype(np.float32, copy=False), cursor)
            padding = _padding(frame)  # counts for the last frame only: a shorter one inside is rounding
            if cursor >= count:
                break
        self.end = min(max(cursor - padding, 0), count)
        self.planes[:, self.end :] = 0

    def _mix(self, frame: AudioFrame) -> list[AudioFrame]:
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._mixer is None or kind != self._mixes:
            self._mixer, self._mixes = av.AudioResampler(format="fltp", layout=self._layout, rate=self._stream.rate), kind
        return self._mixer.resample(frame)

    def _lay(self, part: NDArray[np.float32], at: int) -> int:
        """Copy what of `part` lies inside; the place of the next sample comes back."""
        begin, end = max(at, 0), min(at + part.shape[1], self.planes.shape[1])
        if begin < end:
            self.planes[:, begin:end] = part[:, begin - at : end - at]
        return at + int(part.shape[1])


def _padding(frame: AudioFrame) -> int:
    """Samples at the end of a frame that its packet's duration leaves out: codecs fill up their last frame."""
    if not frame.duration or frame.time_base is None:
        return 0
    tick = float(frame.time_base * frame.sample_rate)  # samples to a unit of the container's clock
    missing = frame.samples - frame.duration * tick
    return round(missing) if missing >= max(tick, 1) else 0


def _resample(planes: NDArray[np.float32], *, source_rate: int, sample_rate: int) -> NDArray[np.float32]:
    """The same channels at sample_rate, aligned at the start: FFmpeg takes its filter's delay off."""
    layout = "mono" if planes.shape[0] == 1 else "stereo"
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=sample_rate)
    parts: list[NDArray[np.float32]] = []
    step = source_rate * _CHUNK_SECONDS
    for begin in range(0, planes.shape[1], step):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(planes[:, begin : begin + step]), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = source_rate, begin, Fraction(1, source_rate)
        parts += [part.to_ndarray().astype(np.float32, copy=False) for part in resampler.resample(frame)]
    parts += [part.to_ndarray().astype(np.float32, copy=False) for part in resampler.resample(None)] if parts else []
    return np.concatenate(parts, axis=1) if parts else planes[:, :0]
