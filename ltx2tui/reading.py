"""Values of settings as people type and read them."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Union, get_args, get_origin

if TYPE_CHECKING:
    from ltx2tui.draft import Value


def read_value(text: str, annotation: object) -> Value:
    """What typed text means for a field of this type; text that is no number stays text, for pydantic to judge."""
    text = text.strip()
    kinds = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    if not text:
        return None if types.NoneType in kinds else ""
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                continue
    return text


def shown(value: Value) -> str:
    """A value as one would type it; empty for None."""
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
