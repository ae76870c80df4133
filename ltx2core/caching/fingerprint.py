"""What a cache entry was made of, as a name: equal inputs give an equal name, so an entry is reused exactly when it may be.

Changing a clip, its bucket, the encoder's weights or the code of a pass gives other names, and invalidates nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.data.clip import Crop
from ltx2core.errors import Stopped, StorageError
from ltx2core.runs.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from ltx2core.data.clip import Sample

READERS = 8  # files at a time: one alone is bound by a core, or by the way to a network disk
_CHUNK_BYTES = 1 << 20


def fingerprint(parts: Mapping[str, str | int | float | bool]) -> str:
    """The name that these inputs give: 32 hex digits."""
    return hashlib.sha256(json.dumps(dict(parts), sort_keys=True, ensure_ascii=True).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What a stretch and a crop add to the names of entries: nothing for a clip's first frames, cropped in the middle."""

    time: dict[str, str | int | float | bool]
    place: dict[str, str | int | float | bool]


def cut_of(sample: Sample) -> Cut:
    """What of its file the sample shows."""
    crop = sample.crop
    return Cut(
        time={"start": round(sample.start, 6)} if sample.start else {},
        place={} if crop == Crop() else {"crop": f"{crop.across:.6f} {crop.down:.6f} {crop.zoom:.6f}"},
    )


class Digests:
    """SHA-256 of files' bytes, remembered by path, size and times so that a dataset is read once and not at every start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[str | int]] = _read(path)
        self._changed = False

    def of(self, file: Path) -> str:
        """The digest of a file's bytes. Raises OSError when it cannot be read."""
        status = file.stat()
        stamp: list[str | int] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        key = os.fspath(file.absolute())
        known = self._known.get(key)
        if known is not None and known[1:] == stamp:
            return str(known[0])
        digest = _digest(file)
        self._known[key] = [digest, *stamp]
        self._changed = True
        return digest

    def learn(self, files: Iterable[Path], *, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Read, on several threads, those files that are not known. What cannot be read is left for `of` to raise about.

        Raises Stopped when asked to.
        """

        def read(file: Path) -> None:
            if not should_stop():
                with contextlib.suppress(OSError):
                    self.of(file)

        with ThreadPoolExecutor(READERS) as threads:
            list(threads.map(read, dict.fromkeys(files)))
        if should_stop():
            self.save()
            raise Stopped("Stopped while clips were read; the next start goes on with it.")

    def save(self) -> None:
        """Write what was learned. Two processes may do so: the last wins, which costs the other one reading, never correctness."""
        if self._changed:
            write_json(self._path, self._known)
            self._changed = False


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _read(path: Path) -> dict[str, list[str | int]]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except PermissionError as error:
        raise StorageError(f"{path} cannot be read.", fix="Choose another place with --root, or change its permissions.") from error
    except (OSError, ValueError):
        return {}
    good = isinstance(value, dict) and all(isinstance(entry, list) and len(entry) == 5 for entry in value.values())
    return value if good else {}
