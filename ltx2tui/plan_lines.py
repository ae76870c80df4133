"""A plan for a terminal of 80 columns and more: bars of memory by phase, seconds, why, and what is recommended. Written from its JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ltx2tui.words import duration, pace, size

if TYPE_CHECKING:
    from rich.console import RenderableType

PHASES = {
    "text": "captions",
    "encode": "clips",
    "train": "training",
    "sample": "sampling",
    "decode": "decoding",
}
GOALS = {"fastest": "Fastest", "best_quality": "Best quality", "longest": "Longest clips"}
_BAR = 20


def show_plan(document: dict[str, Any], console: Console | None = None) -> None:
    """Print it."""
    (console or Console(highlight=False)).print(plan_lines(document))


def plan_lines(document: dict[str, Any]) -> RenderableType:
    """All of it, top to bottom."""
    hardware, prediction = document["hardware"], document["prediction"]
    parts: list[RenderableType] = [*_heading(hardware, prediction), Text("")]
    if prediction["phases"]:
        parts += [_phases(hardware, prediction), Text("")]
    if prediction["because"]:
        parts += [Text("Why", style="bold"), *(_bullet(line) for line in prediction["because"])]
    if notices := document["notices"]:
        parts += [Text(""), Text("Notices", style="bold"), *(_bullet(line) for line in notices)]
    for one in document["recommendations"]:
        parts += [Text(""), *_recommendation(one)]
    if not document["recommendations"]:
        parts += [Text(""), Text("Nothing that could be recommended fits here, not even short and small clips.")]
    return Group(*parts)


def _heading(hardware: dict[str, Any], prediction: dict[str, Any]) -> list[Text]:
    clip = prediction["clip"]
    sound = "with sound" if clip["audio"] else "without sound"
    rates = "measured here" if hardware["rates"]["source"] == "measured" else "by its datasheet"
    gpus, per_second = prediction.get("gpus", 1), prediction.get("clips_a_second", 0.0)
    together = f" on each of {gpus} GPUs: {per_second:.2g} clips a second" if gpus > 1 else ""
    each = f"{clip['batch']} at a time{together}"
    lines = [
        Text(f"{hardware['card']}, {size(hardware['free_bytes'])} of GPU memory and {size(hardware['ram_bytes'])} of RAM free", "bold"),
        Text(f"Speed {rates}. Clips of {clip['width']}x{clip['height']}, {clip['frames']} frames, {sound}, {each}."),
    ]
    if prediction["fits"]:
        low, high = prediction["seconds_range"]
        steps = f"{prediction['steps']:,} steps" if prediction["steps"] else "an unknown number of steps"
        cached = "" if prediction["clips"] is not None else ", caching not counted (no clips are here)"
        lines.append(
            Text(f"Fits. {pace(prediction['step_seconds'])}, {steps}: {duration(low)} to {duration(high)} in all{cached}.", "green")
        )
    else:
        lines.append(Text(f"Does not fit. {prediction['misfit']}", "red"))
    return lines


def _phases(hardware: dict[str, Any], prediction: dict[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("", "GPU memory", "", "RAM", "", "time"):
        table.add_column(heading, no_wrap=True, justify="right" if heading == "time" else "left")
    for phase in prediction["phases"]:
        gpu, ram = phase["vram_bytes"], phase["ram_bytes"]
        table.add_row(
            PHASES[phase["name"]],
            _bar(gpu, hardware["free_bytes"], _BAR),
            size(gpu),
            _bar(ram, hardware["ram_bytes"], _BAR // 2),
            size(ram),
            "?" if phase["seconds"] is None else duration(phase["seconds"]),
        )
    return table


def _bar(value: int, most: int, width: int) -> Text:
    filled = min(width, round(width * value / most)) if most else width
    return Text("█" * filled + "░" * (width - filled), style="red" if value > most else "")


def _recommendation(one: dict[str, Any]) -> list[RenderableType]:
    found = one["prediction"]
    heading = Text(f"{GOALS[one['goal']]}: {pace(found['step_seconds'])}, {duration(found['total_seconds'])} in all", style="bold")
    changes = [f"{name} = {_shown(value)}" for name, value in one["values"].items()]
    changes += [f"datasets: {name} = {_shown(value)}" for name, value in one["of_datasets"].items()]
    sentences = [*one["why"], one["binds"], one["next_card"]]
    return [heading, *(Text(f"  {change}", style="cyan") for change in changes or ["as it is"]), *(_bullet(line) for line in sentences)]


def _shown(value: object) -> str:
    if value is None:
        return "left out"
    return json.dumps(value) if isinstance(value, bool | dict) else str(value)


def _bullet(line: str) -> Table:
    """A sentence that goes on below itself where it is longer than the line."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_row("  •", line)
    return table
