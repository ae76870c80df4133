"""Where cached tensors lie: cache/<kind>/<aa>/<fingerprint>.safetensors. Shared by runs, and by processes at the same time.

An entry is written whole or not at all and never changed; two processes that make the same one write the same bytes. An entry
that cannot be read counts as absent and is made again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ltx2core.caching.tensors import digest, read_metadata, read_tensors, write_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

Kind = Literal["video", "audio", "text", "mask", "features"]
KINDS: tuple[Kind, ...] = ("video", "audio", "text", "mask", "features")


@dataclass(frozen=True, slots=True)
class Store:
    """The cache under one folder. Nothing is created until something is saved."""

    root: Path

    def path(self, kind: Kind, name: str) -> Path:
        return self.root / kind / name[:2] / f"{name}.safetensors"

    def state(self, kind: Kind, name: str) -> Literal["whole", "absent", "damaged"]:
        """Whether an entry can be used: its header is read and compared with the file's length."""
        path = self.path(kind, name)
        if read_metadata(path) is not None:
            return "whole"
        return "damaged" if path.exists() else "absent"

    def load(self, kind: Kind, name: str) -> dict[str, Tensor] | None:
        """An entry's tensors; None when it is absent or damaged."""
        return read_tensors(self.path(kind, name))

    def save(self, kind: Kind, name: str, tensors: Mapping[str, Tensor], *, source: str) -> None:
        """Write an entry, with the digest of its values. Raises StorageError when it cannot be written."""
        write_tensors(self.path(kind, name), tensors, metadata={"source": source, "sha256": digest(tensors)})

    def entries(self) -> Iterator[tuple[Kind, Path]]:
        """Every entry on disk."""
        for kind in KINDS:
            for path in sorted((self.root / kind).glob("??/*.safetensors")):
                if not path.name.startswith("."):
                    yield kind, path

    def names(self) -> set[str]:
        """The names of all entries on disk."""
        return {path.stem for _, path in self.entries()}
