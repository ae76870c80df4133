"""Captions from a table with a row for each file: CSV, JSON lines, or Parquet, which needs pyarrow."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from ltx2core.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

TableKind = Literal["csv", "jsonl", "parquet"]

NAME_COLUMNS = ("url", "filename", "file_name", "file", "path", "id")  # looked for in this order where none is named
CAPTION_COLUMNS = ("caption", "text", "prompt")
MOST_BYTES = 4 << 30
_DEFAULT_NAMES = {
    "csv": ("captions.csv", "metadata.csv"),
    "jsonl": ("metadata.jsonl", "captions.jsonl"),
    "parquet": ("metadata.parquet", "captions.parquet", "metadata.jsonl"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TableColumns:
    """Which columns are read; None looks for the usual names. endings: whether names have the files' endings; None takes either."""

    name: str | None = None
    caption: str | None = None
    second: str | None = None  # read where the first caption is empty
    endings: bool | None = None


@dataclass(frozen=True, slots=True)
class CaptionTable:
    """The captions of each name in a table: several where a row has a list, or several rows have one name."""

    path: Path
    folder: Path  # that names with a path are below
    captions: Mapping[str, tuple[str, ...]]
    endings: bool | None = None

    def of(self, clip: Path) -> tuple[str, ...] | None:
        """The captions of a file; None when no row is about it. The path below the folder counts before the bare name."""
        below = clip.relative_to(self.folder) if clip.is_relative_to(self.folder) else Path(clip.name)
        whole = (below.as_posix(), clip.name)
        bare = (below.with_suffix("").as_posix(), clip.stem)
        names = {True: whole, False: bare, None: (*whole, *bare)}[self.endings]
        return next((self.captions[name] for name in names if name in self.captions), None)

    def unused(self, clips: Iterable[Path]) -> list[str]:
        """Names in the table that belong to none of these files, in the table's order."""
        known: set[str] = set()
        for clip in clips:
            below = clip.relative_to(self.folder) if clip.is_relative_to(self.folder) else Path(clip.name)
            known.update((below.as_posix(), clip.name, below.with_suffix("").as_posix(), clip.stem))
        return [name for name in self.captions if name not in known]


def find_table(kind: TableKind, named: Path | None, *, folder: Path) -> Path:
    """The table that is named, or the usual one in the dataset's folder. Raises DatasetError when there is none."""
    if named is not None:
        return named if named.is_absolute() else folder / named
    for name in _DEFAULT_NAMES[kind]:
        if (folder / name).is_file():
            return folder / name
    key = "csv_file" if kind == "csv" else "parquet.path"
    raise DatasetError(f"{folder} holds no {_DEFAULT_NAMES[kind][0]} with captions.", fix=f"Put one there, or name the table with {key}.")


def read_table(path: Path, *, folder: Path, columns: TableColumns) -> CaptionTable:
    """The captions in a .csv, .tsv, .jsonl or .parquet file. Raises DatasetError, with the line, for one that cannot be used."""
    readers = {".parquet": _parquet_rows, ".pq": _parquet_rows, ".jsonl": _json_rows, ".json": _json_rows, ".ndjson": _json_rows}
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DatasetError(f"{path} is larger than {MOST_BYTES >> 30} GiB.", fix="Split it, or keep captions in .txt files.")
        rows = readers.get(path.suffix.lower(), _csv_rows)(path)
        return CaptionTable(path, folder, _collect(path, rows, columns), columns.endings)
    except OSError as error:
        raise DatasetError(f"{path} cannot be opened: {error.strerror or error}.", fix="Name the table with your captions.") from error


def _collect(path: Path, rows: Iterator[tuple[int, Mapping[str, object]]], columns: TableColumns) -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    name_column = caption_column = ""
    for number, row in rows:
        if not name_column:
            name_column = _column(path, row, columns.name, NAME_COLUMNS, "names of files")
            caption_column = _column(path, row, columns.caption, CAPTION_COLUMNS, "captions")
            if columns.second is not None:
                _column(path, row, columns.second, (), "captions")
        name = _name(row.get(name_column))
        if not name:
            raise DatasetError(f"{path} row {number} has no {name_column}.", fix="Say there which file the row is about.")
        captions = _texts(row.get(caption_column)) or (_texts(row.get(columns.second)) if columns.second is not None else ())
        found.setdefault(name, {}).update(dict.fromkeys(captions))
    return {name: tuple(captions) for name, captions in found.items()}


def _column(path: Path, row: Mapping[str, object], named: str | None, usual: tuple[str, ...], what: str) -> str:
    for name in (named,) if named is not None else usual:
        if name in row:
            return name
    shown = ", ".join(str(name) for name in list(row)[:12]) or "none"
    wanted = named if named is not None else " or ".join(usual)
    raise DatasetError(f"{path} has no column {wanted} with {what}; its columns are {shown}.", fix="Name the column in the dataset list.")


def _name(value: object) -> str:
    """The name in a cell: of an address its last part, of a path the path with slashes."""
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if "://" in text:
        return unquote(PurePosixPath(urlsplit(text).path).name)
    return text.replace("\\", "/").removeprefix("./")


def _texts(value: object) -> tuple[str, ...]:
    """The captions in a cell: of a list each, else the one; none where it is empty."""
    parts = value if isinstance(value, list | tuple) else [value]
    return tuple(text for part in parts if isinstance(part, str) and (text := " ".join(part.split())))


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Rows by the names in the first one. The separator is the one of comma, semicolon and tab that the first line has most of."""
    text = _text(path)
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    csv.field_size_limit(1 << 24)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        for row in reader:
            yield reader.line_num, {str(name).strip(): value for name, value in row.items() if name is not None}
    except csv.Error as error:
        raise DatasetError(f"{path} line {reader.line_num}: {error}.", fix="Write it as CSV with a row of column names first.") from error


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{path} line {number} is not JSON: {error}.", fix="Write one object { } a line.") from error
        if not isinstance(row, dict):
            raise DatasetError(
                f"{path} line {number} is not an object.", fix='Write one object a line: {"file_name": "a.mp4", "text": "…"}.'
            )
        yield number, row


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DatasetError(
            f"{path} needs pyarrow, which is not installed.", fix="pip install 'ltx2tui[parquet]', or write the captions as .jsonl."
        ) from error
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=4096):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pyarrow.ArrowException as error:
        raise DatasetError(f"{path} is no Parquet file that can be read: {error}.", fix="Write it anew, or as .jsonl.") from error


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8: byte {error.start}.", fix="Save the table as UTF-8.") from error
