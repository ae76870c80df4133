"""`ltx2tui sample`: a video of a prompt, with a LoRA file or without one, and from a picture, a sound or a reference."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ltx2core.config.load import load_part

if TYPE_CHECKING:
    import argparse


def run(arguments: argparse.Namespace) -> int:
    loaded = load_part(arguments.config)
    sys.stdout.write("Loading the model …\n")
    sys.stdout.flush()
    from ltx2core.validation.from_file import GivenFiles, sample_with_lora

    def on_step(done: int, total: int) -> None:
        if done == total or done % max(1, total // 5) == 0:
            sys.stdout.write(f"Sampling  {done} of {total}\n")
            sys.stdout.flush()

    def tell(text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    given = GivenFiles(image=arguments.image, audio=arguments.audio, reference=arguments.reference)
    path = sample_with_lora(
        loaded, prompt=arguments.prompt, lora=arguments.lora, folder=arguments.out, given=given, on_step=on_step, tell=tell
    )
    sys.stdout.write(f"{path}\n")
    return 0
