"""What scans have found out, kept in one SQLite file, so that a second scan is instant and an interrupted one goes on.

A result belongs to a path, a size, a time of change in nanoseconds, and the code that found it: when any of them is another, the file
is read again. Several programs may use the file at once. It holds nothing that cannot be found again; a damaged one is set aside.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltx2core.data.children import Reading
from ltx2core.data.look import Look
from ltx2core.data.records import clip_from_json, clip_to_json, inspection_from_json, inspection_to_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ltx2core.data.children import Depth
    from ltx2core.data.inspection import Inspection

_TABLE = """
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    clip_code TEXT NOT NULL, clip TEXT NOT NULL,
    inspection_code TEXT, inspection TEXT, hashes BLOB, thumbs BLOB
) WITHOUT ROWID
"""
_FORMAT = 1  # of the table; another one is set aside
_ROWS = 500  # asked for at once
# Every module whose change may change what is found. Verdicts are not among them: they are drawn from what is kept, each time.
_CLIP_CODE = ("probe_file.py", "probe.py", "stills.py", "sound_files.py", "media.py", "structure.py", "clip.py", "records.py")
_INSPECTION_CODE = ("inspection.py", "look.py", "loudness.py")


@dataclass(frozen=True, slots=True)
class Stamp:
    """The state of a file by which it is known again."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: str) -> Stamp:
        """The stamp of the file at `path`; of one that is not there, one that nothing kept has."""
        try:
            found = os.stat(path)  # noqa: PTH116 - a Path for every file of a large folder is slow
        except OSError:
            return cls(-1, -1)
        return cls(found.st_size, found.st_mtime_ns)


def default_results_file(root: Path | None) -> Path:
    """Where results are kept: in the cache folder of a root that was asked for, else in the user's own cache folder."""
    if root is not None:
        return root / "cache" / "scan.sqlite3"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ltx2tui" / "scan.sqlite3"


