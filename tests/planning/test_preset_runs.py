"""What is predicted of presets is what whole runs of them took under the memory of their cards, phase by phase."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.plan_grid import read_done
from tests.benchmarks.preset_runs import compare

RUNS = read_done(Path(__file__).parents[1] / "data" / "preset_runs.jsonl")
MOST = {("train", "vram"): 3.0, ("train", "ram"): 6.0, ("sample", "vram"): 4.5}  # percent; 6.5 for the others, 8 for their RAM


def test_every_run_came_to_its_end_with_a_lora() -> None:
    assert len(RUNS) >= 36
    assert all(run["finished"] and run["loras"] == 1 and run["samples"] == 1 and "error" not in run for run in RUNS.values())


@pytest.mark.parametrize("name", RUNS)
def test_phases_of_a_preset_take_what_its_run_took(name: str) -> None:
    found = [one for one in compare(RUNS[name]) if one.exact]
    assert found or "motion" in name or "x" in name
    for one in found:
        assert abs(one.percent) < MOST.get((one.phase, one.what), 8.0 if one.what == "ram" else 6.5), one
