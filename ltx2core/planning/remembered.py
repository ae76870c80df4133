"""Plans that were made before, so that asking again answers at once: in the user's cache folder, by all that they follow from."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltx2core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MOST = 24
_OWN = Path(__file__).parents[1]  # ltx2core, whose files decide what a plan says


def plans_file(environment: Mapping[str, str] | None = None) -> Path:
    """Where they are kept."""
    variables = os.environ if environment is None else environment
    return Path(variables.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ltx2tui" / "plans.json"


def key_of(files: Iterable[Path], folders: Iterable[Path], others: object) -> str:
    """What a plan follows from: the bytes of settings, what lies in the folders of clips, all else as plain values, and this program."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes() if path.is_file() else b"absent")
    for folder in folders:
        for root, inside, names in os.walk(folder):
            inside.sort()
            digest.update(f"{root} {len(names)} {os.stat(root).st_mtime_ns}".encode())  # noqa: PTH116 - a Path for each folder is slow
    digest.update(json.dumps(others, sort_keys=True, default=str).encode())
    for part in ("planning", "hardware", "config", "models", "validation"):
        for entry in sorted(os.scandir(_OWN / part), key=lambda entry: entry.name):
            if entry.is_file():
                digest.update(f"{entry.name} {entry.stat().st_mtime_ns}".encode())
    return digest.hexdigest()


def remembered(key: str, file: Path) -> Any | None:
    """The plan of a key; None where there is none, or the file cannot be read."""
    return _read(file).get(key)


def remember(key: str, plan: object, file: Path) -> None:
    """Keep it, and the newest others. A place that cannot be written is no reason to fail: the plan was made."""
    from ltx2core.runs.files import write_json

    kept = {name: value for name, value in _read(file).items() if name != key}
    newest = dict(list(kept.items())[-(_MOST - 1) :])
    with contextlib.suppress(StorageError):
        write_json(file, {**newest, key: plan})


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # what is damaged is made anew
        return {}
    return found if isinstance(found, dict) else {}