class Results:
    """The kept results. Use it in a `with`, from one thread. file: None keeps them in a temporary one, for this use only.

    file: where they are; another thread may open it too. trouble: why they are not kept, where the file cannot be used; else empty.
    """

    def __init__(self, file: Path | None) -> None:
        self.trouble = ""
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._database = self._open(file)
        self._codes = {"header": code_of(_CLIP_CODE), "deep": code_of(_INSPECTION_CODE)}

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._database.commit()
        self._database.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    @property
    def is_temporary(self) -> bool:
        """Whether the file goes when this is closed."""
        return self._temporary is not None

    def missing(self, paths: Sequence[str], stamps: Sequence[Stamp], depth: Depth) -> list[int]:
        """The indices of the paths that have to be read, to this depth."""
        held: dict[bytes, tuple[int, int, str, str | None]] = {}
        for row in self._select("path, size, mtime_ns, clip_code, inspection_code", paths):
            held[bytes(row[0])] = row[1:]
        return [
            index
            for index, (path, stamp) in enumerate(zip(paths, stamps, strict=True))
            if not self._current(held.get(os.fsencode(path)), stamp, depth)
        ]

    def _current(self, row: tuple[int, int, str, str | None] | None, stamp: Stamp, depth: Depth) -> bool:
        if row is None or row[:2] != (stamp.size, stamp.mtime_ns) or row[2] != self._codes["header"]:
            return False
        return depth == "header" or row[3] == self._codes["deep"]

    def put(self, stamp: Stamp, reading: Reading, depth: Depth) -> None:
        """Keep a result. One that will not do the next time is held for this scan, and read again by the next."""
        found, look = reading.inspection, reading.inspection.look if reading.inspection is not None else None
        value = None
        if found is not None:
            value = inspection_to_json(found)
            value["look"] = None  # in columns of its own, so that looks are read without the rest
        self._database.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                os.fsencode(reading.clip.path),
                stamp.size,
                stamp.mtime_ns,
                self._codes["header"] if reading.kept else "",
                json.dumps(clip_to_json(reading.clip)),
                self._codes["deep"] if depth == "deep" and reading.kept else "",
                json.dumps(value) if value is not None else None,
                look.hashes if look is not None else None,
                look.thumbs if look is not None else None,
            ),
        )

    def commit(self) -> None:
        self._database.commit()

    def read(self, paths: Sequence[str]) -> Iterator[Reading | None]:
        """What is held of each path, in order, whatever its stamp; None where nothing is."""
        for begin in range(0, len(paths), _ROWS):
            part = paths[begin : begin + _ROWS]
            held = {bytes(row[0]): (row[1], row[2]) for row in self._select("path, clip, inspection", part)}
            for path in part:
                row = held.get(os.fsencode(path))
                yield None if row is None else self._reading(path, *row)

    def _reading(self, path: str, clip: str, inspection: str | None) -> Reading:
        found: Inspection | None = inspection_from_json(json.loads(inspection)) if inspection is not None else None
        return Reading(clip=clip_from_json(Path(path), json.loads(clip)), inspection=found)

    def looks(self, paths: Sequence[str]) -> Iterator[tuple[int, Look]]:
        """The look of each path that has one, with its index, in order."""
        for begin in range(0, len(paths), _ROWS):
            part = paths[begin : begin + _ROWS]
            held = {bytes(row[0]): (row[1], row[2]) for row in self._select("path, hashes, thumbs", part) if row[1] is not None}
            for index, path in enumerate(part, start=begin):
                if (row := held.get(os.fsencode(path))) is not None:
                    yield index, Look(bytes(row[0]), bytes(row[1]))

    def _select(self, columns: str, paths: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        for begin in range(0, len(paths), _ROWS):
            part = [os.fsencode(path) for path in paths[begin : begin + _ROWS]]
            marks = ",".join("?" * len(part))
            yield from self._database.execute(f"SELECT {columns} FROM files WHERE path IN ({marks})", part)

    def _open(self, file: Path | None) -> sqlite3.Connection:
        if file is not None:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                self.file = file
                try:
                    return _connect(str(file))
                except sqlite3.DatabaseError as error:
                    if isinstance(error, sqlite3.OperationalError):
                        raise
                    os.replace(file, file.with_name(f"{file.name}.damaged"))  # noqa: PTH105 - what was there before is replaced too
                    for rest in ("-wal", "-shm"):
                        file.with_name(file.name + rest).unlink(missing_ok=True)
                    self.trouble = f"{file} was damaged; it is set aside and every clip is read again."
                    return _connect(str(file))
            except (OSError, sqlite3.Error) as error:
                self.trouble = f"Results cannot be kept in {file} ({error}); the next scan starts anew."
        self._temporary = tempfile.TemporaryDirectory(prefix="ltx2tui-scan-", ignore_cleanup_errors=True)
        self.file = Path(self._temporary.name) / "scan.sqlite3"
        return _connect(str(self.file))


def _connect(name: str) -> sqlite3.Connection:
    """An opened table of the present format. Raises sqlite3.DatabaseError for a file that is none, or has another format."""
    database = sqlite3.connect(name, timeout=30.0, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")  # after a power cut the last seconds may be lost, the file stays whole
        (found,) = database.execute("PRAGMA user_version").fetchone()
        if found not in (0, _FORMAT):
            raise sqlite3.DatabaseError(f"format {found}")
        database.execute(_TABLE)
        database.execute(f"PRAGMA user_version = {_FORMAT}")
        database.commit()
    except BaseException:
        database.close()
        raise
    return database


@cache
def code_of(modules: tuple[str, ...]) -> str:
    """A fingerprint of modules of this folder and of the decoders under them, so that no result outlives what found it."""
    digest = hashlib.sha256()
    for name in modules:
        digest.update((Path(__file__).parent / name).read_bytes())
    for package in ("av", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            digest.update(f"{package} {version(package)}".encode())
    return digest.hexdigest()[:16]
