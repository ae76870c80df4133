"""`ltx2tui probe`: what this machine is."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from ltx2core.hardware.probe import as_json, probe_machine
from ltx2tui.machine_lines import machine_sections

if TYPE_CHECKING:
    import argparse


def run(arguments: argparse.Namespace) -> int:
    machine = probe_machine(arguments.root)
    if arguments.json:
        json.dump(as_json(machine), sys.stdout, indent=2)
        sys.stdout.write("\n")
        return 0
    for section in machine_sections(machine):
        sys.stdout.write(f"{section.title:<11}{section.text}\n")
        for line in section.more:
            if line:
                sys.stdout.write(f"{'':<11}{line}\n")
    return 0
