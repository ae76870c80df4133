"""Where rounded weights are kept between runs: beside the checkpoint, else below the cache. Decides, and says what it did.

A file is never trusted because it is there: what does not fit is made again. Nothing here can stop a run: without room, or without a
place that can be written, weights are rounded anew each time. Processes that start together write one file: the first of them does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.caching.room import say
from ltx2core.caching.sharing import claim
from ltx2core.errors import StorageError
from ltx2core.models.nano import nano_checkpoint
from ltx2core.models.quantised import STORED
from ltx2core.models.rounded_file import Made, Opened, RoundedWriter, Unfit, describe_rounded, open_rounded, read_rounded, scale_numbers
from ltx2core.runs.events import Notice
from ltx2core.runs.files import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    import torch

    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.models.quantised import Storage
    from ltx2core.offload.layout import BlockWeights
    from ltx2core.runs.events import Event

SUFFIX = ".rounded"  # not .safetensors: who looks for checkpoints in a folder must not find these
SPARE_BYTES = 10**9  # of the disk, for the run's own files
LEFTOVER_SECONDS = 3600  # a file that is still being written is younger
_WORTH = 0.75  # of the source's bytes: a file that is hardly smaller gains nothing

Matrices = dict[str, tuple["BlockWeights", str]]  # by name in the model: the block, and the name in it


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundedStore:
    """folder: below the cache, for checkpoints whose own folder cannot be written."""

    folder: Path
    emit: Callable[[Event], None]

    def load(
        self,
        checkpoint: Checkpoint,
        storage: Storage,
        matrices: Matrices,
        *,
        device: torch.device,
        make: Callable[[RoundedWriter | None], None],
        write: bool = True,
    ) -> bool:
        """Fill the matrices: from a file, or by `make`, which is given who writes them down. Whether they came from a file.

        write: whether this process may write one; False for those that share blocks which another of them fills.
        """
        shapes = {name: block.layout.shape_of(inner) for name, (block, inner) in matrices.items()}
        needed_bytes = _stored_bytes(shapes, storage)
        if needed_bytes > _WORTH * _source_bytes(checkpoint, matrices):
            make(None)
            return False
        made = Made(source=checkpoint.fingerprint("transformer"), storage=storage)
        places = [place_beside(checkpoint, storage), self.folder / f"{made.source}.{storage}{SUFFIX}"]
        for path in places:
            if self._read(path, made, shapes, matrices, device):
                return True
        with contextlib.ExitStack() as held:
            target = self._target(places, needed_bytes) if write else None
            if target is not None and not claim(self.folder, held, name=f".{made.source}.{storage}.working"):
                text = "Another process is writing the rounded weights down now; this one rounds them for itself."
                self.emit(Notice(code="weights_not_kept", text=text))
                target = None
            if target is None:
                make(None)
            else:
                self._write(target, made, shapes, str(checkpoint.path), make)
        return False

    def _read(self, path: Path, made: Made, shapes: Mapping[str, tuple[int, int]], matrices: Matrices, device: torch.device) -> bool:
        try:
            opened: Opened | None = open_rounded(path, made, shapes)
            if opened is None:
                return False
            read_rounded(opened, matrices, device=device)
        except Unfit as unfit:
            text = f"{path} {unfit}: it is not used, and made again from the checkpoint."
            self.emit(Notice(code="weights_unfit", level="warning", text=text))
            return False
        self.emit(Notice(code="weights_read", text=f"Rounded weights come from {path} ({say(path.stat().st_size)})."))
        return True

    def _target(self, places: list[Path], needed_bytes: int) -> Path | None:
        """The first place that can be written and has room; a Notice where there is none."""
        reasons = []
        for path in places:
            if (reason := _against(path, needed_bytes)) is None:
                return path
            reasons.append(reason)
        text = f"Rounded weights are not kept for the next run: {'; '.join(reasons)}."
        fix = f"Free {say(needed_bytes + SPARE_BYTES)} in one of them, or set keep_rounded_weights to false."
        self.emit(Notice(code="weights_not_kept", level="warning", text=text, fix=fix))
        return None

    def _write(self, path: Path, made: Made, shapes: Mapping[str, object], note: str, make: Callable[[RoundedWriter | None], None]) -> None:
        """Make the weights while a file of them is written. A file that cannot be completed is dropped, with a Notice."""
        done = False
        try:
            for left in leftovers(path):
                left.unlink(missing_ok=True)
            with replacing(path) as temporary:
                writer = RoundedWriter(temporary, made, names=list(shapes), note=note)
                with contextlib.closing(writer):
                    make(writer)
                    done = True
                    writer.finish()
        except (StorageError, OSError) as error:
            if not done:
                make(None)
            text = error.text if isinstance(error, StorageError) else f"{path} cannot be written: {error.strerror}."
            self.emit(Notice(code="weights_not_kept", level="warning", text=f"Rounded weights are not kept for the next run: {text}"))
            return
        text = f"Rounded weights were written to {path} ({say(path.stat().st_size)}): the next run reads them from there."
        self.emit(Notice(code="weights_kept", text=text))


def place_beside(checkpoint: Checkpoint, storage: Storage) -> Path:
    """The file of a checkpoint that lies beside it: in its folder, or in itself where it is one."""
    path = checkpoint.path
    return path / f"transformer.{storage}{SUFFIX}" if path.is_dir() else path.with_name(f"{path.stem}.{storage}{SUFFIX}")


def rounded_files(folder: Path, checkpoint: Checkpoint | None = None) -> Iterator[Path]:
    """Every file of rounded weights below a cache, and beside a checkpoint."""
    if checkpoint is not None:
        yield from (path for storage in STORED if (path := place_beside(checkpoint, storage)).is_file())
    yield from (path for path in sorted(folder.glob(f"*{SUFFIX}")) if not path.name.startswith("."))


def unneeded_files(folder: Path, checkpoint: Checkpoint | None, keep: Collection[Storage]) -> list[Path]:
    """Files that nobody reads: not whole, of a storage not in `keep`, made from a file that the checkpoint was before, or left over."""
    source = None if checkpoint is None else checkpoint.fingerprint("transformer")
    found = []
    for path in rounded_files(folder, checkpoint):
        made = describe_rounded(path)
        if made is None or made.storage not in keep or (path.parent != folder and made.source != source):
            found.append(path)
    halves = [left for storage in STORED if checkpoint is not None for left in leftovers(place_beside(checkpoint, storage))]
    return [*found, *halves, *_old(folder.glob(f".*.tmp{SUFFIX}"))]


def leftovers(path: Path) -> list[Path]:
    """What processes that were killed while they wrote this file left behind."""
    return _old(path.parent.glob(f".{path.stem}.*.tmp{path.suffix}"))


def _old(paths: Iterable[Path]) -> list[Path]:
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - LEFTOVER_SECONDS:
                found.append(path)
    return found


def _against(path: Path, needed_bytes: int) -> str | None:
    """Why a file cannot lie there; None when it can."""
    if path.parent == nano_checkpoint().parent:
        return f"{path.parent} belongs to the program"
    place = path.parent
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        return f"{path.parent} cannot be written"
    free_bytes = shutil.disk_usage(place).free
    if free_bytes < needed_bytes + SPARE_BYTES:
        return f"{path.parent} has {say(free_bytes)} free, and they take {say(needed_bytes)}"
    return None


def _stored_bytes(shapes: Mapping[str, tuple[int, int]], storage: Storage) -> int:
    """Of the file, at most, but for its header of about a megabyte."""
    numbers = sum(rows * columns for rows, columns in shapes.values())
    return numbers // (2 if storage == "nf4" else 1) + 4 * sum(scale_numbers(shape, storage) for shape in shapes.values())


def _source_bytes(checkpoint: Checkpoint, matrices: Matrices) -> int:
    entries = {name: checkpoint.entries[key] for key, name in checkpoint.names("transformer").items()}
    return sum(entries[name].end - entries[name].start for name in matrices if name in entries)
