"""`ltx2tui export`: the config of a preset, a run or a plan, for this program or for SimpleTuner."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ltx2core.config.exchange import own_files
from ltx2core.config.simpletuner_export import LIST_FILE, simpletuner_files
from ltx2core.config.sources import read_source
from ltx2tui.exchanging import print_exchange_json, show_exchange, write_exchange

if TYPE_CHECKING:
    import argparse


def run(arguments: argparse.Namespace) -> int:
    source = read_source(arguments.source, root=arguments.root)
    foreign = arguments.program == "simpletuner"
    exchange = simpletuner_files(source.loaded) if foreign else own_files(source.loaded)
    list_name = LIST_FILE if foreign else "datasets.json"
    files = write_exchange(exchange, arguments.out, list_name=list_name, reader_starts_here=foreign)
    if arguments.json:
        print_exchange_json(exchange, files)
        return 0
    if foreign:
        show_exchange(exchange, heads=("here", "SimpleTuner"))
    sys.stdout.write(f"Written from the {source.kind} {source.name}: {' and '.join(map(str, files))}.\n")
    return 0
