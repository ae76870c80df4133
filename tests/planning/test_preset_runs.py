"""What is predicted of presets is what whole runs of them took under the memory of their cards, phase by phase."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.plan_grid import read_done
from tests.benchmarks.preset_errors import compare

RUNS = read_done(Path(__file__).parents[1] / "data" / "preset_runs.jsonl")
MOST = {("train", "vram"): 3.0, ("train", "ram"): 6.0, ("sample", "vram"): 4.5}  # percent; 6.5 for the others, 8 for their RAM


def test_every_run_came_to_its_end_with_a_lora() -> None:
    assert len(RUNS) >= 46
    assert all(run["finished"] and run["loras"] == 1 and run["samples"] == 1 and "error" not in run for run in RUNS.values())


def test_phases_of_presets_take_what_their_runs_took() -> None:
    found = [one for run in RUNS.values() for one in compare(run) if one.exact]
    far = [one for one in found if abs(one.percent) >= MOST.get((one.phase, one.what), 8.0 if one.what == "ram" else 6.5)]
    assert not far
    runs = {phase: len({one.case for one in found if one.phase == phase}) for phase in ("text", "encode", "train", "sample")}
    assert runs["text"] >= 28
    assert runs["encode"] >= 43
    assert runs["train"] >= 18
    assert runs["sample"] >= 13
