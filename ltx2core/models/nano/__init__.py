"""nano, the embedded model: LTX-2 2.0 in miniature, in the official file layout, trained on procedural clips.

It runs the real path on a laptop: the demo, the tests and the documentation use it. Made by `pretrain.py` beside this file.
"""

from __future__ import annotations

from pathlib import Path

_WEIGHTS = Path(__file__).parent / "weights"


def nano_checkpoint() -> Path:
    """The combined checkpoint of the embedded model."""
    return _WEIGHTS / "nano.safetensors"


def nano_text_encoder() -> Path:
    """The folder with the embedded model's text encoder and tokenizer."""
    return _WEIGHTS / "text_encoder"
