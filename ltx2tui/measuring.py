"""Measuring the GPU from the app: `ltx2tui probe --measure --json` in a process of its own, and the machine that it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from ltx2core.errors import ConfigError, Ltx2Error
from ltx2core.hardware.machine import from_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ltx2core.hardware.machine import Machine

PATIENCE_SECONDS = 180  # loading torch from a slow disk takes longer than measuring


class MeasuringError(Ltx2Error):
    """The GPU could not be measured."""


def measured_machine(root: Path, *, command: Sequence[str] = (sys.executable, "-m", "ltx2tui.cli")) -> Machine:
    """This machine with freshly measured rates. Takes ten seconds and more: call it from a worker. Raises MeasuringError."""
    call = [*command, "probe", "--measure", "--json", "--root", str(root)]
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False, stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            return from_json(json.loads(done.stdout))
    except subprocess.TimeoutExpired:
        raise MeasuringError(f"Measuring took more than {PATIENCE_SECONDS} s and was given up.") from None
    except (OSError, ValueError, ConfigError) as error:
        raise MeasuringError(f"The GPU could not be measured: {error}.") from error
    last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), f"exit code {done.returncode}")
    raise MeasuringError(f"The GPU could not be measured: {last.strip()}.")
