"""`ltx2tui config check`: errors, notices, and what each key will do."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from ltx2core.config.explain import explain_config
from ltx2core.config.load import load_part
from ltx2core.errors import ConfigError

if TYPE_CHECKING:
    import argparse


def run(arguments: argparse.Namespace) -> int:
    try:
        loaded = load_part(arguments.file)
    except ConfigError as error:
        if not arguments.json:
            raise
        json.dump({"ok": False, "problems": error.problems, "notices": [], "keys": []}, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return 1
    keys = explain_config(loaded)
    if arguments.json:
        json.dump(
            {"ok": True, "problems": [], "notices": [asdict(notice) for notice in loaded.notices], "keys": keys}, sys.stdout, indent=2
        )
        sys.stdout.write("\n")
        return 0
    for line in keys:
        sys.stdout.write(f"{line}\n")
    if loaded.notices:
        sys.stdout.write("\nNotices\n")
    for notice in loaded.notices:
        sys.stdout.write(f"  {notice.text} {notice.fix}".rstrip() + f" [{notice.code}]\n")
    sys.stdout.write(f"\n{arguments.file} can be used.\n")
    return 0
