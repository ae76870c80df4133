"""Settings by name: a preset, a run, a plan or a config file, for commands that take any of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import ltx2core
from ltx2core.config.load import LIST_KEY, look_at
from ltx2core.config.reading import read_settings
from ltx2core.config.wording import nearest
from ltx2core.errors import ConfigError
from ltx2core.runs.folder import RunFolder

if TYPE_CHECKING:
    from ltx2core.config.load import LoadedConfig

Kind = Literal["preset", "run", "plan", "config"]


@dataclass(frozen=True)
class Source:
    """Settings and where they came from. Clips need not be there."""

    name: str
    kind: Kind
    loaded: LoadedConfig
    path: Path


def presets_folder() -> Path:
    """Where the presets are: inside the installed package, or at the top of a checkout."""
    packed = Path(ltx2core.__file__).parent / "presets"
    return packed if packed.is_dir() else Path(ltx2core.__file__).parents[1] / "presets"


def preset_files() -> dict[str, Path]:
    """Every preset by its name."""
    return {path.stem: path for path in sorted(presets_folder().glob("*.json"))}


def read_source(name: str, *, root: Path) -> Source:
    """The settings that a name stands for: a file or a run's folder, else a run below `root`, else a preset. Raises ConfigError."""
    given = Path(name).expanduser()
    if given.is_dir() and RunFolder(given).config.is_file():
        return _from_file(RunFolder(given).config, name=given.name, kind="run")
    if given.is_file():
        return _from_file(given, name=name, kind="config")
    run = RunFolder(root / "runs" / name)
    if "/" not in name and run.config.is_file():
        return _from_file(run.config, name=name, kind="run")
    presets = preset_files()
    if name in presets:
        return _from_file(presets[name], name=name, kind="preset")
    runs = [folder.name for folder in (root / "runs").glob("*") if (folder / "config.json").is_file()]
    match = nearest(name, [*presets, *runs])
    works = f"use {match}" if match else "name a config.json, a run's folder, a plan or a preset"
    raise ConfigError([f"{name}: there is no such file, run or preset; {works}."])


def _from_file(path: Path, *, name: str, kind: Kind) -> Source:
    """A config as it is, or the one inside a plan or a preset: `{"config": {...}, "datasets": [...]}`."""
    values = read_settings(path, notes=[])
    if isinstance(values, list):
        raise ConfigError([f"{path.name} is a dataset list; name the config.json that names it with {LIST_KEY}."])
    datasets: object = None
    if isinstance(values, dict) and isinstance(values.get("config"), dict):
        kind = "plan" if kind == "config" else kind
        values, datasets = values["config"], values.get("datasets")
    loaded = look_at(values, base=path.absolute().parent, datasets=datasets, file=path.name)
    return Source(name=name, kind=kind, loaded=loaded, path=path)
