"""`ltx2tui probe`: what this machine is, and with --measure how fast."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from ltx2core.hardware.machine import as_json
from ltx2core.hardware.probe import probe_machine
from ltx2core.hardware.rates_store import rates_file, remember_rates
from ltx2tui.machine_lines import machine_sections

if TYPE_CHECKING:
    import argparse

    from ltx2core.hardware.machine import Machine


def run(arguments: argparse.Namespace) -> int:
    machine = probe_machine(arguments.root, measure_disk=True)
    if arguments.measure:
        machine = _measured(machine)
    if arguments.json:
        json.dump(as_json(machine), sys.stdout, indent=2)
        sys.stdout.write("\n")
        return 0
    for section in machine_sections(machine):
        sys.stdout.write(f"{section.title:<11}{section.text}\n")
        for line in (*section.more, *(f"! {line}" for line in section.wrong)):
            sys.stdout.write(f"{'':<11}{line}\n")
    return 0


def _measured(machine: Machine) -> Machine:
    """The machine with its rates, which are remembered. What could not be measured is said on the side, out of the way of JSON."""
    from ltx2core.hardware.bench import measure

    measured = measure()
    for note in measured.notes:
        sys.stderr.write(f"{note}\n")
    remember_rates(machine, measured.rates, rates_file())
    return dataclasses.replace(machine, rates=measured.rates)
