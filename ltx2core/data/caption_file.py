"""A clip's caption file as it is edited: its text apart from how it is stored, so that saving changes the words and nothing else."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.data.captions import MAX_CAPTION_BYTES
from ltx2core.errors import DatasetError, StorageError
from ltx2core.runs.files import replacing, storage_error

if TYPE_CHECKING:
    from pathlib import Path

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionFile:
    """text: with plain newlines. The rest is how the file had it: encoding, a mark in front of it, newlines, one at its end or not."""

    path: Path
    text: str = ""
    encoding: str = "utf-8"
    mark: bytes = b""
    newline: str = "\n"
    ends_with_newline: bool = True
    read: bytes | None = None  # the whole file, None when there was none; see save_caption


def open_caption(clip: Path) -> CaptionFile:
    """The caption file of a clip; an empty one where there is none yet.

    Raises DatasetError when it cannot be opened or is no text.
    """
    path = clip.with_suffix(".txt")
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_CAPTION_BYTES else b"\0"
    except FileNotFoundError:
        return CaptionFile(path=path)
    except OSError as error:
        raise DatasetError(f"{path.name} cannot be opened: {error.strerror or error}.", fix="Change its permissions.") from error
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    if not mark and b"\0" in data:
        raise DatasetError(f"{path.name} is not a caption: it is too long, or not text.", fix="Remove it, and write a new one.")
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError:
        encoding = "cp1252"  # as captions.py reads it
        text = data.decode(encoding, errors="replace")
    newline = "\r\n" if "\r\n" in text else "\n"
    text = text.replace("\r\n", "\n")
    ends = text.endswith("\n")
    return CaptionFile(
        path=path,
        text=text.removesuffix("\n"),
        encoding=encoding,
        mark=mark,
        newline=newline,
        ends_with_newline=ends or not text,
        read=data,
    )


def save_caption(file: CaptionFile, text: str) -> bool:
    """Write the file with other words, whole or not at all. True when its encoding had to become UTF-8 to hold them.

    The words it was opened with write nothing: not even bytes that its encoding has no character for change.

    Raises StorageError when it cannot be written, or when somebody else has changed it since it was opened: that change is kept.
    """
    text = text.replace("\r\n", "\n")
    if not file.text.endswith("\n"):
        text = text.removesuffix("\n")
    if text == file.text:
        return False
    whole = (text + ("\n" if file.ends_with_newline and text else "")).replace("\n", file.newline)
    changed = False
    try:
        data = file.mark + whole.encode(file.encoding)
    except UnicodeEncodeError:
        data, changed = whole.encode(), True
    if _present(file.path) != file.read:
        raise StorageError(f"{file.path.name} was changed by another program meanwhile.", fix="Close this and open it again.")
    with replacing(file.path) as temporary:
        temporary.write_bytes(data)
        if file.read is not None:
            temporary.chmod(file.path.stat().st_mode & 0o7777)
    return changed


def _present(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(path, error) from error
