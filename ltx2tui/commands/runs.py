"""`ltx2tui runs`: every run and what it does."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

from ltx2tui import words
from ltx2tui.summary import summaries

if TYPE_CHECKING:
    import argparse


def run(arguments: argparse.Namespace) -> int:
    runs = summaries(arguments.root)
    if arguments.json:
        json.dump([one.as_json() for one in runs], sys.stdout, indent=2)
        sys.stdout.write("\n")
        return 0
    if not runs:
        sys.stdout.write(f"No runs in {(arguments.root / 'runs').absolute()}. `ltx2tui demo` makes one.\n")
        return 0
    width = max(len(one.folder.name) for one in runs)
    for one in runs:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.at))
        steps = f"step {one.step:>6,} of {one.total_steps:<6,}"
        sys.stdout.write(f"{one.folder.name:<{width}}  {one.status:<11}  {steps}  loss {words.loss(one.loss):<7}  {when}\n")
    return 0
