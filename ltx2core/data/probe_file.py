"""One file to one Clip, whatever it is: a video, a picture or a sound, told apart by the ending of its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.data.media import PICTURES, SOUNDS
from ltx2core.data.probe import probe_clip
from ltx2core.data.sound_files import probe_sound
from ltx2core.data.stills import probe_still

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.data.captions import CaptionRule
    from ltx2core.data.clip import Clip
    from ltx2core.data.probe import Limits


def probe_file(path: Path, *, captions: CaptionRule | None = None, limits: Limits | None = None) -> Clip:
    """What the file at `path` is. One that cannot be used comes back with a problem of level error."""
    suffix = path.suffix.lower()
    if suffix in PICTURES:
        return probe_still(path, captions=captions)
    if suffix in SOUNDS:
        return probe_sound(path, captions=captions)
    return probe_clip(path, captions=captions, limits=limits)
