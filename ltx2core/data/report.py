"""What `ltx2tui check` says: one row for each clip, as lines for people and as JSON for scripts, written as it is found.

    {"clips": [{"path": str, "width": int, "height": int, "fps": float, "frames": int, "duration": seconds,
                "audio": {"codec": str, "sample_rate": int, "channels": int, "duration": seconds} | null,
                "caption": str | null, "bucket": "WxH@F" | null,
                "issues": [{"code": str, "level": "error" | "warning" | "info", "text": str, "fix": str}]}],
     "summary": {"clips": int, "usable": int, "left_out": int, "with_audio": int, "seconds": float, "errors": int, "warnings": int,
                 "buckets": {"WxH@F": clips}, "issues": {code: clips},
                 "fixed": [{"path": str, "outputs": [str], "did": [str], "left": [code], "left_out": str}]}}

Codes are those of `clip.PROBLEM_CODES`; docs/CHECKS.md shows each with an example. A clip without a bucket is left out of training; its
error says why. `fixed` is there with --fix alone, an entry for each clip of the folder as it was; the rest is then about the mended folder.
Width and height are as shown: turned upright, pixels made square.
Where sound is trained alone a bucket is its length, "1.96s". A clip that trains in several stretches has the bucket of the first.
The rows come in the order of their paths, those of a dataset list dataset by dataset. Text is UTF-8; no number is NaN or infinite.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from ltx2core.data.clip import Bucket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from ltx2core.data.clip import SoundBucket
    from ltx2core.data.survey import Row

LEVELS = ("error", "warning", "info")


def row_json(row: Row) -> dict[str, object]:
    """A row as the docstring above has it."""
    clip, audio = row.clip, row.clip.audio
    return {
        "path": printable(clip.path),
        "width": clip.width,
        "height": clip.height,
        "fps": round(clip.fps, 3),
        "frames": clip.frames,
        "duration": round(clip.seconds, 3),
        "audio": audio
        and {"codec": audio.codec, "sample_rate": audio.sample_rate, "channels": audio.channels, "duration": round(audio.seconds, 3)},
        "caption": clip.caption,
        "bucket": row.bucket.label if row.bucket else None,
        "issues": [asdict(problem) for problem in clip.problems],
    }


def row_lines(row: Row) -> list[str]:
    """What the clip is and where it goes, then a line for each problem, the worst first."""
    clip = row.clip
    what = _what(row) if clip.frames or clip.audio else "unknown"
    head = f"{printable(clip.path)}  {what}  ->  {row.bucket.label if row.bucket else 'left out'}"
    ranked = sorted(clip.problems, key=lambda problem: LEVELS.index(problem.level))
    return [head, *(f"  {problem.level}: {problem.text} {problem.fix} [{problem.code}]".replace("  [", " [") for problem in ranked)]


def _what(row: Row) -> str:
    clip = row.clip
    sound = f"{clip.audio.codec} {clip.audio.channels} ch" if clip.audio else "no sound"
    if clip.still:
        parts = [f"{clip.width}x{clip.height}", clip.codec]
    elif not clip.frames:
        parts = [f"{clip.seconds:.2f} s", sound]
    else:
        parts = [f"{clip.width}x{clip.height}", f"{clip.fps:.4g} fps", f"{clip.frames} frames", f"{clip.seconds:.2f} s", clip.codec, sound]
    if clip.rotation:
        parts.append(f"turned {clip.rotation}°")
    if row.tokens:
        parts.append(f"{'' if row.tokens_exact else '~'}{row.tokens} tokens")
    return "  ".join(parts)


class Summary:
    """Adds up rows as they pass; none is kept."""

    def __init__(self) -> None:
        self.clips = self.usable = self.with_audio = 0
        self.seconds = 0.0
        self._levels: Counter[str] = Counter()
        self._codes: Counter[str] = Counter()
        self.buckets: Counter[Bucket | SoundBucket] = Counter()

    def add(self, row: Row) -> None:
        self.clips += 1
        self._levels.update(problem.level for problem in row.clip.problems)
        self._codes.update({problem.code for problem in row.clip.problems})
        if row.bucket is not None:
            self.usable += 1
            self.with_audio += row.clip.audio is not None
            self.seconds += row.clip.seconds
            self.buckets[row.bucket] += 1

    def to_json(self) -> dict[str, object]:
        return {
            "clips": self.clips,
            "usable": self.usable,
            "left_out": self.clips - self.usable,
            "with_audio": self.with_audio,
            "seconds": round(self.seconds, 3),
            "errors": self._levels["error"],
            "warnings": self._levels["warning"],
            "buckets": {bucket.label: self.buckets[bucket] for bucket in sorted(self.buckets, key=_largest, reverse=True)},
            "issues": dict(sorted(self._codes.items())),
        }

    def closing_line(self) -> str:
        buckets = len(self.buckets)
        return (
            f"{self.usable} of {self.clips} clips can be trained on: {self.seconds:.0f} s, {self.with_audio} with sound, "
            f"{buckets} bucket{'' if buckets == 1 else 's'}; {self.clips - self.usable} left out."
        )


class JsonReport:
    """Writes the JSON a clip at a time, so that a large set is never in memory. Call `close` at the end, or the JSON is not whole."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._between = "\n"
        write('{"clips": [')

    def add(self, row: Row) -> None:
        self._write(self._between + json.dumps(row_json(row), ensure_ascii=False, allow_nan=False))
        self._between = ",\n"

    def close(self, summary: Summary, **more: object) -> None:
        rest = json.dumps(summary.to_json() | more, ensure_ascii=False, allow_nan=False, indent=2)
        self._write(f'\n],\n"summary": {rest}}}\n')


def summarise(rows: Iterable[Row]) -> Summary:
    """The summary of rows."""
    summary = Summary()
    for row in rows:
        summary.add(row)
    return summary


def _largest(bucket: Bucket | SoundBucket) -> tuple[int, ...]:
    """A key to sort buckets by: those with pictures first."""
    return (bucket.width, bucket.height, bucket.frames) if isinstance(bucket, Bucket) else (0, bucket.latents)


def printable(path: Path) -> str:
    """A path as text that any terminal and JSON take: bytes that are no UTF-8 become question marks in a diamond."""
    return os.fsencode(path).decode(errors="replace")
