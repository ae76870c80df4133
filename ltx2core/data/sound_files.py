"""Files of sound alone: what is in them, from their packets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.data.clip import AudioTrack
from ltx2core.data.media import audio_stream, reading

if TYPE_CHECKING:
    from pathlib import Path

_MOST_PACKETS = 1_000_000


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
