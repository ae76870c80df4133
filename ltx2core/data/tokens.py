"""How many tokens a caption is: counted by the text encoder's own tokenizer where it is on this machine, else estimated.

Nothing is downloaded here, and no model is loaded.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ltx2core.config.train import TrainConfig

MAX_TOKENS = 1024  # that LTX-2 takes of a caption
_PIECE = re.compile(r"[A-Za-z]+|[^\W\d_]+|\d|\S")  # a word, a word of other letters, a digit, anything else
_LETTERS = 6  # of an English word that one token holds, nearly always


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """Counts a caption's tokens, its beginning token included."""

    count: Callable[[str], int]
    limit: int
    exact: bool


def estimate_tokens(text: str) -> int:
    """At least as many tokens as Gemma makes of ordinary prose, and not many more: a warning too many beats a caption cut off.

    A token for each six letters of a word begun, each digit, each other sign, and each letter of other scripts.
    """
    return 1 + sum((len(piece) + _LETTERS - 1) // _LETTERS if piece.isascii() else len(piece) for piece in _PIECE.findall(text))


ESTIMATE = TokenCounter(estimate_tokens, MAX_TOKENS, exact=False)


def find_counter(config: TrainConfig | None, *, base: Path) -> TokenCounter:
    """The counter of a config's text encoder, or of LTX-2's if this machine holds it; the estimate where neither is here."""
    for file in _places(config, base):
        if (counter := _counter(file)) is not None:
            return counter
    return ESTIMATE


def _places(config: TrainConfig | None, base: Path) -> Iterator[Path]:
    """Where a tokenizer.json may lie, the most particular place first."""
    from pathlib import Path

    from ltx2core.models.nano import nano_text_encoder

    model = "Lightricks/LTX-2" if config is None else str(config.pretrained_model_name_or_path)
    encoder = None if config is None else config.pretrained_gemma_model_name_or_path
    if model == "nano":
        yield nano_text_encoder() / "tokenizer.json"
        return
    for name in filter(None, (encoder, model)):
        place = base / Path(name).expanduser()
        for folder in (place, place.parent, place.parent.parent) if name == model else (place,):
            for inside in (".", "tokenizer", "text_encoder", "../tokenizer"):
                yield folder / inside / "tokenizer.json"
    for name in filter(None, (encoder, model, "google/gemma-3-12b-it")):
        yield from _in_hub_cache(name)


def _in_hub_cache(name: str) -> Iterator[Path]:
    from pathlib import Path

    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for inside in ("tokenizer.json", "tokenizer/tokenizer.json"):
        try:
            found = try_to_load_from_cache(name, inside)
        except (HFValidationError, OSError):  # a path is no hub name
            return
        if isinstance(found, str):
            yield Path(found)


def _counter(file: Path) -> TokenCounter | None:
    if not file.is_file():
        return None
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception:  # noqa: BLE001 - the library raises bare Exception for a damaged file; training names it, a check goes on
        return None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return TokenCounter(lambda text: len(tokenizer.encode(text.strip()).ids), min(MAX_TOKENS, _longest(file)), exact=True)


def _longest(file: Path) -> int:
    """The tokenizer's own limit; a very great one where its settings name none."""
    try:
        return int(json.loads(file.with_name("tokenizer_config.json").read_text(encoding="utf-8"))["model_max_length"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return 1 << 30
