"""`ltx2tui presets`: the presets, by card and goal. `export` writes one as a config, `plan --config` tells one for a card."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from ltx2core.config.sources import preset_files
from ltx2core.errors import ConfigError

if TYPE_CHECKING:
    import argparse


def run(arguments: argparse.Namespace) -> int:
    found = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in preset_files().items()}
    wanted: int | None = arguments.gpu_memory_gb
    sizes = sorted({preset["for"]["gpu_memory_gb"] for preset in found.values()})
    if wanted is not None:
        size = max((size for size in sizes if size <= wanted), default=None)
        if size is None:
            raise ConfigError([f"--gpu-memory-gb {wanted}: the smallest presets are for {sizes[0]} GB; `ltx2tui plan` says what fits."])
        found = {name: preset for name, preset in found.items() if preset["for"]["gpu_memory_gb"] == size}
    if (gpus := arguments.gpus) is not None:
        there = sorted({preset["for"]["gpus"] for preset in found.values()})
        if gpus not in there:
            raise ConfigError([f"--gpus {gpus}: there are presets for {', '.join(map(str, there))}; `ltx2tui plan` says what fits."])
        found = {name: preset for name, preset in found.items() if preset["for"]["gpus"] == gpus}
    found = dict(sorted(found.items(), key=lambda item: (item[1]["for"]["gpu_memory_gb"], item[1]["for"]["gpus"])))
    if arguments.json:
        json.dump(found, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
        return 0
    for name, preset in found.items():
        sys.stdout.write(f"{_line(name, preset)}\n")
    sys.stdout.write("\nltx2tui export NAME --out config.json writes one as a config;\n")
    sys.stdout.write("ltx2tui plan --config NAME tells it for your card.\n")
    return 0


def _line(name: str, preset: dict[str, Any]) -> str:
    config, predicted, given = preset["config"], preset["predicted"], preset["for"]
    shape = f"{config['validation_resolution']}, {config['validation_num_video_frames']} frames"
    return f"{name:<18} {shape:<22} {predicted['hours']:>5} h  {given['learns'].partition(',')[0]}"
