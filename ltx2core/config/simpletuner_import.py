"""SimpleTuner's config.json and multidatabackend.json as ours: what was kept, changed and refused, key by key.

A file of SimpleTuner's also loads as it is (load.py), where whatever is wrong stops it. An import leaves out what cannot be taken, says
why, and reads sizes as SimpleTuner does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ltx2core.config.datasets import TextEmbeds, VideoDataset
from ltx2core.config.entries import KINDS, LEFT_OUT
from ltx2core.config.exchange import Exchange, Row, reason_of, said
from ltx2core.config.keys import Keys, facts_of
from ltx2core.config.load import LIST_KEY, look_at
from ltx2core.config.memory_checks import idle_keys
from ltx2core.config.paths import find
from ltx2core.config.reading import read_settings
from ltx2core.config.simpletuner_keys import DEFAULTS, KEYS
from ltx2core.config.train import TrainConfig
from ltx2core.config.wording import model_in, nearest, reword, shown

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.config.load import LoadedConfig

_SIZE = re.compile(r"\s*(\d+)\s*[xX]\s*(\d+)\s*")


def import_simpletuner(values: dict[str, object], *, base: Path, name: str) -> Exchange:
    """What the settings of a config.json come to here. base: its folder, in which the dataset list is looked for. name: of the file."""
    reading = _Reading(base, name)
    config = reading.config(values)
    datasets = reading.datasets(values.get(LIST_KEY, values.get(f"--{LIST_KEY}")))
    loaded = look_at(config, base=base, datasets=datasets or None)
    written = reading.settle(config, loaded)
    entries = reading.settle_datasets(datasets, loaded)
    reading.defaults(config)
    return Exchange(config=written, datasets=entries, rows=tuple(reading.rows))


@dataclass
class _Reading:
    base: Path
    file: str
    rows: list[Row] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)  # our name of a key that is taken: the setting as the file has it
    turned: str = ""  # why the sample's size is written another way

    def config(self, values: dict[str, object]) -> dict[str, object]:
        """The values that work here, by our names."""
        names = {alias: key for key, item in TrainConfig.model_fields.items() for alias in (key, *facts_of(item).aliases)}
        found: dict[str, object] = {}
        for raw, value in values.items():
            bare = raw.lstrip("-").replace("-", "_")
            name = names.get(bare)
            if value is None or bare == LIST_KEY:
                continue
            if name is None:
                self.refuse(said(bare, value), _unknown(bare))
            elif name in found:
                self.refuse(said(bare, value), f"the same as {self.sources[name]}, which counts")
            elif why := _wrong(TrainConfig, name, value) or _not_built(TrainConfig, name, value):
                self.refuse(said(bare, value), why)
            else:
                found[name] = self._turned(name, bare, value)
        return found

    def _turned(self, name: str, bare: str, value: object) -> object:
        """The value, but for a size, which is width x height there and height x width here."""
        self.sources[name] = said(bare, value)
        match = _SIZE.fullmatch(value) if name == "validation_resolution" and isinstance(value, str) else None
        if match is None or match[1] == match[2]:
            return value
        self.turned = "SimpleTuner writes width x height, here it is height x width"
        return f"{match[2]}x{match[1]}"

    def settle(self, config: dict[str, object], loaded: LoadedConfig) -> dict[str, object]:
        """The config as it will be used, which LTX-2 may need otherwise than it was written; a row for each key."""
        written: dict[str, object] = {}
        idle = {name: f"no effect, since {one.why}" for one in idle_keys(loaded.config) for name in one.names}
        for name, value in config.items():
            if name in idle:
                self.refuse(self.sources[name], idle[name])
                continue
            used, before = getattr(loaded.config, name), getattr(TrainConfig.model_validate({name: value}), name)
            why = self.turned if name == "validation_resolution" else ""
            if used != before and name not in _PLACES:
                why = f"{why}; {reason_of(name, loaded.notices)}" if why else reason_of(name, loaded.notices)
            written[name] = _plain(used) if used != before else value
            self.rows.append(
                Row(verdict="changed" if why else "kept", source=self.sources[name], target=said(name, written[name]), why=why)
            )
        return written

    def settle_datasets(self, entries: list[dict[str, object]], loaded: LoadedConfig) -> list[dict[str, object]]:
        """The same for the dataset list."""
        listed = loaded.datasets
        used: dict[object, Keys] = {d.id: d for d in (*listed.videos, *listed.evals, *listed.sounds, *listed.conditioning)}
        used[listed.text_embeds.id] = listed.text_embeds
        written = []
        for entry in entries:
            model = used.get(entry.get("id", VideoDataset.model_fields["id"].default))
            written.append(entry if model is None else self._settle_group(entry, model, f"dataset {entry.get('id', '')}: ", "", loaded))
        return written

    def _settle_group(self, entry: dict[str, object], used: Keys, where: str, path: str, loaded: LoadedConfig) -> dict[str, object]:
        written: dict[str, object] = {}
        for name, value in entry.items():
            now = getattr(used, name)
            if name in _CACHES:
                self.refuse(where + said(path + name, value), "caches of all runs lie together under cache/")
                continue
            if isinstance(value, dict) and isinstance(now, Keys):
                written[name] = self._settle_group(value, now, where, f"{path}{name}.", loaded)
                continue
            target, why = _settled(type(used), name, value, now)
            if why:
                why = reason_of(f".{path}{name}", loaded.notices) if why == _BY_RULE else why
            written[name] = target
            row = Row(
                verdict="changed" if why else "kept", source=where + said(path + name, value), target=said(path + name, target), why=why
            )
            self.rows.append(row)
        return written

    def defaults(self, config: dict[str, object]) -> None:
        """Keys that the file leaves to SimpleTuner's own defaults, where those are not ours."""
        for name, theirs in DEFAULTS.items():
            if name not in config:
                ours = TrainConfig.model_fields[name].default
                self.rows.append(Row(verdict="default", source=said(name, theirs), target=said(name, ours), why="not in the file"))

    def datasets(self, place: object) -> list[dict[str, object]]:
        """The entries of the dataset list that work here."""
        if not isinstance(place, str):
            return []
        path = find(place, (self.base,)) or find(place.rpartition("/")[2], (self.base,))
        if path is None:
            self.refuse(said(LIST_KEY, place), "there is no such file: name the dataset list in the config that was written")
            return []
        listed = read_settings(path, notes=[])
        if not isinstance(listed, list):
            self.refuse(said(LIST_KEY, place), "it holds no list of datasets")
            return []
        return [entry for index, item in enumerate(listed) if (entry := self._entry(item, index)) is not None]

    def _entry(self, item: object, index: int) -> dict[str, object] | None:
        if not isinstance(item, dict):
            self.refuse(f"[{index}] = {shown(item)}", "an entry is a group of keys in braces")
            return None
        where = f"dataset {item.get('id', index)}: "
        kind = item.get("dataset_type", "video") or "video"
        if item.get("disabled", item.get("disable")) is True:
            self.refuse(f"{where}disabled", "it is switched off")
            return None
        if kind not in KINDS:
            self.refuse(where + said("dataset_type", kind), LEFT_OUT.get(str(kind), "there is no such kind of dataset"))
            return None
        place = item.get("type", "local")
        if place != "local":
            self.refuse(where + said("type", place), "only folders on this machine are read")
            return None
        return self._group(TextEmbeds if kind == "text_embeds" else VideoDataset, item, where, "")

    def _group(self, model: type[Keys], values: dict[str, object], where: str, path: str) -> dict[str, object]:
        """A group of keys without those that are refused."""
        names = {alias: key for key, item in model.model_fields.items() for alias in (key, *facts_of(item).aliases)}
        found: dict[str, object] = {}
        for raw, value in values.items():
            name, inner = names.get(raw), None
            if value is None:
                continue
            if name is not None and isinstance(value, dict):
                inner = model_in(model.model_fields[name])
            if name is None:
                self.refuse(where + said(path + raw, value), "there is no such key here")
            elif inner is not None and issubclass(inner, Keys) and isinstance(value, dict):
                found[name] = self._group(inner, value, where, f"{path}{name}.")
            elif why := _wrong(model, name, value) or _not_built(model, name, value):
                self.refuse(where + said(path + raw, value), why)
            else:
                found[name] = value
        return found

    def refuse(self, source: str, why: str) -> None:
        self.rows.append(Row(verdict="refused", source=source, why=why))


