"""Which files a model's name means: a file, a folder, or a repository on the hub (hub.py fetches that).

The same choice is made among the files of a folder, of the hub's cache and of a repository: the combined file, else the pack of 2.5,
else the folders of diffusers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ltx2core.errors import CheckpointError
from ltx2core.models.pack import PARTS, TRANSFORMER, files_below, parts_in, transformer_in

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

DEFAULT_FILENAME = "ltx-2-19b-dev.safetensors"
_COMBINED = (DEFAULT_FILENAME, "ltx-2.3-22b-dev.safetensors")
_PLAIN = re.compile(r"(diffusion_pytorch_)?model(-\d+-of-\d+)?\.safetensors")
DIFFUSERS_FOLDERS = ("transformer", "connectors", "vae", "audio_vae", "vocoder")


@dataclass(frozen=True, slots=True)
class Choice:
    """The files that are one checkpoint. main: the one that is opened; empty for a diffusers folder. absent: what the pack lacks."""

    main: str
    files: tuple[str, ...]
    absent: tuple[str, ...] = ()


def find_checkpoint(
    name: str,
    *,
    filename: str | None,
    base: Path,
    revision: str | None = None,
    key: str = "pretrained_model_name_or_path",
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """What `pretrained_model_name_or_path` means, for open_checkpoint: "nano", a .safetensors file, a folder, or a hub repository,
    which is downloaded when it is not in the hub's cache.

    filename: the file to take from a folder or a repository. revision: of the repository. key: the setting or option that gave the name.
    tell: is given sentences about a download.
    Raises CheckpointError that says where it looked and what to put there, StorageError when the disk has no room.
    """
    if name == "nano":
        from ltx2core.models.nano import nano_checkpoint

        return nano_checkpoint()
    path = Path(name).expanduser()
    path = path if path.is_absolute() else base / path
    if path.is_file():
        return path
    if path.is_dir():
        return _in_folder(path, filename)
    if not _could_be_repository(name):
        raise CheckpointError(
            f"{key} = {name!r} is no file or folder here.",
            fix=f'Download {DEFAULT_FILENAME} and give its path, or use "nano", the embedded miniature.',
        )
    from ltx2core.models.hub import fetch

    return fetch(name, filename=filename, revision=revision, key=key, tell=tell)


def choose(names: Collection[str], filename: str | None) -> Choice | None:
    """The checkpoint among file names (relative, with /); None when there is none, or `filename` is not there."""
    main = next((found for name in ((filename,) if filename else _COMBINED) if (found := _named(names, name)) is not None), None)
    if main is None and filename is None:
        main = transformer_in(sorted(names))
        if main is None:
            return _diffusers(names)
    if main is None:
        return None
    if transformer_in([main]) is None:
        return Choice(main, (main,))
    parts, absent = parts_in(sorted(names))
    return Choice(main, (main, *parts), tuple(absent))


def published_files(repo: str) -> list[str]:
    """What a repository of Lightricks holds of a checkpoint, for one that cannot be asked."""
    if repo.endswith("2.5"):
        return [f"diffusion_models/{TRANSFORMER}", *(part.published for part in PARTS)]
    return [_COMBINED[1] if repo.endswith("2.3") else DEFAULT_FILENAME]


def _in_folder(folder: Path, filename: str | None) -> Path:
    files = [*files_below(folder), *folder.glob("*/config.json")]
    if (choice := choose([path.relative_to(folder).as_posix() for path in files], filename)) is not None:
        return folder / choice.main
    found = sorted(path.name for path in folder.glob("*.safetensors"))
    hint = f"Set ltx2_checkpoint_filename to one of: {', '.join(found[:5])}." if found else "Put the combined .safetensors file there."
    raise CheckpointError(f"{folder} holds no {filename or DEFAULT_FILENAME}.", fix=hint)


def _named(names: Collection[str], filename: str) -> str | None:
    """The file of that path, else the only one of that name in a folder below."""
    if filename in names:
        return filename
    found = [name for name in names if PurePosixPath(name).name == filename]
    return found[0] if len(found) == 1 else None


def _diffusers(names: Collection[str]) -> Choice | None:
    files: list[str] = []
    for folder in DIFFUSERS_FOLDERS:
        inside: Sequence[str] = [name for name in names if name.startswith(f"{folder}/")]
        weights = [name for name in inside if name.endswith(".safetensors")]
        weights = [name for name in weights if _PLAIN.fullmatch(PurePosixPath(name).name)] or weights  # without fp16 and other variants
        if f"{folder}/config.json" not in inside or not weights:
            return None
        files += [f"{folder}/config.json", *weights, *(name for name in inside if name.endswith(".safetensors.index.json"))]
    return Choice("", tuple(files))


def _could_be_repository(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1 and not name.endswith((".safetensors", ".sft"))
