"""`ltx2tui lora info`: what a LoRA file holds."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from ltx2tui.words import size

if TYPE_CHECKING:
    import argparse


def run(arguments: argparse.Namespace) -> int:
    from ltx2core.training.export import lora_info

    info = lora_info(arguments.file)
    if arguments.json:
        json.dump(asdict(info), sys.stdout, indent=2)
        sys.stdout.write("\n")
        return 0
    rows = [
        ("file", f"{info.path}, {size(info.file_bytes)}"),
        ("rank", f"{info.rank}, {info.tensors} tensors of {info.dtype}"),
        ("sound", "trained too" if info.has_audio else "not trained"),
        ("layers", ", ".join(info.targets)),
        *((name, value) for name, value in sorted(info.metadata.items()) if value and name not in ("rank", "targets")),
    ]
    for name, value in rows:
        sys.stdout.write(f"{name:<22}{value}\n")
    return 0
