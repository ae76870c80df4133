"""What the app costs training: nano's step time in the app against headless, in turn, as a JSON line.

python tests/benchmarks/app_cost.py [PAIRS] [STEPS]
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ltx2core.runs import events
from ltx2core.runs.folder import RunFolder
from ltx2core.runs.journal import Tail
from ltx2tui.draft import Draft
from tests.app.scenes import CAPTION, write_clip
from tests.app.terminals import Screen


def main(pairs: int = 3, steps: int = 150) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _write_config(folder, steps)
        ratios, shares = [], []
        for pair in range(pairs):
            ways = ("app", "headless") if pair % 2 else ("headless", "app")
            measured = {way: _run(folder, way, f"{way}-{pair}") for way in ways}
            ratios.append(round(measured["app"][0] / measured["headless"][0], 3))
            shares.append(round(measured["app"][1], 4))
    result = {
        "bench": "app_cost",
        "step_time_ratio_median": statistics.median(ratios),
        "ratios": ratios,
        "ui_thread_share_of_a_core": shares,
    }
    print(json.dumps({**result, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}))


def _run(folder: Path, way: str, name: str) -> tuple[float, float]:
    """(median step seconds, the first twenty left out; share of a core that the main thread took while training)."""
    command = [str(Path(sys.executable).with_name("ltx2tui")), "train", "--config", "config.json", "--run", name]
    command += ["--headless"] if way == "headless" else []
    screen = Screen(*command, cwd=folder, env={"XDG_CONFIG_HOME": str(folder)}, columns=120, rows=40)
    journal = Tail(RunFolder(folder / "runs" / name).journal)
    steps: list[events.StepDone] = []
    begin: tuple[float, float] | None = None
    ended = False
    while not ended:
        screen.read(0.2, draw=False)  # a terminal of its own costs nothing: pyte would take a core from the training
        for entry in journal.read():
            if isinstance(entry.event, events.StepDone):
                steps.append(entry.event)
            ended = ended or entry.event.kind in ("run_finished", "run_failed")
        if begin is None and len(steps) > 20:
            begin = time.monotonic(), _main_thread_seconds(screen.pid)
    assert begin is not None, "the run failed"
    share = (_main_thread_seconds(screen.pid) - begin[1]) / (time.monotonic() - begin[0])
    os.kill(screen.pid, signal.SIGTERM)
    screen.end()
    return statistics.median(step.seconds for step in steps if step.step > 20), share


def _main_thread_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
