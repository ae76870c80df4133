"""Files of sound alone: what is in them, from their packets, and as clips without picture."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ltx2core.data.captions import CaptionRule, read_caption
from ltx2core.data.clip import AudioTrack, Clip, Problem
from ltx2core.data.media import audio_stream, reading
from ltx2core.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

_MOST_PACKETS = 1_000_000


def probe_sound(path: Path, *, captions: CaptionRule | None = None) -> Clip:
    """What the sound file at `path` is: a clip without picture. One that cannot be used comes back with a problem of level error."""
    name = path.name
    try:
        if not path.is_file() or path.stat().st_size == 0:
            text = f"{name} is empty (0 bytes)." if path.is_file() else f"{name} is not a regular file."
            code = "empty_file" if path.is_file() else "unreadable"
            return Clip(path=path, problems=(Problem(code=code, level="error", text=text, fix="Copy or export it again."),))
        track = read_track(path)
    except (DatasetError, OSError) as error:
        reason = error.text if isinstance(error, DatasetError) else f"{name} cannot be opened: {error.strerror or error}."
        return Clip(path=path, problems=(Problem(code="damaged", level="error", text=reason, fix="Encode it as WAV or FLAC."),))
    if track is None:
        problem = Problem(code="no_sound", level="error", text=f"{name} has no sound that can be decoded.", fix="Encode it as WAV or FLAC.")
        return Clip(path=path, problems=(problem,))
    clip = Clip(path=path, seconds=track.seconds, codec=track.codec, audio=track)
    if (captions or CaptionRule()).needs_text_file:
        caption, problems = read_caption(path)
        clip = replace(clip, caption=caption).having(*problems)
    return clip


def read_track(path: Path) -> AudioTrack | None:
    """The first sound track of a file; None without one. Raises DatasetError when it cannot be opened."""
    with reading(path) as container:
        stream = audio_stream(container)
        if stream is None or stream.time_base is None:
            return None
        begin: int | None = None
        end = 0
        for number, packet in enumerate(container.demux(stream)):
            if number >= _MOST_PACKETS:
                break
            if packet.pts is not None:
                begin = packet.pts if begin is None else min(begin, packet.pts)
                end = max(end, packet.pts + (packet.duration or 0))
        if begin is None:
            return None
        return AudioTrack(
            sample_rate=stream.rate,
            channels=stream.channels,
            seconds=float((end - begin) * stream.time_base),
            codec=stream.codec_context.name,
        )
