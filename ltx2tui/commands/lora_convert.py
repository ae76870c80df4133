"""`ltx2tui lora convert`: the same LoRA under the names that another program reads."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from ltx2core.lora.write import Written


def run(arguments: argparse.Namespace) -> int:
    import torch

    from ltx2core.lora.convert import convert_lora

    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    layout: Written = "official" if arguments.to == "comfyui" else arguments.to
    layers = convert_lora(arguments.file, arguments.out, layout=layout, dtype=dtypes.get(arguments.dtype))
    sys.stdout.write(f"{arguments.out}: {layers} layers.\n")
    return 0
