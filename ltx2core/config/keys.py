"""What a settings key knows about itself: title, description, rules, other names, and whether its feature is built yet.

Every model of settings derives from `Keys` and declares its fields with `key` or `later`. Loading, notices, `explain`, the wizard's
forms and docs/CONFIG.md all read these declarations; nothing lists keys a second time.
"""

from __future__ import annotations

import json
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """A feature that is not built yet: its keys are read, and one Notice says what happens instead."""

    name: str
    instead: str
    switch: str = ""  # the key that turns the feature on; the others mean nothing without it


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFacts:
    """What a field declares beyond type, default and rules."""

    aliases: tuple[str, ...]
    later: Later | None
    built: tuple[object, ...]  # the values that work although `later` is set
    switch: str = ""  # the key that turns on what this one is about; it means nothing without


def key(default: Any, title: str, description: str, *, aliases: tuple[str, ...] = (), switch: str = "", **rules: Any) -> Any:
    """A field whose feature is built. `rules` are pydantic's (ge, le, min_length, ...)."""
    extra: Any = {"aliases": list(aliases), "switch": switch}
    return Field(default, title=title, description=description, json_schema_extra=extra, **rules)


def later(default: Any, feature: Later, title: str, description: str, *, built: tuple[object, ...] = (), **rules: Any) -> Any:
    """A field whose feature is not built: any value but the default, or one of `built`, gives a Notice."""
    extra: Any = {"later": [feature.name, feature.instead, feature.switch], "built": [default, *built]}
    return Field(default, title=title, description=description, json_schema_extra=extra, **rules)


def facts_of(field: FieldInfo) -> KeyFacts:
    """What `key` or `later` wrote down with this field."""
    extra: Any = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    feature = extra.get("later")
    return KeyFacts(
        aliases=tuple(extra.get("aliases", ())),
        later=Later(name=feature[0], instead=feature[1], switch=feature[2]) if feature else None,
        built=tuple(extra.get("built", ())),
        switch=extra.get("switch", ""),
    )


def switched_on(model: BaseModel, feature: Later) -> bool:
    """Whether the key that turns a feature on does so; True for features without such a key."""
    if not feature.switch:
        return True
    field = type(model).model_fields[feature.switch]
    return getattr(model, feature.switch) not in (field.default, *facts_of(field).built)


class Keys(BaseModel):
    """A group of settings. Frozen: what a run was started with does not change under it."""

    # defer_build: the validators of a dozen groups would be built at import, and only TrainConfig's are used
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    group: ClassVar[str] = ""  # the heading over these keys in forms and tables

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_one(cls, value: object, info: ValidationInfo) -> object:
        """Python counts true as 1, so that `train_batch_size: true` would pass for a number."""
        if isinstance(value, bool) and info.field_name is not None and _is_number(cls.model_fields[info.field_name].annotation):
            raise PydanticCustomError("bool_not_expected", "true or false is not a number")
        return value


def read_json(value: object) -> object:
    """A list or a group of keys written as a string, as command lines need it, read as what it says; anything else as it is."""
    if not (isinstance(value, str) and value.lstrip().startswith(("[", "{"))):
        return value
    try:
        parsed: object = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return parsed


def _is_number(annotation: object) -> bool:
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return bool not in parts and (int in parts or float in parts)
