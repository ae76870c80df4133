"""A whole folder mended: a new folder that holds every clip that can be trained on, mended where that was needed, with its caption.

Clips without a fault are linked (or copied, on another disk), so that the new folder can be trained on by itself. The old folder is
only read. `mended.json` in the new one remembers what was made of what, so that mending again does only what is not done yet.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ltx2core.data.children import Children
from ltx2core.data.repair.plan import Repair, plan_repair
from ltx2core.data.results import Stamp, code_of
from ltx2core.errors import DatasetError, Stopped
from ltx2core.runs.files import replacing, storage_error, write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from ltx2core.data.children import Bounds, Mended
    from ltx2core.data.survey import Row, Survey

NOTES = "mended.json"
_CODE = ("repair/plan.py", "repair/mend.py", "repair/tone.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a clip. Without outputs it is not in the new folder, and `left_out` says why."""

    path: Path
    outputs: tuple[Path, ...] = ()
    did: tuple[str, ...] = ()  # empty where the clip is taken over as it is
    left: tuple[str, ...] = ()  # codes of warnings that nothing could be done about
    left_out: str = ""

    def to_json(self) -> dict[str, object]:
        """For scripts: paths as text, and lists."""
        return {
            "path": os.fsencode(self.path).decode(errors="replace"),
            "outputs": [os.fsencode(output).decode(errors="replace") for output in self.outputs],
            "did": list(self.did),
            "left": list(self.left),
            "left_out": self.left_out,
        }

    def line(self) -> str:
        """One line for a person."""
        if not self.outputs:
            return f"{self.path.name}: left out. {self.left_out}"
        names = ", ".join(output.name for output in self.outputs)
        did = "; ".join(self.did) or "as it was"
        left = f" Stays: {', '.join(code.replace('_', ' ') for code in self.left)}." if self.left else ""
        return f"{self.path.name}: {did}.{left}" + ("" if names == self.path.name else f" -> {names}")


def mended_folder(folder: Path) -> Path:
    """Where the mended copy of a folder is put when nothing else is asked for: beside it."""
    return folder.absolute().with_name(f"{folder.absolute().name}-fixed")


def mend_folder(
    survey: Survey, out: Path, *, should_stop: Callable[[], bool] | None = None, bounds: Bounds | None = None, processes: int | None = None
) -> Iterator[Outcome]:
    """Make the mended copy of a surveyed folder in `out`; what became of each clip, in their order, as it is done.

    Raises DatasetError when `out` holds something else, StorageError when it cannot be written, Stopped when asked to.
    """
    if out.resolve().is_relative_to(survey.folder.resolve()):
        raise DatasetError(f"{out} is inside {survey.folder}, and would be scanned with it.", fix="Give a folder outside with --out.")
    notes = _Notes(out)
    names = _Names(survey.paths, survey.folder, out)
    waiting: deque[_Job] = deque()
    with Children(processes, bounds=bounds) as children:
        rows = survey.rows()
        try:
            while True:
                while len(waiting) < 2 * children.count and (row := next(rows, None)) is not None:
                    waiting.append(_begin(row, survey, names, notes, children))
                if not waiting:
                    return
                if should_stop is not None and should_stop():
                    raise Stopped("Mending was stopped; what is done stays.")
                yield _finish(waiting.popleft(), notes)
        finally:
            notes.write()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    row: Row
    repair: Repair
    targets: list[Path]
    stamp: Stamp
    mending: Future[Mended] | None = None


def _begin(row: Row, survey: Survey, names: _Names, notes: _Notes, children: Children) -> _Job:
    repair = plan_repair(row, survey.rule)
    path = row.clip.path
    targets = [] if repair.left_out else names.targets(path, repair)
    job = _Job(row=row, repair=repair, targets=targets, stamp=Stamp.of(os.fspath(path)))
    if not targets or not _changes_file(repair) or notes.has(job):
        return job
    return replace(job, mending=children.mend(path, repair, targets))