_PLACES = ("pretrained_model_name_or_path", "pretrained_gemma_model_name_or_path", "init_lora", "output_dir")
_CACHES = ("cache_dir", "cache_dir_vae", "text_embeds", "image_embeds")
_BY_RULE = "by a rule of LTX-2's"


def _settled(model: type[Keys], name: str, value: object, used: object) -> tuple[object, str]:
    """(what is written, why it is not what was given) of a dataset's key."""
    if hasattr(used, "__fspath__") or used is None:
        return str(used) if used is not None else value, "" if used is not None else "it has no effect with the other settings"
    rest: dict[str, object] = {"instance_data_dir": "."} if model is VideoDataset and name != "instance_data_dir" else {}
    before = getattr(model.model_validate({**rest, name: value}), name)
    return (value, "") if used == before else (_plain(used), _BY_RULE)


def _wrong(model: type[Keys], name: str, value: object) -> str:
    """Why a value cannot be that of a key, and what would work; empty where it can."""
    rest: dict[str, object] = {"instance_data_dir": "."} if model is VideoDataset and name != "instance_data_dir" else {}
    if name == "tread_config" and isinstance(value, str):
        return ""  # the file that holds it is read with the whole config
    try:
        model.model_validate({**rest, name: value})
    except ValidationError as error:
        wrong = [one for one in error.errors() if one["loc"][:1] == (name,)]
        return reword(error, file="", model=model)[0].strip().split(": ", 1)[-1].rstrip(".") if wrong else ""
    return ""


def _not_built(model: type[Keys], name: str, value: object) -> str:
    facts = facts_of(model.model_fields[name])
    if facts.later is None:
        return ""
    rest: dict[str, object] = {"instance_data_dir": "."} if model is VideoDataset else {}
    read = getattr(model.model_validate({**rest, name: value}), name)
    return "" if read in facts.built else f"{facts.later.name} is not built yet; {facts.later.instead}"


def _unknown(name: str) -> str:
    if name in KEYS:
        return "SimpleTuner's own, with no meaning here"
    match = nearest(name, KEYS)
    return f"neither program has such a key; {match} may be meant" if match else "neither program has such a key"


def _plain(value: object) -> object:
    return str(value) if hasattr(value, "__fspath__") else value
