"""One file to one Clip: opened, its packets counted, its first frame decoded. Never raises for what a file may hold.

Frames, rate and length come from the packets' timestamps: headers lie. Nothing but the first frame is decoded, so this costs
little more than reading the file.
"""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import av
import numpy as np

from ltx2core.data.captions import CaptionRule, read_caption
from ltx2core.data.clip import AudioTrack, Clip, Problem
from ltx2core.data.media import MAX_PIXELS, audio_stream, open_media, shown_size, upright_rotation, video_stream
from ltx2core.data.structure import Structure, read_structure

if TYPE_CHECKING:
    from pathlib import Path

    from av.audio.stream import AudioStream
    from av.container.input import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # AVCOL_TRC_SMPTE2084, AVCOL_TRC_ARIB_STD_B67
_AUDIO_SLACK = 0.25  # seconds of late, early or missing sound not worth a line: a tenth of that is a codec's own delay
# LTX-2 has seen motion at 24, 25, 30 and 60 fps. A multiple of these is thinned out evenly; any other rate leaves an uneven rhythm,
# and a lower one has too few pictures to learn motion from. 3 % takes in 23.976 and 29.97, and clocks that drift.
_USUAL_RATES, _RATE_SLACK = (24.0, 25.0, 30.0), 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where reading one file stops, so that none can hold up the scan."""

    seconds: float = 20.0
    packets: int = 1_000_000
    pixels: int = MAX_PIXELS


@dataclass(slots=True)
class _Counted:
    """What the packets say, in the streams' own clocks."""

    times: array[int] = field(default_factory=lambda: array("q"))
    last_duration: int = 0  # of the packet shown last
    audio_start: int | None = None
    audio_end: int = 0
    first_frame: VideoFrame | None = None
    damaged: bool = False  # a packet could not be read whole
    complete: bool = True


def probe_clip(path: Path, *, captions: CaptionRule | None = None, limits: Limits | None = None) -> Clip:
    """What the file at `path` is. A file that cannot be used comes back with a problem of level error."""
    structure, problem = _open_structure(path)
    if structure is None or problem is not None:
        return Clip(path=path, problems=(problem,) if problem else ())
    try:
        clip = _probe_media(path, structure, limits or Limits())
    except MemoryError:
        said = f"{path.name} takes more memory to decode than there is."
        return Clip(path=path, problems=(_error("out_of_memory", said, "Scale it down, or encode it again."),))
    if (captions or CaptionRule()).needs_text_file:
        text, problems = read_caption(path)
        clip = replace(clip, caption=text).having(*problems)
    return clip


def _open_structure(path: Path) -> tuple[Structure | None, Problem | None]:
    name = path.name
    try:
        if not path.is_file():
            reason = "a link to nothing" if path.is_symlink() else "not a regular file"
            return None, _error("unreadable", f"{name} is {reason}.", "Remove it, or put the video there.")
        structure = read_structure(path)
    except OSError as error:
        return None, _error("unreadable", f"{name} cannot be opened: {error.strerror or error}.", "Change its permissions.")
    if structure.size == 0:
        return None, _error("empty_file", f"{name} is empty (0 bytes).", "Copy or export it again.")
    return structure, _structure_problem(name, structure)


def _structure_problem(name: str, structure: Structure) -> Problem | None:
    again = "Copy or export it again."
    if structure.kind == "text":
        return _error("not_a_video", f"{name} is a text file, not a video.", "Remove it, or give it its right name.")
    if structure.kind == "mp4" and not structure.has_index:
        return _error("truncated", f"{name} is cut off: its index (moov) was never written.", again)
    if structure.missing_bytes:
        return _error("truncated", f"{name} is cut off: {structure.missing_bytes:,} bytes are missing at its end.", again)
    return None


def _probe_media(path: Path, structure: Structure, limits: Limits) -> Clip:
    name = path.name
    try:
        with open_media(path) as container:
            stream = video_stream(container)
            if stream is None:
                return Clip(path=path, problems=(_no_video(name, container),))
            if stream.width * stream.height > limits.pixels:
                text = f"{name} has frames of {stream.width}x{stream.height}; at most {limits.pixels:,} pixels are read."
                return Clip(path=path, problems=(_error("too_many_pixels", text, "Scale it down."),))
            audio = audio_stream(container)
            counted = _count(container, stream, audio, limits)
            return _judge(path, container, stream, audio, counted, structure)
    except MemoryError:  # FFmpeg's is one of its own errors too
        raise
    except (av.FFmpegError, OSError) as error:
        if structure.kind == "other":
            problem = _error("not_a_video", f"{name} is not a video in a known container.", "Use mp4, mov, mkv or webm.")
        else:
            problem = _error("damaged", f"{name} cannot be read: {error.strerror or error}.", "Copy or export it again.")
        return Clip(path=path, problems=(problem,))


