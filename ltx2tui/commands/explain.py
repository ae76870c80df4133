"""`ltx2tui explain`: what a key means."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ltx2core.config.explain import explain_key

if TYPE_CHECKING:
    import argparse


def run(arguments: argparse.Namespace) -> int:
    sys.stdout.write(explain_key(arguments.key) + "\n")
    return 0
