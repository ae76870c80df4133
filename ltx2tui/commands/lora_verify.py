"""`ltx2tui lora verify`: whether a LoRA file fits a base model. Exits with 1 when it does not."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from ltx2core.lora.verify import LoraReport


def run(arguments: argparse.Namespace) -> int:
    from ltx2core.lora.verify import verify_lora
    from ltx2core.models.checkpoint import find_checkpoint, open_checkpoint

    def tell(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    base = find_checkpoint(arguments.base, filename=None, base=Path(), key="--base", tell=tell)
    report = verify_lora(arguments.file, open_checkpoint(base))
    if arguments.json:
        json.dump({"usable": report.usable} | asdict(report), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        sys.stdout.write("\n".join(_lines(report)) + "\n")
    return 0 if report.usable else 1


def _lines(report: LoraReport) -> list[str]:
    lines = [f"{report.path}: {report.layers} layers, for {report.base}", ""]
    if report.kinds:
        lines.append(f"{'layer':<32}{'layers':>8}{'rank':>6}{'what it adds (norm)':>22}")
    for name, kind in report.kinds.items():
        norm = "not finite" if kind.delta_norm is None else f"{kind.delta_norm:.4g}"
        lines.append(f"{name:<32}{kind.layers:>8}{kind.rank:>6}{norm:>22}")
    lines += [""] if report.kinds else []
    lines += [f"problem: {text}" for text in report.problems] + [f"warning: {text}" for text in report.warnings]
    return [*lines, "It fits." if report.usable else "It cannot be used with this base."]