def _no_video(name: str, container: InputContainer) -> Problem:
    if any(stream.codec_context is None for stream in container.streams.video):
        return _error("unknown_codec", f"{name} has a video codec that FFmpeg does not know.", "Encode it as H.264.")
    return _error("no_video", f"{name} has no picture{', only sound' if container.streams.audio else ''}.", "Remove it from the folder.")


def _count(container: InputContainer, video: VideoStream, audio: AudioStream | None, limits: Limits) -> _Counted:
    """Read every packet, decode until the first frame comes out."""
    counted = _Counted()
    video.codec_context.thread_count = 1  # one frame is decoded: threads would cost more than they save
    deadline = time.monotonic() + limits.seconds
    streams: list[Stream] = [video] if audio is None else [video, audio]
    latest = None
    try:
        for number, packet in enumerate(container.demux(*streams)):
            if number >= limits.packets or (number % 64 == 0 and time.monotonic() > deadline):
                counted.complete = False
                break
            if packet.stream_index == video.index and counted.first_frame is None:
                counted.first_frame = _try_decode(video, packet)
            when = packet.pts if packet.pts is not None else packet.dts
            if when is None or packet.is_discard:
                continue
            counted.damaged = counted.damaged or packet.is_corrupt
            if packet.stream_index == video.index:
                counted.times.append(when)
                if latest is None or when >= latest:
                    latest, counted.last_duration = when, packet.duration or 0
            else:
                counted.audio_start = when if counted.audio_start is None else min(counted.audio_start, when)
                counted.audio_end = max(counted.audio_end, when + (packet.duration or 0))
    except MemoryError:
        raise
    except (av.FFmpegError, OSError):
        counted.damaged = True
    return counted


def _try_decode(stream: VideoStream, packet: Packet[Stream]) -> VideoFrame | None:
    """The first frame that comes out, if one does; a packet that cannot be decoded is passed over, as a player does."""
    try:
        frames = stream.codec_context.decode(packet)  # an empty one marks the end: what was held back comes out
    except MemoryError:
        raise
    except (av.FFmpegError, OSError):
        return None
    return frames[0] if frames else None


def _judge(
    path: Path, container: InputContainer, stream: VideoStream, audio: AudioStream | None, counted: _Counted, structure: Structure
) -> Clip:
    name, frame = path.name, counted.first_frame
    if frame is None or not counted.times or stream.time_base is None:
        cut = " and is cut off" if counted.damaged else ""
        return Clip(path=path, problems=(_error("damaged", f"{name} has no picture that can be decoded{cut}.", "Export it again."),))
    clock = float(stream.time_base)
    times = np.sort(np.frombuffer(counted.times, dtype=np.int64))
    frames, seconds, steady = _timing(times, counted.last_duration, clock, fallback_rate=float(stream.average_rate or 25))
    if not counted.complete:
        frames, seconds = _claimed(container, stream, frames, seconds)
    track = _audio_track(audio, counted, start=float(times[0]) * clock)
    rotation = upright_rotation(frame)
    width, height = shown_size(frame, stream, rotation)
    clip = Clip(
        path=path,
        width=width,
        height=height,
        rotation=rotation,
        frames=frames,
        fps=_rate(stream, frames, seconds, steady=steady),
        seconds=seconds,
        codec=stream.codec_context.name,
        audio=track,
        variable_frame_rate=not steady,
    )
    return clip.having(
        *_file_problems(clip, container, counted, structure), *_picture_problems(clip, frame), *_sound_problems(clip, container)
    )


def _timing(
    times: np.ndarray[tuple[int, ...], np.dtype[np.int64]], last: int, clock: float, *, fallback_rate: float
) -> tuple[int, float, bool]:
    """Frames, seconds, and whether they come at one rate. times: sorted, in units of `clock` seconds; last: the last one's length.

    One rate: no step between frames differs from the usual one by a tenth, or by what a container's clock rounds away.
    """
    if len(times) < 2:
        return len(times), last * clock if last else 1 / fallback_rate, True
    steps = np.diff(times)
    usual = float(np.median(steps))
    steady = bool(np.abs(steps - usual).max() <= max(1.5, 0.1 * usual))
    average = float(times[-1] - times[0]) / (len(times) - 1)
    length = average if steady or last <= 0 else last
    return len(times), (float(times[-1] - times[0]) + length) * clock, steady


def _rate(stream: VideoStream, frames: int, seconds: float, *, steady: bool) -> float:
    """Frames a second: the container's exact figure where the timestamps bear it out, else what they say."""
    measured = frames / seconds if seconds > 0 else 0.0
    claimed = float(stream.average_rate or 0)
    return claimed if steady and abs(claimed - measured) <= 0.002 * measured else measured


def _claimed(container: InputContainer, stream: VideoStream, frames: int, seconds: float) -> tuple[int, float]:
    """Frames and seconds as the header has them, at least those that were read."""
    length = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else (container.duration or 0) / av.time_base
    seconds = max(length, seconds)
    return max(stream.frames, round(seconds * float(stream.average_rate or 0)), frames), seconds


