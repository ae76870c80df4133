"""Finding the files that settings name: from the current folder first, then from the folder of the settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def find(text: str, bases: Sequence[Path]) -> Path | None:
    """The absolute path of an existing file or folder; None when it is nowhere."""
    if not text:
        return None
    try:
        path = Path(text).expanduser()
        for base in (Path.cwd(), *bases):
            if (base / path).exists():
                return (base / path).resolve()
    except (OSError, ValueError, RuntimeError):  # no permission, a name too long, a user who does not exist
        return None
    return None


def from_here(path: Path) -> Path:
    """The absolute path of what need not exist yet, from the current folder."""
    try:
        return path.expanduser().absolute()
    except RuntimeError:  # a user who does not exist: a folder of that name, then
        return path.absolute()


def looks_like_file(text: str) -> bool:
    """Whether a model's name must be a path of this machine, and cannot be a hub name."""
    return text.endswith((".safetensors", ".sft")) or text.startswith(("/", "./", "../", "~"))
