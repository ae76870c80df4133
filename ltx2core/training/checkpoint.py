"""Checkpoints of a run: complete or absent. checkpoints/step-000500/{adapter,optimizer}.safetensors + state.json.

A checkpoint is built in a hidden folder and renamed when all of it is on disk; state.json, written last, holds the digests of the
other two, so one that was damaged afterwards is passed over for the one before. No pickle is read or written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ltx2core.caching.tensors import read_tensors, write_tensors
from ltx2core.errors import RunError, StorageError
from ltx2core.runs.files import storage_error, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

_FOLDER = re.compile(r"step-(\d{6,})")
_FILES = ("adapter", "optimizer")
# Of state.json: 2 added identity.init, and averages among the optimizer's tensors; 3 identity.optimizer and .kind. All are read.
_VERSION = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What must be the same for a run to go on from a checkpoint."""

    base: str  # fingerprint of the transformer
    rank: int
    alpha: float
    targets: str  # fingerprint of the layers' names
    seed: int
    data: str = ""  # fingerprint of clips, captions and batches: the one thing that may change, which is told
    optimizer: str = "adamw"  # its rule
    kind: str = ""  # of the adapter, where it is not the plain one
    init: str = ""  # fingerprint of the LoRA file that the run began with; a resumed run keeps it and needs the file no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A whole checkpoint on disk."""

    step: int
    folder: Path
    identity: Identity

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The adapter's and the optimizer's tensors."""
        adapter, optimizer = (read_tensors(self.folder / f"{name}.safetensors") for name in _FILES)
        if adapter is None or optimizer is None:
            raise RunError(f"{self.folder} cannot be read.", fix="Remove that folder; the run then goes on from the checkpoint before.")
        return adapter, optimizer


def save_checkpoint(parent: Path, *, step: int, identity: Identity, adapter: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> Path:
    """Write a checkpoint and return its folder. Raises StorageError, leaving the older ones as they were, when there is no room."""
    folder = parent / f"step-{step:06d}"
    building = parent / f".step-{step:06d}.{os.getpid()}.tmp"
    try:
        building.mkdir(parents=True, exist_ok=True)
        for name, tensors in zip(_FILES, (adapter, optimizer), strict=True):
            write_tensors(building / f"{name}.safetensors", tensors)
        digests = {name: _digest(building / f"{name}.safetensors") for name in _FILES}
        write_json(building / "state.json", {"version": _VERSION, "step": step, "identity": asdict(identity), "sha256": digests})
        if folder.exists():  # of an earlier session: the same step of the same run
            shutil.rmtree(folder)
        building.rename(folder)
    except OSError as error:
        raise storage_error(folder, error) from error
    except StorageError as error:
        raise StorageError(error.text.replace(building.name, folder.name), fix=error.fix) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def latest_complete(parent: Path) -> tuple[Saved | None, list[Path]]:
    """The newest whole checkpoint, and the newer ones that were passed over because they are damaged.

    Raises RunError for one that a newer program wrote: going on from the one before would throw its steps away.
    """
    damaged: list[Path] = []
    for folder in sorted(_folders(parent), key=_step_of, reverse=True):
        saved = _open(folder)
        if saved is not None:
            return saved, damaged
        damaged.append(folder)
    return None, damaged


def open_step(parent: Path, step: int) -> Saved | None:
    """The checkpoint of one step; None when it is not there or not whole."""
    return _open(parent / f"step-{step:06d}")


def keep_newest(parent: Path, total: int, *, besides: int | None = None) -> None:
    """Remove the oldest checkpoints beyond `total` (0: keep all), but not that of the step `besides`, and what killed processes left
    half-built."""
    for leftover in parent.glob(".step-*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    folders = sorted((folder for folder in _folders(parent) if _step_of(folder) != besides), key=_step_of)
    for folder in folders[: max(0, len(folders) - total) if total else 0]:
        hidden = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")  # a rename first: never half a checkpoint under its real name
        with contextlib.suppress(OSError):
            folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def _open(folder: Path) -> Saved | None:
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if (version := int(state["version"])) > _VERSION:
            raise RunError(
                f"{folder} was written by a newer ltx2tui: its version is {version}, this one reads up to {_VERSION}.",
                fix="Update ltx2tui, or move that folder away to go on from the checkpoint before.",
            )
        if any(_digest(folder / f"{name}.safetensors") != state["sha256"][name] for name in _FILES):
            return None
        return Saved(step=int(state["step"]), folder=folder, identity=Identity(**state["identity"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.glob("step-*") if _FOLDER.fullmatch(path.name)]


def _step_of(folder: Path) -> int:
    match = _FOLDER.fullmatch(folder.name)
    return int(match[1]) if match else -1


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
