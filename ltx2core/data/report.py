"""What `ltx2tui check` says: one row for each clip, as lines for people and as JSON for scripts.

    {"clips": [{"path": str, "width": int, "height": int, "fps": float, "frames": int, "duration": seconds,
                "audio": {"codec": str, "sample_rate": int, "channels": int, "duration": seconds} | null,
                "caption": str | null, "bucket": "WxH@F" | null,
                "issues": [{"code": str, "level": "error" | "warning" | "info", "text": str, "fix": str}]}],
     "summary": {"clips": int, "usable": int, "left_out": int, "with_audio": int, "seconds": float, "errors": int, "warnings": int,
                 "buckets": {"WxH@F": clips}, "issues": {code: clips}}}

Codes are those of `clip.PROBLEM_CODES`. A clip without a bucket is left out of training; its error says why. Where sound is trained
alone a bucket is its length, "1.96s".
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ltx2core.data.buckets import BucketRule, place
from ltx2core.data.clip import Bucket, Clip, Sample, SoundBucket
from ltx2core.data.scan import scan_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A clip and the bucket it would train in; None when it is left out."""

    clip: Clip
    bucket: Bucket | SoundBucket | None

    def to_json(self) -> dict[str, object]:
        clip, audio = self.clip, self.clip.audio
        return {
            "path": _printable(clip.path),
            "width": clip.width,
            "height": clip.height,
            "fps": round(clip.fps, 3),
            "frames": clip.frames,
            "duration": round(clip.seconds, 3),
            "audio": audio
            and {"codec": audio.codec, "sample_rate": audio.sample_rate, "channels": audio.channels, "duration": round(audio.seconds, 3)},
            "caption": clip.caption,
            "bucket": self.bucket.label if self.bucket else None,
            "issues": [asdict(problem) for problem in clip.problems],
        }

    def lines(self) -> list[str]:
        """What the clip is, then a line for each problem, the worst first."""
        clip = self.clip
        sound = f"{clip.audio.codec} {clip.audio.channels} ch" if clip.audio else "no sound"
        what = f"{clip.width}x{clip.height}  {clip.fps:.4g} fps  {clip.frames} frames  {clip.seconds:.2f} s  {sound}"
        head = f"{_printable(clip.path)}  {what if clip.frames else 'unknown'}  ->  {self.bucket.label if self.bucket else 'left out'}"
        order = ("error", "warning", "info")
        ranked = sorted(clip.problems, key=lambda problem: order.index(problem.level))
        return [head, *(f"  {problem.level}: {problem.text} {problem.fix} [{problem.code}]".replace("  [", " [") for problem in ranked)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All rows of a check."""

    rows: tuple[Row, ...]

    @property
    def usable(self) -> int:
        return sum(row.bucket is not None for row in self.rows)

    def to_json(self) -> dict[str, object]:
        return {"clips": [row.to_json() for row in self.rows], "summary": self.summary()}

    def summary(self) -> dict[str, object]:
        trained = [row for row in self.rows if row.bucket is not None]
        levels = Counter(problem.level for row in self.rows for problem in row.clip.problems)
        codes = Counter(code for row in self.rows for code in {problem.code for problem in row.clip.problems})
        buckets = Counter(row.bucket for row in trained if row.bucket)
        return {
            "clips": len(self.rows),
            "usable": len(trained),
            "left_out": len(self.rows) - len(trained),
            "with_audio": sum(row.clip.audio is not None for row in trained),
            "seconds": round(sum(row.clip.seconds for row in trained), 3),
            "errors": levels["error"],
            "warnings": levels["warning"],
            "buckets": {bucket.label: buckets[bucket] for bucket in sorted(buckets, key=_largest, reverse=True)},
            "issues": dict(sorted(codes.items())),
        }

    def closing_line(self) -> str:
        trained = [row for row in self.rows if row.bucket is not None]
        seconds = sum(row.clip.seconds for row in trained)
        sound = sum(row.clip.audio is not None for row in trained)
        buckets = len({row.bucket for row in trained})
        return (
            f"{len(trained)} of {len(self.rows)} clips can be trained on: {seconds:.0f} s, {sound} with sound, "
            f"{buckets} bucket{'' if buckets == 1 else 's'}; {len(self.rows) - len(trained)} left out."
        )


def check_folder(
    folder: Path,
    *,
    rule: BucketRule | None = None,
    on_row: Callable[[Row], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Report:
    """Scan a folder and say what would become of every clip. on_row is called with each as it is known.

    Raises DatasetError when the folder is missing or holds no video, Stopped when asked to.
    """
    rule = rule or BucketRule()
    rows: list[Row] = []

    def on_clip(clip: Clip) -> None:
        rows.append(row_of(place(clip, rule)))
        if on_row is not None:
            on_row(rows[-1])

    scan_folder(folder, on_clip=on_clip, should_stop=should_stop, captions=rule.captions)
    return Report(rows=tuple(rows))


def row_of(placed: Sample | Clip) -> Row:
    """The row of a clip that was given its bucket, or left out."""
    return Row(clip=placed.clip, bucket=placed.bucket) if isinstance(placed, Sample) else Row(clip=placed, bucket=None)


def _largest(bucket: Bucket | SoundBucket) -> tuple[int, ...]:
    """A key to sort buckets by: those with pictures first."""
    return (bucket.width, bucket.height, bucket.frames) if isinstance(bucket, Bucket) else (0, bucket.latents)


def join(reports: Iterable[Report]) -> Report:
    """One report of several datasets."""
    return Report(rows=tuple(row for report in reports for row in report.rows))


def _printable(path: Path) -> str:
    """A path as text that any terminal and JSON take: bytes that are no UTF-8 become question marks in a diamond."""
    return os.fsencode(path).decode(errors="replace")
