"""Clips and inspections as plain JSON values and back: what children.py's processes answer, and what results.py keeps."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ltx2core.data.clip import AudioTrack, Clip, Problem
from ltx2core.data.inspection import Bars, Inspection, Span
from ltx2core.data.look import Look
from ltx2core.data.loudness import Loudness

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_NUMBERS = ("width", "height", "rotation", "frames", "fps", "seconds", "codec", "variable_frame_rate", "still")


def clip_to_json(clip: Clip) -> dict[str, Any]:
    """A clip without its path and caption: those are known to whoever asked."""
    value: dict[str, Any] = {name: getattr(clip, name) for name in _NUMBERS}
    return value | {
        "audio": asdict(clip.audio) if clip.audio is not None else None,
        "problems": [[problem.code, problem.level, problem.text, problem.fix] for problem in clip.problems],
    }


def clip_from_json(path: Path, value: dict[str, Any]) -> Clip:
    """The clip at `path` again."""
    return Clip(
        path=path,
        **{name: value[name] for name in _NUMBERS},
        audio=AudioTrack(**value["audio"]) if value["audio"] is not None else None,
        problems=tuple(Problem(code=code, level=level, text=text, fix=fix) for code, level, text, fix in value["problems"]),
    )


def inspection_to_json(found: Inspection) -> dict[str, Any]:
    """An inspection; its look as hexadecimal text."""
    return {
        "frames": found.frames,
        "seconds": found.seconds,
        "complete": found.complete,
        "errors": found.errors,
        "first_error": found.first_error,
        "cuts": list(found.cuts),
        "black": _pairs(found.black),
        "still": _pairs(found.still),
        "bars": asdict(found.bars) if found.bars is not None else None,
        "look": [found.look.hashes.hex(), found.look.thumbs.hex()] if found.look is not None else None,
        "sound": asdict(found.sound) if found.sound is not None else None,
    }


def inspection_from_json(value: dict[str, Any], *, look: Look | None = None) -> Inspection:
    """The inspection again. look: where it was kept apart from the rest."""
    held = value.get("look")
    return Inspection(
        frames=value["frames"],
        seconds=value["seconds"],
        complete=value["complete"],
        errors=value["errors"],
        first_error=value["first_error"],
        cuts=tuple(value["cuts"]),
        black=_spans(value["black"]),
        still=_spans(value["still"]),
        bars=Bars(**value["bars"]) if value["bars"] is not None else None,
        look=Look(bytes.fromhex(held[0]), bytes.fromhex(held[1])) if held else look,
        sound=Loudness(**value["sound"]) if value["sound"] is not None else None,
    )


def _pairs(spans: Iterable[Span]) -> list[list[float]]:
    return [[span.start, span.end] for span in spans]


def _spans(pairs: Iterable[list[float]]) -> tuple[Span, ...]:
    return tuple(Span(start=start, end=end) for start, end in pairs)
