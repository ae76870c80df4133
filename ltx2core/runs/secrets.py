"""Keeps tokens out of what is written and shown: journals, configs, errors. They come from the environment or a login, never a key."""

from __future__ import annotations

import os
import re

_NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")
_SHAPES = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|(?<=://)[^/\s:@\"]+:[^/\s@\"]+(?=@)"
)  # the hub's tokens, and users with passwords in addresses
_SECRET_KEY = re.compile(r"token|secret|password|api_?key", re.IGNORECASE)
HIDDEN = "***"
_SHORTEST = 8  # of a value that is looked for: a shorter one is no token, and may be part of a word


def redact(text: str) -> str:
    """The text with *** in the place of tokens: those of the environment, and what has a token's shape."""
    for name in _NAMES:
        value = os.environ.get(name, "")
        if len(value) >= _SHORTEST:
            text = text.replace(value, HIDDEN)
    return _SHAPES.sub(HIDDEN, text)


def is_secret(key: str) -> bool:
    """Whether a setting's name says that its value is not to be shown."""
    return _SECRET_KEY.search(key) is not None and key != "tokenizer_max_length"
