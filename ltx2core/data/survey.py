"""A whole folder looked at: first every clip on its own, by several processes, then all of them together, a row at a time.

`measure` reads what is not known yet and keeps it at once (results.py), so that it can be ended at any point and go on later. `rows`
then tells every clip in the order of its path. Of 100,000 clips only their paths, and a kilobyte a clip while copies are looked for,
are in memory.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2core.data.buckets import BucketRule, place
from ltx2core.data.caption_checks import judge_captions
from ltx2core.data.captions import read_caption
from ltx2core.data.children import Children, Reading
from ltx2core.data.clip import Bucket, Clip, Problem, Sample, SoundBucket
from ltx2core.data.look import find_alike, group_by_first
from ltx2core.data.results import Results, Stamp
from ltx2core.data.scan import find_clips
from ltx2core.data.tokens import ESTIMATE, TokenCounter
from ltx2core.data.verdicts import codes, judge_inspection
from ltx2core.errors import Stopped, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ltx2core.data.children import Bounds, Depth
    from ltx2core.data.inspection import Inspection
    from ltx2core.data.media import Media

_BATCH = 16  # files that a process is given at once
_LOOK_UP = 512  # paths whose results are asked for at once
_COMMIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a survey is."""

    done: int
    total: int
    known: int  # of those done, that earlier surveys had read
    bytes_read: int  # of files that this one read
    bytes_left: int
    seconds: float

    @property
    def seconds_left(self) -> float | None:
        """By the bytes still to be read, at the speed so far; None while there is no speed yet."""
        if not self.bytes_left:
            return 0.0
        return self.seconds * self.bytes_left / self.bytes_read if self.bytes_read and self.seconds > 0.5 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A clip with all that is wrong with it, and the bucket it would train in; None when it is left out."""

    clip: Clip
    bucket: Bucket | SoundBucket | None
    captions: tuple[str, ...] = ()  # as trained
    tokens: int = 0  # of the longest caption
    tokens_exact: bool = False  # counted by the text encoder's own tokenizer
    number: int = 0  # among the paths of its folder
    inspection: Inspection | None = None


class Survey:
    """One folder, by one rule. batch_size: of training, for buckets that cannot fill a batch."""

    def __init__(
        self,
        folder: Path,
        results: Results,
        *,
        rule: BucketRule | None = None,
        depth: Depth = "deep",
        batch_size: int = 1,
        counter: TokenCounter = ESTIMATE,
        bounds: Bounds | None = None,
        processes: int | None = None,
        media: Media = "video",
    ) -> None:
        """media: what the files are. Raises DatasetError when there is no such folder, or no such file in it."""
        self.folder, self.rule, self.depth, self.media = folder, rule or BucketRule(), depth, media
        self.paths, self._known_problems = find_clips(folder, media)
        self._results, self._batch_size, self._counter = results, batch_size, counter
        self._bounds, self._processes = bounds, processes

    def over(self, folder: Path) -> Survey:
        """A survey of another folder in the same manner. Raises DatasetError as the first does."""
        return Survey(
            folder,
            self._results,
            rule=self.rule,
            depth=self.depth,
            batch_size=self._batch_size,
            counter=self._counter,
            bounds=self._bounds,
            processes=self._processes,
            media=self.media,
        )

    # -- every clip on its own

    def measure(
        self,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        on_readings: Callable[[list[tuple[int, Reading]]], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Read every clip that is not known yet. on_readings is given the numbers and readings of those just read, in any order.

        Raises Stopped when asked to; what was read until then is kept. Raises StorageError when the disk is full.
        """
        try:
            self._measure(on_progress or (lambda _: None), on_readings or (lambda _: None), should_stop or (lambda: False))
            self._results.commit()
        except sqlite3.Error as error:
            raise StorageError(f"What the scan found cannot be kept: {error}.", fix="Free some space, or set XDG_CACHE_HOME.") from error

    def _measure(
        self,
        on_progress: Callable[[Progress], None],
        on_readings: Callable[[list[tuple[int, Reading]]], None],
        should_stop: Callable[[], bool],
    ) -> None:
        wanted = self._wanted()
        pace = _Pace(total=len(self.paths), done=len(self.paths) - len(wanted), left=sum(max(stamp.size, 0) for _, stamp in wanted))
        on_progress(pace.progress())
        if not wanted:
            return
        try:
            with Children(self._count(len(wanted)), bounds=self._bounds) as children:
                waiting: dict[Future[list[Reading]], list[tuple[int, Stamp]]] = {}
                queue = deque(wanted)
                committed = time.monotonic()
                while queue or waiting:
                    while queue and len(waiting) < 2 * children.count:  # one in work and one ready for each
                        batch = [queue.popleft() for _ in range(min(self._batch(len(wanted), children.count), len(queue)))]
                        waiting[children.read([Path(self.paths[number]) for number, _ in batch], self.depth)] = batch
                    finished, _ = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                    for future in finished:
                        self._keep(waiting.pop(future), future.result(), pace, on_readings)
                    if finished:
                        on_progress(pace.progress())
                    if time.monotonic() - committed > _COMMIT_SECONDS:
                        self._results.commit()
                        committed = time.monotonic()
                    if should_stop():
                        raise Stopped("The scan was stopped; what it has read is kept.")
        finally:
            self._results.commit()

    def _count(self, wanted: int) -> int:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(min(self._processes or min(cores, 16), wanted), 1)

    def _batch(self, wanted: int, processes: int) -> int:
        """Files for a process at once: few enough that all end at about the same time; one by one where each takes long."""
        return 1 if self.depth == "deep" else max(min(_BATCH, wanted // (4 * processes)), 1)

    def _wanted(self) -> list[tuple[int, Stamp]]:
        """The numbers and stamps of the paths to be read."""
        wanted: list[tuple[int, Stamp]] = []
        for begin in range(0, len(self.paths), _LOOK_UP):
            part = self.paths[begin : begin + _LOOK_UP]
            stamps = [Stamp.of(path) for path in part]
            missing = self._results.missing(part, stamps, self.depth)
            wanted.extend((begin + index, stamps[index]) for index in missing if part[index] not in self._known_problems)
        return wanted

    def _keep(
        self,
        batch: list[tuple[int, Stamp]],
        readings: list[Reading],
        pace: _Pace,
        on_readings: Callable[[list[tuple[int, Reading]]], None],
    ) -> None:
        for (_, stamp), reading in zip(batch, readings, strict=True):
            self._results.put(stamp, reading, self.depth)
            pace.read(max(stamp.size, 0))
        on_readings([(number, reading) for (number, _), reading in zip(batch, readings, strict=True)])

    # -- all of them together

    def rows(self, *, together: bool = True) -> Iterator[Row]:
        """Every clip in the order of its path. together: also what is wrong with it beside the others, which takes a first round."""
        beside = self.beside_others() if together else {}
        for number, reading in enumerate(self._results.read(self.paths)):
            row = self.row(number, reading)
            yield replace(row, clip=row.clip.having(*beside[number])) if number in beside else row

    def beside_others(self) -> dict[int, tuple[Problem, ...]]:
        """By number, what is wrong with clips only beside the others: copies, and buckets that cannot fill a batch."""
        found: dict[int, tuple[Problem, ...]] = {}
        if self.depth == "deep":
            found |= {number: (self._copy(number, first),) for number, first in self._copies().items()}
        if self._batch_size > 1:
            numbers: dict[Bucket | SoundBucket, list[int]] = {}
            for row in self.rows(together=False):
                if row.bucket is not None:
                    numbers.setdefault(row.bucket, []).append(row.number)
            for bucket, members in numbers.items():
                if len(members) < self._batch_size:
                    found |= {number: (*found.get(number, ()), self._small(number, bucket, len(members))) for number in members}
        return found

    def is_known(self, number: int) -> bool:
        """Whether a clip's name or folder says already what is wrong with it."""
        return self.paths[number] in self._known_problems

    def row(self, number: int, reading: Reading | None) -> Row:
        """A clip by itself: placed, its captions read, its pictures and sound judged."""
        path = self.paths[number]
        if path in self._known_problems:
            return Row(clip=Clip(path=Path(path), problems=(self._known_problems[path],)), bucket=None, number=number)
        if reading is None:
            text = f"{Path(path).name} was not read yet."
            problem = Problem(code="unreadable", level="error", text=text, fix="Scan the folder again.")
            return Row(clip=Clip(path=Path(path), problems=(problem,)), bucket=None, number=number)
        clip = self._captioned(reading.clip)
        placed = place(clip, self.rule)
        clip, bucket = (placed.clip, placed.bucket) if isinstance(placed, Sample) else (placed, None)
        captions = placed.captions if isinstance(placed, Sample) else self.rule.captions.captions(clip.path, clip.caption)
        found, tokens = judge_captions(clip, captions, frame_rate=self.rule.frame_rate, counter=self._counter)
        if reading.inspection is not None and self.depth == "deep":
            found += judge_inspection(clip, reading.inspection)
        return Row(
            clip=_without_doubles(clip).having(*found),
            bucket=bucket,
            captions=captions,
            tokens=tokens,
            tokens_exact=self._counter.exact,
            number=number,
            inspection=reading.inspection if self.depth == "deep" else None,
        )

    def _captioned(self, clip: Clip) -> Clip:
        if not self.rule.captions.needs_text_file:
            return clip
        text, problems = read_caption(clip.path)
        if not clip.usable:  # a file that is no clip needs no caption
            return replace(clip, caption=text)
        # Its length is judged as trained, by tokens, not as written, by letters.
        return replace(clip, caption=text).having(*(problem for problem in problems if problem.code != "caption_long"))

    def _copies(self) -> dict[int, int]:
        """Each copy with the clip that it is a copy of: the first of its kind that can be trained on."""
        copies: dict[int, int] = {}
        for first, others in group_by_first(find_alike(self._results.looks(self.paths))).items():
            alike = [first, *others]
            best = next((number for number in alike if self._is_usable(number)), first)
            copies |= {number: best for number in alike if number != best}
        return copies

    def _is_usable(self, number: int) -> bool:
        return self.row(number, next(self._results.read([self.paths[number]]))).bucket is not None

    def _copy(self, number: int, first: int) -> Problem:
        name, other = Path(self.paths[number]).name, os.path.relpath(self.paths[first], self.folder)
        text = f"{name} looks like {other} from beginning to end; together they weigh twice."
        return Problem(code="near_duplicate", level="warning", text=text, fix="Keep one of them; `repeats` gives a clip more weight.")

    def _small(self, number: int, bucket: Bucket | SoundBucket, count: int) -> Problem:
        name = Path(self.paths[number]).name
        text = f"{name}: bucket {bucket.label} has {count} of the {self._batch_size} clips that a batch takes."
        fix = "Add clips of this size and length, crop these to another bucket's shape, or lower train_batch_size."
        return Problem(code="small_bucket", level="warning", text=text, fix=fix)


class _Pace:
    """Counts what a survey has done."""

    def __init__(self, *, total: int, done: int, left: int) -> None:
        self._total, self._done, self._known, self._left = total, done, done, left
        self._bytes = 0
        self._begun = time.monotonic()

    def read(self, size: int) -> None:
        self._done += 1
        self._bytes += size
        self._left -= size

    def progress(self) -> Progress:
        return Progress(
            done=self._done,
            total=self._total,
            known=self._known,
            bytes_read=self._bytes,
            bytes_left=max(self._left, 0) if self._done < self._total else 0,
            seconds=time.monotonic() - self._begun,
        )


def _without_doubles(clip: Clip) -> Clip:
    """Without what another problem says better: a low rate is named against the dataset's own rate where there is one."""
    if "low_frame_rate" not in codes(clip.problems):
        return clip
    return replace(clip, problems=tuple(problem for problem in clip.problems if problem.code != "unusual_frame_rate"))
