"""Keys of TREAD, which lets video tokens skip blocks while training, and reading them from a file of their own."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from ltx2core.config.keys import Keys, key
from ltx2core.config.paths import find
from ltx2core.config.reading import parse_settings, read_settings, unusable
from ltx2core.config.wording import line, shown
from ltx2core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

TREAD_KEY = "tread_config"
EXAMPLE = '{"routes": [{"selection_ratio": 0.5, "start_layer_idx": 2, "end_layer_idx": -2}]}'


class TreadRouteKeys(Keys):
    """An entry of tread_config.routes."""

    group: ClassVar[str] = "A TREAD route"

    selection_ratio: float = key(
        0.5, "Share that skips", "The share of video tokens that skips the blocks, drawn anew in each step. More is faster.", ge=0, lt=1
    )
    start_layer_idx: int = key(..., "First block", "The first block that is skipped, counted from 0; -1 is the last block.")
    end_layer_idx: int = key(..., "Last block", "The last block that is skipped, counted in the same way.")

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> Self:
        start, end = self.start_layer_idx, self.end_layer_idx
        if _comparable(start, end) and start >= end:
            works = f"use a start_layer_idx below {end}"
            raise PydanticCustomError("tread_route", "a route starts before it ends", {"works": works})
        return self


class TreadKeys(Keys):
    """What tread_config holds. What depends on the number of blocks is checked when the model is known (training/tread.py)."""

    group: ClassVar[str] = "TREAD"

    routes: tuple[TreadRouteKeys, ...] = key(
        ..., "Routes", f"The list of routes, each with selection_ratio, start_layer_idx and end_layer_idx: {EXAMPLE}."
    )

    @model_validator(mode="after")
    def _routes_are_apart(self) -> Self:
        for one, other in combinations(self.routes, 2):
            before, after = sorted((one, other), key=lambda route: route.start_layer_idx)
            known = _comparable(before.start_layer_idx, before.end_layer_idx, after.start_layer_idx, after.end_layer_idx)
            if known and before.end_layer_idx >= after.start_layer_idx:
                spans = " and ".join(f"{route.start_layer_idx} to {route.end_layer_idx}" for route in (before, after))
                works = f"start the second at block {before.end_layer_idx + 1} or later"
                raise PydanticCustomError("tread_route", f"routes do not overlap, and blocks {spans} do", {"works": works})
        return self


def _comparable(*indices: int) -> bool:
    """Whether all count from the same end: others depend on the number of blocks."""
    return len({index < 0 for index in indices}) == 1


def tread_group(value: object, *, file: str, base: Path, problems: list[str], notes: list[str]) -> object:
    """The group of keys that tread_config stands for: itself, or what the file that it names holds, as `routes` or as `tread_config`.

    None where there is none; why is added to `problems`, keys that are written twice to `notes`.
    """
    if isinstance(value, dict):
        return value
    if not isinstance(value, str):
        problems.append(line(file, TREAD_KEY, value, "it is a group of keys in braces, or the file that holds one", f"use {EXAMPLE}"))
        return None
    if not value.strip():
        return None
    place = None if value.lstrip().startswith("{") else find(value, (base,))
    if place is None and not value.lstrip().startswith("{"):
        problems.append(line(file, TREAD_KEY, value, "there is no such file", f"name one that exists, or use {EXAMPLE}"))
        return None
    name = f"{file} {TREAD_KEY}" if place is None else place.name
    try:
        found = parse_settings(value, name=name, notes=notes) if place is None else read_settings(place, notes=notes)
    except ConfigError as error:
        problems += error.problems
        return None
    if bad := unusable(found, name=name):
        problems += bad
        return None
    group = found[TREAD_KEY] if isinstance(found, dict) and set(found) == {TREAD_KEY} else found
    if not isinstance(group, dict):
        problems.append(f"{name} holds {shown(found)}: it is a group of keys in braces; use {EXAMPLE}.")
        return None
    return group
