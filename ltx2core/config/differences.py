"""What differs between two sets of settings, by the values that will be used, with each key's meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel

from ltx2core.config.wording import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ltx2core.config.datasets import VideoDataset
    from ltx2core.config.load import LoadedConfig

ABSENT = "—"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A key that is not the same on both sides."""

    key: str
    first: str
    second: str
    title: str
    meaning: str  # what the key does, with its unit


def differences(first: LoadedConfig, second: LoadedConfig) -> list[Difference]:
    """Every key that differs, config.json's in the order of the models and then those of each dataset. Where files lie is left out."""
    found = list(_of_models(first.config, second.config, "", left_out=("data_backend_config",)))
    ours, theirs = _datasets(first), _datasets(second)
    for name in dict.fromkeys([*ours, *theirs]):
        if name not in ours or name not in theirs:
            present = ours.get(name) or theirs[name]
            sides = ("there", ABSENT) if name in ours else (ABSENT, "there")
            meaning = str(type(present).__doc__ or "")
            found.append(Difference(key=f"dataset {name}", first=sides[0], second=sides[1], title="Dataset", meaning=meaning))
        else:
            found += _of_models(ours[name], theirs[name], f"dataset {name}: ")
    if first.datasets.text_embeds != second.datasets.text_embeds:
        found += _of_models(first.datasets.text_embeds, second.datasets.text_embeds, "captions: ")
    return found


def _datasets(loaded: LoadedConfig) -> dict[str, VideoDataset]:
    listed = loaded.datasets
    return {dataset.id: dataset for dataset in (*listed.videos, *listed.evals, *listed.sounds, *listed.conditioning)}


def _of_models(first: BaseModel, second: BaseModel, path: str, *, left_out: tuple[str, ...] = ()) -> Iterator[Difference]:
    for name, field in type(first).model_fields.items():
        one, other = getattr(first, name), getattr(second, name)
        if one == other or name in left_out:
            continue
        if isinstance(one, BaseModel) and isinstance(other, BaseModel) and type(one) is type(other):
            yield from _of_models(one, other, f"{path}{name}.")
            continue
        yield Difference(key=path + name, first=_said(one), second=_said(other), title=field.title or name, meaning=field.description or "")


def _said(value: object) -> str:
    if value is None:
        return "empty"
    return shown(str(value) if hasattr(value, "__fspath__") else value)
