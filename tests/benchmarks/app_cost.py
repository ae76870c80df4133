"""What the app costs training: nano's step time in the app against headless, in turn, as a JSON line.

python tests/benchmarks/app_cost.py [PAIRS] [STEPS]
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ltx2core.runs import events
from ltx2core.runs.folder import RunFolder
from ltx2core.runs.journal import read_journal
from ltx2tui.draft import Draft
from tests.app.scenes import CAPTION, write_clip
from tests.app.terminals import Screen


def main(pairs: int = 3, steps: int = 120) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _write_config(folder, steps)
        ratios = []
        for pair in range(pairs):
            ways = ("app", "headless") if pair % 2 else ("headless", "app")
            seconds = {way: _step_seconds(folder, way, f"{way}-{pair}") for way in ways}
            ratios.append(seconds["app"] / seconds["headless"])
    result = {
        "bench": "app_cost",
        "step_time_ratio_median": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }
    print(json.dumps({**result, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}))


def _step_seconds(folder: Path, way: str, name: str) -> float:
    """The median step time of a run, its first twenty steps left out."""
    command = [str(Path(sys.executable).with_name("ltx2tui")), "train", "--config", "config.json", "--run", name]
    screen = Screen(
        *command, *(["--headless"] if way == "headless" else []), cwd=folder, env={"XDG_CONFIG_HOME": str(folder)}, columns=120, rows=40
    )
    screen.wait_for("Finished", seconds=600)
    screen.type("q")
    screen.end()
    entries = read_journal(RunFolder(folder / "runs" / name).journal)
    return statistics.median(entry.event.seconds for entry in entries if isinstance(entry.event, events.StepDone) and entry.event.step > 20)


def _write_config(folder: Path, steps: int) -> None:
    for number in range(2):
        write_clip(folder / "clips" / f"{number}.mp4")
        (folder / "clips" / f"{number}.txt").write_text(CAPTION)
    values = {"max_train_steps": steps, "validation_disable": True, "eval_steps_interval": 0, "checkpoint_step_interval": 10_000}
    config, datasets = Draft(folder=str(folder / "clips")).config()
    (folder / "datasets.json").write_text(json.dumps(datasets))
    (folder / "config.json").write_text(json.dumps({**config, **values, "data_backend_config": "datasets.json"}))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
