"""`ltx2tui import`: a config of SimpleTuner's or of the official LTX-2 trainer as one of ours."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ltx2core.config.reading import read_settings, unusable
from ltx2core.config.simpletuner_import import import_simpletuner
from ltx2core.config.trainer_import import import_trainer, is_trainer_config, read_yaml
from ltx2core.errors import ConfigError
from ltx2tui.exchanging import print_exchange_json, show_exchange, write_exchange

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from ltx2core.config.exchange import Exchange


def run(arguments: argparse.Namespace) -> int:
    program, exchange = _imported(arguments.file, arguments.clips)
    if not arguments.json:
        show_exchange(exchange, heads=(program, "here"))
    files = write_exchange(exchange, arguments.out, list_name="datasets.json", reader_starts_here=False)
    if arguments.json:
        print_exchange_json(exchange, files)
        return 0
    sys.stdout.write(f"Written: {' and '.join(map(str, files))}. Check them with `ltx2tui config check {arguments.out}`.\n")
    return 0


def _imported(file: Path, clips: str | None) -> tuple[str, Exchange]:
    """The program that a file is of, and what its settings come to. Raises ConfigError for a file of neither."""
    base = file.absolute().parent
    if file.suffix.lower() in (".yaml", ".yml"):
        values = read_yaml(file)
        if not is_trainer_config(values):
            raise ConfigError(
                [f"{file.name} is no config of the LTX-2 trainer, which has groups such as model, lora, optimization and data."]
            )
        return "LTX-2 trainer", import_trainer(values, base=base, clips=clips)
    found = read_settings(file, notes=[])
    if not isinstance(found, dict):
        raise ConfigError([f"{file.name} is no config: name the config.json that names this dataset list."])
    if bad := unusable(found, name=file.name):
        raise ConfigError(bad)
    if is_trainer_config(found):
        return "LTX-2 trainer", import_trainer(found, base=base, clips=clips)
    return "SimpleTuner", import_simpletuner(found, base=base, name=file.name)
