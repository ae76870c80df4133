"""`ltx2tui diff`: in which keys two sets of settings differ."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from ltx2core.config.differences import differences
from ltx2core.config.sources import read_source

if TYPE_CHECKING:
    import argparse

_WITH_MEANING = 110  # columns: in fewer, words would be cut to make room for sentences


def run(arguments: argparse.Namespace) -> int:
    first, second = (read_source(name, root=arguments.root) for name in (arguments.first, arguments.second))
    found = differences(first.loaded, second.loaded)
    if arguments.json:
        json.dump([asdict(difference) for difference in found], sys.stdout, indent=2)
        sys.stdout.write("\n")
        return 0
    if not found:
        sys.stdout.write(f"{first.name} and {second.name} come to the same settings.\n")
        return 0
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, emoji=False)
    heads = [("key", 3), (first.name, 2), (second.name, 2), ("what it does", 4)]
    if console.width < _WITH_MEANING:
        heads.pop()
    table = Table(box=box.SIMPLE_HEAD, expand=True)
    for head, share in heads:
        table.add_column(Text(head), overflow="fold", ratio=share)
    for difference in found:
        cells = difference.key, difference.first, difference.second, difference.meaning
        table.add_row(*(Text(cell) for cell in cells[: len(heads)]))
    console.print(table)
    if console.width < _WITH_MEANING:
        console.print("What a key does: ltx2tui explain KEY. Wider terminals show it here.", soft_wrap=True)
    return 0
