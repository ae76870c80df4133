"""The process that reads clips for a scan: `python -m ltx2core.data.child BYTES`. children.py starts it and outlives it.

It takes a line of JSON for each file on its standard input and gives one back on its standard output:

    {"path": str, "depth": "header" | "deep", "pixels": int, "header_seconds": float, "deep_seconds": float}
    {"clip": {...}, "inspection": {...} | null}    or    {"failed": "out_of_memory" | "decoder_crashed", "text": str}

or it mends a clip (repair/mend.py):

    {"path": str, "repair": {...}, "targets": [str]}
    {"frames": [int]}    or    {"failed": ..., "text": str}

BYTES is all the memory it may map (RLIMIT_AS, where the system has it), so that a file that asks for more ends its own reading and
nothing else. It ends with its input.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import av

from ltx2core.data.captions import CaptionRule
from ltx2core.data.inspection import InspectionLimits, inspect_clip
from ltx2core.data.probe import Limits
from ltx2core.data.probe_file import probe_file
from ltx2core.data.records import clip_to_json, inspection_to_json
from ltx2core.errors import Ltx2Error

_NO_CAPTIONS = CaptionRule(strategy="filename")  # captions are read by the scan itself: they change more often than clips


def _read(asked: dict[str, Any]) -> dict[str, object]:
    """What a file is, and at depth "deep" what it shows."""
    path = Path(asked["path"])
    clip = probe_file(path, captions=_NO_CAPTIONS, limits=Limits(seconds=asked["header_seconds"], pixels=asked["pixels"]))
    found = None
    if asked["depth"] == "deep" and clip.frames and clip.usable and not clip.still:
        try:
            found = inspect_clip(path, frames=clip.frames, limits=InspectionLimits(seconds=asked["deep_seconds"]))
        except MemoryError:
            raise
        except (av.FFmpegError, OSError):  # it was opened a moment ago: gone, or another file by now
            found = None
    return {"clip": clip_to_json(clip), "inspection": inspection_to_json(found) if found is not None else None}


def _mended(asked: dict[str, Any]) -> dict[str, object]:
    from ltx2core.data.repair.mend import mend
    from ltx2core.data.repair.plan import Repair

    try:
        return {"frames": mend(Path(asked["path"]), Repair.from_json(asked["repair"]), [Path(target) for target in asked["targets"]])}
    except Ltx2Error as error:
        return {"failed": "decoder_crashed", "text": error.text}


def main() -> None:
    _limit_memory(int(sys.argv[1]))
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            said = _mended(asked) if "repair" in asked else _read(asked)
        except MemoryError:
            said = {"failed": "out_of_memory", "text": ""}
        except Exception as error:  # noqa: BLE001 - the last frame of this process: one file must not end the scan
            said = {"failed": "decoder_crashed", "text": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


def _limit_memory(most: int) -> None:
    if os.name != "posix":
        return
    import resource

    with contextlib.suppress(ValueError, OSError):  # a lower limit is set already
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no gigabytes behind


if __name__ == "__main__":
    main()
