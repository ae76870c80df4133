"""A combined LTX-2 checkpoint: one safetensors file that holds the transformer, the text connectors, both VAEs and the vocoder.

This file owns finding it, reading its header and handing out tensors by component; components.py builds the modules.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltx2core.errors import CheckpointError
from ltx2core.models.names import COMPONENTS, Component, component_of, to_diffusers, version_by_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

DEFAULT_FILENAME = "ltx-2-19b-dev.safetensors"
_MAX_HEADER_BYTES = 100 * 1024 * 1024  # what the safetensors format itself allows


@dataclass(frozen=True, slots=True)
class _Entry:
    dtype: str
    shape: tuple[int, ...]
    start: int  # offsets in the file
    end: int


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint: its header only. Tensors are read when a component is built."""

    path: Path
    metadata: dict[str, str]
    entries: dict[str, _Entry]

    @cached_property
    def config(self) -> dict[str, Any]:
        """The header's `config`: sections transformer, vae, audio_vae, vocoder, scheduler."""
        try:
            value = json.loads(self.metadata["config"])
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"{self.path} has no readable `config` in its header, so it is not a combined LTX-2 checkpoint.",
                fix=f"Use the published file, {DEFAULT_FILENAME}.",
            ) from error
        assert isinstance(value, dict)
        return value

    @property
    def version(self) -> str:
        """The model version, like "2.3.0": what the header says, else what the tensors tell."""
        return self.metadata.get("model_version") or version_by_keys(self.entries)

    def keys(self, component: Component) -> list[str]:
        """The official keys of a component, in file order."""
        return [key for key in self.entries if component_of(key) == component]

    def has(self, component: Component) -> bool:
        return any(component_of(key) == component for key in self.entries)

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of a tensor. Raises CheckpointError when the file does not hold it."""
        if key not in self.entries:
            raise CheckpointError(f"{self.path} does not hold the tensor {key}.", fix="Download the file again, or use another checkpoint.")
        return self.entries[key].shape

    def tensors(self, component: Component, *, wanted: Callable[[str], bool] = lambda _: True) -> Iterator[tuple[str, torch.Tensor]]:
        """(diffusers name, tensor) of a component, in file order, one at a time; a name that is not wanted is never read."""
        from safetensors import safe_open

        num_encoder_blocks = len(self.config["vae"]["encoder_blocks"]) if component == "video_vae" else 0
        with safe_open(self.path, framework="pt") as file:
            for key in self.keys(component):
                name = to_diffusers(key, component, num_encoder_blocks=num_encoder_blocks)
                if name is not None and wanted(name):
                    yield name, file.get_tensor(key)

    def fingerprint(self, component: Component) -> str:
        """Changes when the component's weights or sizes do: 16 hex digits.

        Reading 43 GB to hash it would cost minutes, so this hashes every tensor's name, type and shape and the first 512 bytes of
        its data: training or converting a model touches every tensor.
        """
        digest = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode())
        with self.path.open("rb") as file:
            for key in sorted(self.keys(component)):
                entry = self.entries[key]
                file.seek(entry.start)
                digest.update(f"{key} {entry.dtype} {entry.shape}".encode() + file.read(min(512, entry.end - entry.start)))
        return digest.hexdigest()[:16]


def open_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint's header. Raises CheckpointError for a file that is missing, cut short, or of another kind or version."""
    metadata, entries = read_header(path)
    checkpoint = Checkpoint(path=path, metadata=metadata, entries=entries)
    missing = [component for component in COMPONENTS if not checkpoint.has(component)]
    if missing:
        raise CheckpointError(
            f"{path} holds no {', '.join(name.replace('_', ' ') for name in missing)}: it is not a combined LTX-2 checkpoint.",
            fix=f"Use the published combined file, {DEFAULT_FILENAME}.",
        )
    if not checkpoint.version.startswith("2."):
        raise CheckpointError(
            f"{path} is LTX version {checkpoint.version}; this release trains LTX-2, versions 2.0 to 2.5.", fix=f"Use {DEFAULT_FILENAME}."
        )
    return checkpoint


def find_checkpoint(name: str, *, filename: str | None, base: Path) -> Path:
    """The file that `pretrained_model_name_or_path` means: "nano", a .safetensors file, a folder that holds `filename`,
    or a hub name from which `filename` was downloaded before.

    Raises CheckpointError that says where it looked and what to put there.
    """
    if name == "nano":
        from ltx2core.models.nano import nano_checkpoint

        return nano_checkpoint()
    path = Path(name).expanduser()
    path = path if path.is_absolute() else base / path
    if path.is_file():
        return path
    if path.is_dir():
        wanted = path / (filename or DEFAULT_FILENAME)
        if wanted.is_file():
            return wanted
        found = sorted(item.name for item in path.glob("*.safetensors"))
        hint = f"Set ltx2_checkpoint_filename to one of: {', '.join(found[:5])}." if found else "Put the combined .safetensors file there."
        raise CheckpointError(f"{path} holds no {wanted.name}.", fix=hint)
    if (downloaded := _in_hub_cache(name, filename or DEFAULT_FILENAME)) is not None:
        return downloaded
    raise CheckpointError(
        f"pretrained_model_name_or_path = {name!r} is no file or folder here.",
        fix=f'Download {filename or DEFAULT_FILENAME} and give its path, or use "nano", the embedded miniature.',
    )


def _in_hub_cache(name: str, filename: str) -> Path | None:
    """The file in the hub's cache on this machine; None when it is not there. Asks nobody."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, filename)
    except HFValidationError:  # not a hub name
        return None
    return Path(found) if isinstance(found, str) else None


def read_header(path: Path) -> tuple[dict[str, str], dict[str, _Entry]]:
    """Metadata and tensor entries of a safetensors file. Raises CheckpointError when it is missing, of another format, or cut short."""
    damaged = CheckpointError(f"{path} is not a readable safetensors file.", fix="Download it again and compare its checksum.")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
                raise damaged
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        entries = {
            key: _Entry(value["dtype"], tuple(value["shape"]), 8 + length + value["data_offsets"][0], 8 + length + value["data_offsets"][1])
            for key, value in header.items()
        }
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist.", fix="Check the path.") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.", fix="Check the file and its permissions.") from error
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise damaged from error
    expected = max((entry.end for entry in entries.values()), default=8 + length)
    if size < expected:
        raise CheckpointError(f"{path} is cut short: {size:,} of {expected:,} bytes.", fix="Download it again.")
    return metadata, dict(sorted(entries.items(), key=lambda item: item[1].start))
