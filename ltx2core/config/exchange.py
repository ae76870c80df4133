"""What becomes of settings on the way to or from another program: key by key kept, changed or refused, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ltx2core.config.wording import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ltx2core.config.load import LoadedConfig
    from ltx2core.runs.events import Notice

Verdict = Literal["kept", "changed", "refused", "default"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A setting of the one side and what it is on the other. default: it is not set, and the two programs' own values differ."""

    verdict: Verdict
    source: str  # "lora_rank = 16"
    target: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Files for the other side, and what became of every key."""

    config: dict[str, object]
    datasets: list[dict[str, object]]
    rows: tuple[Row, ...]
    files: dict[str, str] = field(default_factory=dict)  # further texts that the two name, by their file's name


def said(name: str, value: object) -> str:
    """A setting as a table shows it."""
    return f"{name} = {shown(value)}"


def reason_of(name: str, notices: Iterable[Notice]) -> str:
    """Why a key was changed: the rule in the notice that names it, without the file, the key and its value."""
    bare = name.rpartition(".")[2]
    texts = [notice.text for notice in notices]
    text = next((text for text in texts if f"{name} =" in text), next((text for text in texts if f"{bare} =" in text), ""))
    return text.split(": ", 1)[-1].rstrip(".") if text else "LTX-2 cannot take it as it was written"


def own_files(loaded: LoadedConfig) -> Exchange:
    """The settings for this program's own files: every key that is set, as it will be used."""
    config = loaded.config.model_dump(mode="json", exclude_unset=True, exclude_none=True, exclude={"data_backend_config"})
    entries = [entry for entry in loaded.datasets.entries if entry.model_fields_set]
    datasets = [entry.model_dump(mode="json", exclude_unset=True, exclude_none=True) for entry in entries]
    rows = tuple(Row(verdict="kept", source=said(name, value), target=said(name, value)) for name, value in config.items())
    return Exchange(config=config, datasets=datasets, rows=rows)