def _audio_track(stream: AudioStream | None, counted: _Counted, *, start: float) -> AudioTrack | None:
    if stream is None or counted.audio_start is None or stream.time_base is None:
        return None
    clock = float(stream.time_base)
    return AudioTrack(
        sample_rate=stream.rate,
        channels=stream.channels,
        seconds=(counted.audio_end - counted.audio_start) * clock,
        codec=stream.codec_context.name,
        start=counted.audio_start * clock - start,
    )


def _file_problems(clip: Clip, container: InputContainer, counted: _Counted, structure: Structure) -> list[Problem]:
    name = clip.path.name
    problems: list[Problem] = []
    end = max(clip.seconds, clip.audio.start + clip.audio.seconds if clip.audio else 0.0)
    claimed = (container.duration or 0) / av.time_base
    cut_short = structure.kind == "matroska" and claimed - end > max(0.25, 2 / clip.fps if clip.fps else 0)
    if counted.complete and (counted.damaged or cut_short):
        text = f"{name} is cut off: {end:.2f} of {max(claimed, end):.2f} s can be read."
        problems.append(_error("truncated", text, "Copy or export it again."))
    if not counted.complete:
        text = f"{name} is too long to read through; {clip.frames} frames and {clip.seconds:.0f} s are what its header says."
        problems.append(Problem(code="not_fully_read", level="warning", text=text, fix="Cut it into clips of a few seconds."))
    if clip.variable_frame_rate:
        text = f"{name} has a variable frame rate, {clip.fps:.4g} fps on average; its frames are taken by their times."
        fix = "Encode it at a constant rate if motion looks uneven: `ltx2tui check --fix` does."
        problems.append(Problem(code="variable_frame_rate", level="warning", text=text, fix=fix))
    elif clip.frames > 1 and not is_usual_rate(clip.fps):
        text = f"{name} has {clip.fps:.4g} fps; LTX-2 has learned motion from 24, 25, 30 and 60 fps."
        low = clip.fps < min(_USUAL_RATES)
        fix = "Use footage of such a rate: frames that are not there cannot be made." if low else "Encode it at 24, 25 or 30 fps."
        problems.append(Problem(code="unusual_frame_rate", level="warning", text=text, fix=fix))
    return problems


def is_usual_rate(fps: float) -> bool:
    """Whether a rate is 24, 25 or 30, or a whole multiple of one of them."""
    return any(abs(fps - rate * max(round(fps / rate), 1)) <= _RATE_SLACK * rate * max(round(fps / rate), 1) for rate in _USUAL_RATES)


def _picture_problems(clip: Clip, frame: VideoFrame) -> list[Problem]:
    name = clip.path.name
    problems: list[Problem] = []
    if clip.rotation:
        text = f"{name} is stored turned by {clip.rotation} degrees; it trains upright, as {clip.width}x{clip.height}."
        problems.append(Problem(code="rotated", level="info", text=text))
    if frame.interlaced_frame:
        text = f"{name} is interlaced; moving edges will show as combs."
        problems.append(Problem(code="interlaced", level="warning", text=text, fix="Deinterlace it: `ltx2tui check --fix` does."))
    if (transfer := _HDR_TRANSFERS.get(int(frame.color_trc))) is not None:
        text = f"{name} is HDR ({transfer}); read as it is, its colours are pale."
        problems.append(Problem(code="hdr", level="warning", text=text, fix="Tone-map it to BT.709: `ltx2tui check --fix` does."))
    if (bits := frame.format.components[0].bits) > 8:
        text = f"{name} has {bits} bits a colour; it is read as 8."
        problems.append(Problem(code="high_bit_depth", level="info", text=text))
    return problems


def _sound_problems(clip: Clip, container: InputContainer) -> list[Problem]:
    name, audio = clip.path.name, clip.audio
    if audio is None:
        if container.streams.audio:
            text, fix = f"{name} has sound that cannot be decoded; it trains video only.", "Encode its sound as AAC."
            return [Problem(code="unknown_audio_codec", level="warning", text=text, fix=fix)]
        return [Problem(code="no_audio", level="info", text=f"{name} has no sound; it trains video only.")]
    problems: list[Problem] = []
    if audio.start > _AUDIO_SLACK:
        text = f"{name}: its sound starts {audio.start:.2f} s after its picture; silence is put before it."
        problems.append(Problem(code="audio_late", level="info", text=text))
    if audio.start < -_AUDIO_SLACK:
        text = f"{name}: its sound starts {-audio.start:.2f} s before its picture; that much of it is not used."
        problems.append(Problem(code="audio_early", level="info", text=text))
    if clip.seconds - audio.start - audio.seconds > _AUDIO_SLACK:
        text = f"{name}: its sound ends at {audio.start + audio.seconds:.2f} s, its picture at {clip.seconds:.2f} s."
        problems.append(Problem(code="audio_short", level="info", text=text))
    return problems


def _error(code: str, text: str, fix: str) -> Problem:
    return Problem(code=code, level="error", text=text, fix=fix)
