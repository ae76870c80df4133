"""`ltx2tui check`: every clip of a folder, or of a dataset list, with its bucket and its problems."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2core.data.report import Report, check_folder, join

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from ltx2core.data.report import Row


def run(arguments: argparse.Namespace) -> int:
    say = None if arguments.json else _say
    report = (
        _check_list(arguments.path, say)
        if arguments.path.suffix == ".json" and arguments.path.is_file()
        else check_folder(arguments.path, on_row=say)
    )
    if arguments.json:
        json.dump(report.to_json(), sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
    else:
        sys.stdout.write(f"\n{report.closing_line()}\n")
    return 0 if report.usable else 1


def _check_list(path: Path, say: Callable[[Row], None] | None) -> Report:
    """Every dataset of a list (or of the list that a config names), with its own rules."""
    from ltx2core.config.load import load_part
    from ltx2core.data.dataset import bucket_rule

    loaded = load_part(path)
    reports = []
    for dataset in loaded.datasets.videos:
        rule = bucket_rule(dataset, frame_rate=loaded.config.frame_rate)
        reports.append(check_folder(Path(loaded.base / dataset.instance_data_dir), rule=rule, on_row=say))
    return join(reports)


def _say(row: Row) -> None:
    sys.stdout.write("\n".join(row.lines()) + "\n")
    sys.stdout.flush()
