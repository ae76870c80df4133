"""Caption filters: lines that are taken out of captions, or replaced. A file's lines are read when the settings are."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from ltx2core.config.paths import find
from ltx2core.config.wording import shown
from ltx2core.data.caption_edits import CaptionEdit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def read_filter_list(value: str | list[str], *, bases: Sequence[Path]) -> tuple[list[str], list[str]]:
    """The lines of a filter, of the file that `value` names or `value` itself, and what is wrong with them."""
    if isinstance(value, str):
        path = find(value, bases)
        if path is None or not path.is_file():
            return [], [f"{shown(value)}: there is no such file; name a .txt or .json file of lines, or write them as a list."]
        try:
            text = path.read_text(encoding="utf-8-sig")
            lines = json.loads(text) if path.suffix.lower() == ".json" else text.splitlines()
        except (OSError, ValueError) as error:
            return [], [f"{shown(value)} cannot be read: {error}."]
        if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            return [], [f"{shown(value)}: it is a list of texts; write one line for each thing to take out."]
        value = lines
    kept = [line for line in value if line.strip()]
    wrong = []
    for line in kept:
        try:
            CaptionEdit.parse(line)
        except (re.error, OverflowError) as error:
            wrong.append(f"{shown(line)} is no regular expression ({error}); put \\ before signs that mean themselves.")
    return kept, wrong
