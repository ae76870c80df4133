"""How loud a sound track is: its peak, its mean level, and how much of it stands at full scale."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
import numpy as np

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container.input import InputContainer

HIGH, TOP = 0.8, 0.9  # of full scale: two bands that tell clipped from loud sound. Codecs soften a ceiling at 1.0 down to 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Loudness:
    """Of all channels mixed to stereo. top and high: the share of samples above TOP, and between HIGH and TOP."""

    peak: float
    rms: float
    top: float
    high: float
    seconds: float  # that were listened to

    @property
    def peak_decibels(self) -> float:
        """Below full scale; -inf for digital silence."""
        return 20 * math.log10(self.peak) if self.peak > 0 else -math.inf


def measure_loudness(container: InputContainer, stream: AudioStream, deadline: float) -> Loudness | None:
    """Listens to a track until its end, or until the deadline (of time.monotonic). None when nothing can be decoded.

    Every frame goes through FFmpeg's mixer first: see sound.py for why.
    """
    peak = squares = 0.0
    top = high = count = 0
    mixer = av.AudioResampler(format="fltp", layout="mono" if stream.channels == 1 else "stereo", rate=stream.rate)
    try:
        for frame in container.decode(stream):
            for part in mixer.resample(frame):
                level = np.abs(np.nan_to_num(part.to_ndarray()))
                peak = max(peak, float(level.max(initial=0.0)))
                squares += float(np.square(level, dtype=np.float64).sum())
                above = int((level >= TOP).sum())
                top += above
                high += int((level >= HIGH).sum()) - above
                count += level.size
            if time.monotonic() > deadline:
                break
    except MemoryError:  # FFmpeg's is one of its own errors too
        raise
    except (av.FFmpegError, OSError, ValueError):  # damaged from here on: what came before is judged
        pass
    if count == 0:
        return None
    seconds = count / (1 if stream.channels == 1 else 2) / stream.rate
    return Loudness(peak=peak, rms=math.sqrt(squares / count), top=top / count, high=high / count, seconds=seconds)
