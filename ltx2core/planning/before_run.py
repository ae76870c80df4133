"""What is predicted for a config on the machine that it is about to run on, and the warnings that follow. Loads no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ltx2core.errors import ConfigError
from ltx2core.hardware.before_start import warnings_before
from ltx2core.planning.document import count_clips, version_in_header
from ltx2core.planning.hardware import hardware_of
from ltx2core.planning.predict import Prediction, forecast_of, predict
from ltx2core.runs.events import Notice

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.config.load import LoadedConfig
    from ltx2core.hardware.machine import Machine


def predicted_for(machine: Machine, loaded: LoadedConfig, *, correction: float = 1.0) -> Prediction | None:
    """What a run of this config will need here; None without a card, and for what is not predicted (nano, sound alone, the reference)."""
    hardware = hardware_of(machine)
    if hardware is None:
        return None
    datasets = loaded.datasets if loaded.datasets.videos else None
    try:
        return predict(
            loaded.config,
            replace(hardware, correction=correction),
            datasets=datasets,
            clips=count_clips(loaded),
            version=version_in_header(loaded),
        )
    except ConfigError:
        return None


def warnings_of(machine: Machine, loaded: LoadedConfig, *, root: Path) -> list[Notice]:
    """What should be known before a run starts. root: where its cache lies; what is in it already need not be written."""
    prediction = predicted_for(machine, loaded)
    if prediction is None:
        return warnings_before(machine, loaded)
    cached = (root / "cache").is_dir()
    found = warnings_before(machine, loaded, forecast=forecast_of(prediction, cached=cached))
    needed = ("train",) if cached else ("text", "train")  # a phase that has no room at all is not there
    if prediction.misfit is not None and any(prediction.phase(name) is None for name in needed):
        found.append(Notice(code="does_not_fit", level="warning", text=prediction.misfit, fix="`ltx2tui plan` recommends what fits."))
    return found
