"""How a wrong setting is told: file, key path, value, the rule, and the nearest value that works."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails, ValidationError


def shown(value: object) -> str:
    """A value as the file writes it, cut to a line."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    try:
        text = json.dumps(value, ensure_ascii=False, default=_plain)
    except (ValueError, RecursionError):
        text = str(type(value).__name__)
    return text if len(text) <= 60 else f"{text[:56]} ..."


def _plain(value: object) -> object:
    """A path, or a group of keys as far as it was set, for JSON."""
    dump = getattr(value, "model_dump", None)
    return str(value) if dump is None else dump(exclude_unset=True)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The word that was most likely meant."""
    lower = {known.lower(): known for known in words}
    matches = difflib.get_close_matches(word.lower()[:100], lower, n=1, cutoff=0.6)
    return lower[matches[0]] if matches else None


def line(file: str, path: str, value: object, rule: str, works: str) -> str:
    """One problem as one line."""
    return f"{file} {path} = {shown(value)}: {rule}; {works}."


def reword(
    error: ValidationError, *, file: str, model: type[BaseModel], prefix: str = "", written: dict[str, str] | None = None
) -> list[str]:
    """A validation that failed, as a line for each wrong key.

    prefix: the path of the model in the file. written: the keys as the file spells them.
    """
    lines: dict[tuple[int | str, ...], str] = {}
    for details in error.errors(include_url=False):
        line_of_key = _one(details, file=file, model=model, prefix=prefix, written=written)
        lines.setdefault(_without_members(details["loc"]), line_of_key)
    return list(lines.values())


def _one(error: ErrorDetails, *, file: str, model: type[BaseModel], prefix: str = "", written: dict[str, str] | None = None) -> str:
    location = list(_without_members(error["loc"]))
    path = path_of(location, prefix=prefix, written=written)
    context: dict[str, Any] = error.get("ctx", {})
    kind = error["type"]
    if kind == "extra_forbidden":
        return line(file, path, error["input"], *_unknown(location, model))
    if kind == "missing":
        title = field.description if (field := field_at(model, location)) and field.description else "it is needed"
        return f"{file} {path} is missing: {title}"
    return line(file, path, error["input"], *_rule(kind, context, error, field_at(model, location)))


def _without_members(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """A location up to where pydantic tells the members of a union apart: each would be told as a problem of its own."""
    for index, part in enumerate(location):
        if index and part in ("str", "bool", "int", "float", "list[str]"):
            return location[:index]
    return location


def path_of(location: list[int | str], *, prefix: str = "", written: dict[str, str] | None = None) -> str:
    """`[1].video.num_frames` from a prefix and pydantic's location."""
    path = prefix
    for index, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            name = (written or {}).get(part, part) if index == 0 else part
            path += f".{name}" if path else name
    return path


def field_at(model: type[BaseModel], location: list[int | str]) -> FieldInfo | None:
    """The field that an error's location leads to."""
    field: FieldInfo | None = None
    current: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int):  # an entry of a list is of the list's model
            continue
        if current is None or part not in current.model_fields:
            return field
        field = current.model_fields[part]
        current = model_in(field)
    return field


def model_in(field: FieldInfo) -> type[BaseModel] | None:
    """The nested model of a field, if it has one."""
    from pydantic import BaseModel

    annotation: Any = field.annotation
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def key_names(model: type[BaseModel]) -> list[str]:
    """Every key a model reads, other names included."""
    from ltx2core.config.keys import facts_of

    return [name for key, field in model.model_fields.items() for name in (key, *facts_of(field).aliases)]


def _unknown(location: list[int | str], model: type[BaseModel]) -> tuple[str, str]:
    current: type[BaseModel] | None = model
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        field = current.model_fields.get(part) if current is not None else None
        current = model_in(field) if field is not None else None
    match = nearest(str(location[-1]), key_names(current)) if current is not None else None
    return "there is no such key", f"use {match}" if match else "remove it"


def _rule(kind: str, context: dict[str, Any], error: ErrorDetails, field: FieldInfo | None) -> tuple[str, str]:
    """The rule that was broken and what would work."""
    value = error["input"]
    default = None if field is None or field.is_required() else field.default
    use_default = "or leave the key out" if default is None or hasattr(default, "model_dump") else f"use {shown(default)}"
    bounds = {
        "greater_than_equal": ("ge", "it is at least {}", "use {}"),
        "less_than_equal": ("le", "it is at most {}", "use {}"),
        "greater_than": ("gt", "it is more than {}", ""),
        "less_than": ("lt", "it is less than {}", ""),
    }
    if kind in bounds:
        name, rule, works = bounds[kind]
        bound = shown(context[name])
        return rule.format(bound), works.format(bound) if works else use_default
    if kind == "literal_error":
        options = [part.strip().strip("'") for part in str(context["expected"]).replace(" or ", ", ").split(",")]
        match = nearest(value, options) if isinstance(value, str) else None
        rule = f"it is one of {', '.join(options)}" if len(options) > 1 else f"only {options[0]} is supported"
        return rule, f"use {match or (default if default in options else options[0])}"
    if kind == "bool_not_expected":
        return ("it is a whole number" if field is not None and "int" in str(field.annotation) else "it is a number"), use_default
    if kind in ("int_type", "int_parsing", "int_from_float", "int_parsing_size"):
        whole = f"use {round(value)}" if isinstance(value, float) and abs(value) < 1e15 else use_default
        return "it is a whole number", whole
    if kind in ("float_type", "float_parsing", "finite_number"):
        return "it is a number", use_default
    if kind in ("bool_type", "bool_parsing"):
        return "it is true or false", use_default
    if kind in ("string_type", "path_type"):
        return "it is text in quotes", f'use "{value}"' if isinstance(value, int | float) and not isinstance(value, bool) else use_default
    if kind == "string_too_short":
        return "it cannot be empty", use_default
    if kind in ("list_type", "too_short"):
        return 'it is a list, such as ["attn1.to_q"], with at least one entry', "or leave the key out"
    if kind == "tuple_type":
        return "it is a list", "or leave the key out"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return "it is a group of keys in braces", "use {}"
    if kind == "tread_route":
        return str(error["msg"]), str(context["works"])
    if kind == "too_few_pixels":
        return str(error["msg"]), 'use 512, or resolution_type "area" for megapixels'
    if kind == "too_few_megapixels":
        return str(error["msg"]), "use 0.25"
    if kind == "no_region":
        return str(error["msg"]), 'use "spatial_region": [0, 0, 4, 4]'
    if kind == "not_a_size":
        return "a size is height x width in pixels, both multiples of 32", "use 512x768"
    return str(error["msg"]).rstrip("."), use_default
