"""Writing the files of an export or an import, and showing side by side what became of each key."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from ltx2core.config.load import LIST_KEY
from ltx2core.errors import StorageError
from ltx2core.runs.files import write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ltx2core.config.exchange import Exchange, Row, Verdict

HEADS: dict[Verdict, str] = {"refused": "Refused", "changed": "Changed", "default": "Not set, and the defaults differ", "kept": "Kept"}


def write_exchange(exchange: Exchange, out: Path, *, list_name: str, reader_starts_here: bool) -> list[Path]:
    """Write the config, its dataset list and what those name; the files. Raises StorageError before anything of another's is replaced.

    reader_starts_here: the dataset list is named from the current folder, and else from the config's.
    """
    listed = out.with_name(list_name)
    files = [out, *([listed] if exchange.datasets else []), *(out.with_name(name) for name in exchange.files)]
    if taken := next((path for path in files if path.exists()), None):
        raise StorageError(f"{taken} exists already.", fix="Choose another file with --out, or move it away.")
    config = dict(exchange.config)
    if exchange.datasets:
        config[LIST_KEY] = listed.as_posix() if reader_starts_here else listed.name
        write_json(listed, exchange.datasets)
    for name, text in exchange.files.items():
        write_text(out.with_name(name), text)
    write_json(out, config)
    return files


def show_exchange(exchange: Exchange, *, heads: tuple[str, str]) -> None:
    """A table of every key, what needs a look first. heads: the two sides."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, emoji=False)
    for verdict, head in HEADS.items():
        rows = [row for row in exchange.rows if row.verdict == verdict]
        if not rows:
            continue
        table = Table(title=f"{head} ({len(rows)})", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, expand=True)
        for name in (heads[0], *([heads[1]] if verdict != "refused" else []), *(["why"] if any(row.why for row in rows) else [])):
            table.add_column(name, overflow="fold", ratio=1)
        for row in rows:
            table.add_row(*(Text(cell) for cell in _cells(row, len(table.columns))))
        console.print(table)


def _cells(row: Row, columns: int) -> Sequence[str]:
    cells = [row.source, *([row.target] if row.verdict != "refused" else []), row.why]
    return cells[:columns]


def print_exchange_json(exchange: Exchange, files: Sequence[Path]) -> None:
    """The same for scripts."""
    json.dump({"files": [str(file) for file in files], "keys": [asdict(row) for row in exchange.rows]}, sys.stdout, indent=2)
    sys.stdout.write("\n")