def _changes_file(repair: Repair) -> bool:
    return repair.encode or repair.sound == "drop"


def _finish(job: _Job, notes: _Notes) -> Outcome:
    path, repair = job.row.clip.path, job.repair
    if not job.targets:
        return Outcome(path=path, left_out=repair.left_out)
    if job.mending is not None:
        mended = job.mending.result()
        if mended.trouble:
            return Outcome(path=path, left_out=f"It could not be mended: {mended.trouble}")
    elif not _changes_file(repair):
        _take_over(path, job.targets[0])
    for target in job.targets:
        _caption(path, target, repair)
    notes.remember(job)
    return Outcome(path=path, outputs=tuple(job.targets), did=repair.steps, left=repair.left)


def _take_over(path: Path, target: Path) -> None:
    """The same file in the new folder: a link where the disk allows it, else a copy."""
    with replacing(target) as temporary:
        temporary.unlink(missing_ok=True)  # left by a crash it may be a link to an original, which copying would write into
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)


def _caption(path: Path, target: Path, repair: Repair) -> None:
    """The caption file of the clip beside its copy. Copied, not linked: it is there to be edited."""
    source, copy = path.with_suffix(".txt"), target.with_suffix(".txt")
    if repair.caption_text is not None:
        write_text(copy, repair.caption_text + "\n")
    elif source.is_file():
        with replacing(copy) as temporary:
            try:
                shutil.copyfile(source, temporary)
            except PermissionError as error:
                raise storage_error(source, error) from error


class _Names:
    """Gives every output a name of its own below the new folder, in the subfolder that its clip had."""

    def __init__(self, paths: list[str], folder: Path, out: Path) -> None:
        self._folder, self._out = folder, out
        self._taken: set[str] = set()  # without their endings: captions must not meet either
        self._originals = {os.path.splitext(path)[0] for path in paths}  # noqa: PTH122 - a Path for every file of a large folder is slow

    def targets(self, path: Path, repair: Repair) -> list[Path]:
        place = self._out / path.relative_to(self._folder).parent
        suffix = ".mp4" if _changes_file(repair) else path.suffix
        if len(repair.segments) == 1:
            return [place / (self._own(place, path, path.stem) + suffix)]
        return [place / (self._own(place, path, f"{path.stem}-part{number}") + suffix) for number in range(1, len(repair.segments) + 1)]

    def _own(self, place: Path, path: Path, stem: str) -> str:
        wanted, number = stem, 2
        while os.fspath(place / wanted) in self._taken or (wanted != path.stem and os.fspath(path.with_name(wanted)) in self._originals):
            wanted, number = f"{stem}-{number}", number + 1
        self._taken.add(os.fspath(place / wanted))
        return wanted


class _Notes:
    """mended.json: of each file of the old folder its stamp, and a fingerprint of what was done to it."""

    def __init__(self, out: Path) -> None:
        self._file = out / NOTES
        self._held: dict[str, list[Any]] = {}
        if self._file.is_file():
            try:
                self._held = dict(json.loads(self._file.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError):
                self._held = {}  # everything is mended anew
        elif out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DatasetError(f"{out} holds something else already.", fix="Give another folder with --out, or remove it.")

    def has(self, job: _Job) -> bool:
        return self._held.get(self._key(job)) == self._value(job) and all(target.is_file() for target in job.targets)

    def remember(self, job: _Job) -> None:
        self._held[self._key(job)] = self._value(job)

    def write(self) -> None:
        write_json(self._file, self._held)

    def _key(self, job: _Job) -> str:
        return os.fsencode(job.row.clip.path).decode(errors="backslashreplace")

    def _value(self, job: _Job) -> list[Any]:
        done = json.loads(json.dumps(job.repair.to_json()))
        return [job.stamp.size, job.stamp.mtime_ns, code_of(_CODE), done, [target.name for target in job.targets]]
