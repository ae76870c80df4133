"""`ltx2tui plan`: what a config needs on a card, how long it takes, and what would be better. Loads no torch, and nothing on the GPU."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltx2core.errors import ConfigError
from ltx2core.planning.hardware import Hardware, hardware_named
from ltx2core.planning.remembered import key_of, plans_file, remember, remembered

if TYPE_CHECKING:
    import argparse

    from ltx2core.config.load import LoadedConfig


def run(arguments: argparse.Namespace) -> int:
    if arguments.history:
        return _history(arguments)
    hardware = _hardware(arguments)
    key = _key(arguments, hardware)
    document: dict[str, Any] | None = None if key is None else remembered(key, plans_file())
    if document is None:
        from ltx2core.planning.document import plan_document

        document = plan_document(_loaded(arguments), hardware, goal=arguments.goal)
        if key is not None:
            remember(key, document, plans_file())
    if arguments.json:
        json.dump(document, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
    else:
        from ltx2tui.plan_lines import show_plan

        show_plan(document)
    return 0 if document["prediction"]["fits"] else 1


def _history(arguments: argparse.Namespace) -> int:
    """How near predictions were. Needs no card; the correction is that of the card which is here."""
    from ltx2core.hardware.probe import probe_machine
    from ltx2core.planning.before_run import hardware_here
    from ltx2core.planning.history import errors
    from ltx2tui.history_lines import history_json, show_history

    runs, here = errors(arguments.root), hardware_here(probe_machine(arguments.root), arguments.root)
    correction = 1.0 if here is None else here.correction
    if arguments.json:
        json.dump(history_json(runs, correction=correction), sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
    else:
        show_history(runs, correction=correction)
    return 0


def _hardware(arguments: argparse.Namespace) -> Hardware:
    """The card that is named, else the one that is here. Raises ConfigError where there is neither."""
    if arguments.card is not None or arguments.gpu_memory_gib is not None:
        return hardware_named(arguments.card, gpu_memory_gib=arguments.gpu_memory_gib, ram_gib=arguments.ram_gib, cards=arguments.gpus)
    from ltx2core.hardware.probe import probe_machine
    from ltx2core.planning.before_run import hardware_here

    machine = probe_machine(arguments.root)
    found = hardware_here(machine, arguments.root)
    if found is None:
        why = machine.no_gpu_because or "Its memory cannot be read."
        raise ConfigError([f"There is no card here to plan for. {why}"], fix="Name one: --card 4090, or --gpu-memory-gib 24.")
    if arguments.gpus is not None:
        if found.cards is not None and not 1 <= arguments.gpus <= found.cards:
            raise ConfigError(
                [f"--gpus {arguments.gpus}: {found.cards} of this card are here; use {found.cards}, or name a card with --card."]
            )
        found = dataclasses.replace(found, cards=arguments.gpus)
    if arguments.ram_gib is not None:
        raise ConfigError([f"--ram-gib {arguments.ram_gib:g} belongs to a machine that is named; name its card, too, with --card."])
    return found


def _loaded(arguments: argparse.Namespace) -> LoadedConfig:
    from ltx2core.config.load import look_at
    from ltx2core.config.sources import read_source
    from ltx2core.planning.document import STARTER, STARTER_CLIPS

    if arguments.config is None:
        return look_at(STARTER, base=Path.cwd(), datasets=STARTER_CLIPS)
    return read_source(arguments.config, root=arguments.root).loaded


def _key(arguments: argparse.Namespace, hardware: Hardware) -> str | None:
    """Of all that the plan follows from, without reading settings as settings, which takes longer than all the rest; None where settings
    are written in another way than plain JSON, so that what they name is not known."""
    files: list[Path] = []
    if arguments.config is not None:
        given = Path(arguments.config)
        if not given.is_file():  # a run or a preset
            from ltx2core.config.sources import read_source

            given = read_source(arguments.config, root=arguments.root).path
        files.append(given)
    try:
        for path in files:  # grows: the dataset list is named by the config
            named = [place for text in _strings(path) for place in (Path(text), path.parent / text)]
            files += [place for place in named if place.suffix == ".json" and place.is_file() and place not in files]
        named = [place for path in files for text in _strings(path) for place in (Path(text), path.parent / text)]
    except (OSError, ValueError):
        return None
    folders = dict.fromkeys(place for place in named if place.is_dir())
    models = [(str(place), place.stat().st_mtime_ns) for place in named if place.suffix == ".safetensors" and place.is_file()]
    here = str(Path.cwd()), str(arguments.root.absolute())
    return key_of(files, folders, [here, arguments.config, arguments.goal, dataclasses.asdict(hardware), models])


def _strings(path: Path) -> list[str]:
    """Every text in a JSON file that could be a path: no reader of settings has looked at it yet. Raises ValueError for other files."""
    found: list[str] = []
    waiting = [json.loads(path.read_text(encoding="utf-8"))]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and 0 < len(value) < 1000 and value.isprintable():
            found.append(value)
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return found
