"""`ltx2tui lora info`: what a LoRA file holds."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from ltx2tui.words import size

if TYPE_CHECKING:
    import argparse

    from ltx2core.lora.info import LoraInfo

LAYOUTS = {
    "official": "official names (diffusion_model.), for ComfyUI, diffusers and Lightricks' code",
    "diffusers": "diffusers' names (transformer.)",
    "kohya": "kohya's names (lora_unet_)",
    "peft": "PEFT's names (base_model.model.)",
    "bare": "names without a prefix",
}


def run(arguments: argparse.Namespace) -> int:
    from ltx2core.lora.info import lora_info

    info = lora_info(arguments.file)
    if arguments.json:
        json.dump(asdict(info), sys.stdout, indent=2)
        sys.stdout.write("\n")
        return 0
    for name, value in _rows(info):
        sys.stdout.write(f"{name:<22}{value}\n")
    return 0


def _rows(info: LoraInfo) -> list[tuple[str, str]]:
    rows = [("file", f"{info.path}, {size(info.file_bytes)}")]
    if info.layers:
        rows += [
            ("rank", f"{info.rank}, {info.layers} layers, {info.tensors} tensors of {info.dtype}"),
            ("keys", LAYOUTS[info.layout]),
            ("sound", "not trained" if not info.has_audio else "trained too" if info.has_video else "trained alone, without pictures"),
            ("layers", ", ".join(info.targets)),
        ]
    if info.has_alpha:
        rows.append(("alpha", "stored beside the matrices; `ltx2tui lora verify` says whether it scales them"))
    if info.foreign:
        rows.append(("not LTX-2", ", ".join(info.foreign)))
    return rows + [(name, value) for name, value in sorted(info.metadata.items()) if value and name not in ("rank", "targets", "format")]
