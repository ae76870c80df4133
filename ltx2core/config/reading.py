"""Reading a JSON file of settings so that whatever is wrong with it can be told in a line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ltx2core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

DEEPEST = 20  # levels of nesting; no key needs more than five


def read_settings(path: Path, *, notes: list[str]) -> object:
    """The value in a JSON file. Keys that are written twice are added to `notes`. Raises ConfigError with line and column."""
    name = path.name
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError([f"{path}: there is no such file; name a config.json that exists."]) from None
    except IsADirectoryError:
        raise ConfigError([f"{path} is a folder; name the config.json in it."]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{name} is not a text file: byte {error.start} is not UTF-8; save it as UTF-8 JSON."]) from None
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path} cannot be read: {getattr(error, 'strerror', None) or error}."]) from None
    if not text.strip():
        raise ConfigError([f"{name} is empty; write JSON into it, a config starts as {{ }} and a dataset list as [ ]."])
    return parse_settings(text, name=name, notes=notes)


def parse_settings(text: str, *, name: str, notes: list[str]) -> object:
    """The value of a JSON text; see `read_settings`."""

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        values: dict[str, object] = {}
        for key, value in items:
            if key in values:
                notes.append(f"{name} {key} is written twice; the second one counts.")
            values[key] = value
        return values

    def constant(word: str) -> object:
        raise ValueError(f"{word} is not a number in JSON; write a number")

    try:
        value: object = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise ConfigError([f"{name} line {error.lineno}, column {error.colno}: {_hint(text, error)}"]) from None
    except RecursionError:
        raise ConfigError([f"{name} is nested too deeply; settings have a few levels only."]) from None
    except ValueError as error:
        reason = "a number has thousands of digits; shorten it" if "digits" in str(error) else str(error)
        raise ConfigError([f"{name} is not valid JSON: {reason}."]) from None
    return value


def unusable(value: object, *, name: str, path: str = "", depth: int = 0) -> list[str]:
    """What in a value cannot be settings, whatever its key: too deep, numbers beyond all size, text that no file can hold."""
    if depth > DEEPEST:
        return [f"{name} {_printable(path)} is nested too deeply; settings have a few levels only."]
    if isinstance(value, dict):
        lines: list[str] = []
        for key, item in value.items():
            lines += unusable(str(key), name=name, path=path, depth=depth + 1)
            lines += unusable(item, name=name, path=f"{path}.{key}".lstrip("."), depth=depth + 1)
        return lines
    if isinstance(value, list | tuple):
        return [line for i, item in enumerate(value) for line in unusable(item, name=name, path=f"{path}[{i}]", depth=depth + 1)]
    if isinstance(value, str) and any(char == "\0" or "\ud800" <= char <= "\udfff" for char in value):
        return [f"{name} {_printable(path)}: the text holds a character that no file can hold (NUL or half a surrogate pair); remove it."]
    if isinstance(value, int) and abs(value) >= 2**63:
        return [f"{name} {_printable(path)}: the number is too large; use one below 2^63."]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return [f"{name} {_printable(path)}: the number is not finite; use a finite one."]
    return []


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")[:80]


def _hint(text: str, error: json.JSONDecodeError) -> str:
    """What is wrong at that place, and what would work."""
    before, at = text[: error.pos].rstrip(), text[error.pos : error.pos + 1]
    if before.endswith(",") and at in ("}", "]"):
        return f"a comma stands before {at}; remove the comma."
    if at == "'":
        return "text is written in single quotes; use double quotes."
    if at in ("/", "#"):
        return "JSON has no comments; remove it."
    if error.pos >= len(text.rstrip()):
        return "the file ends before its last bracket is closed; add what is missing."
    if error.msg.startswith("Extra data"):
        return "something follows after the end of the settings; remove it."
    if "delimiter" in error.msg and at == '"':
        return "a comma is missing before this; add it."
    for python, written in (("True", "true"), ("False", "false"), ("None", "null")):
        if text.startswith(python, error.pos):
            return f"{python} is written {written} in JSON; use {written}."
    return f"this is not valid JSON ({error.msg}); write keys and text in double quotes, with a comma between entries."
