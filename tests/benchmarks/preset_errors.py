"""What whole runs of presets held, phase by phase, against what is predicted of them now: errors in percent, as JSON. Loads no torch.

python -m tests.benchmarks.preset_errors tests/data/preset_runs.jsonl        lines of preset_runs.py, from H100s and H200s with much RAM
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltx2core.config.load import look_at
from ltx2core.config.sources import preset_files
from ltx2core.planning.hardware import hardware_named
from ltx2core.planning.predict import predict
from tests.benchmarks.plan_grid import read_done
from tests.benchmarks.preset_runs import CLIPS, GIB, shortened

_MOST_IDLE = 1.0  # GiB of a sample's, as decoding itself leaves


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What a phase of a run is predicted to hold now, and what it held, GiB.

    exact: whether the two are of the same: blocks held as they would be planned now, samples decoded as they would be, in no way that
    failed at the limit before, no rungs, and little that drawing had left idle, which is given back before decoding now.
    """

    case: str
    phase: str
    what: str
    predicted: float
    measured: float
    exact: bool

    @property
    def percent(self) -> float:
        return 100 * (self.predicted / self.measured - 1)


def compare(line: dict[str, Any]) -> list[Compared]:
    """Of a line of a run with much RAM."""
    preset = json.loads(preset_files()[line["case"]].read_text(encoding="utf-8"))
    keys = shortened(preset, steps=line["steps"], sample_steps=line["sample_steps"])
    loaded = look_at(preset["config"] | keys, base=Path(), datasets=preset["datasets"])
    hardware = hardware_named("H100" if "H100" in line["card"] else "H200", ram_gib=500, cards=line["gpus"])
    found = predict(loaded.config, hardware, datasets=loaded.datasets, clips=CLIPS)
    held = {(phase.name, what): getattr(phase, f"{what}_bytes") / GIB for phase in found.phases for what in ("vram", "ram")}
    for what in ("vram", "ram"):  # one phase of a run
        held["sample", what] = max(held["sample", what], held["decode", what])
    streamed = -1 if found.plan is None else found.plan.streamed
    as_planned = line["engines"][0]["streamed"] == streamed and not line["rungs"]
    lines = []
    for check in line["checks"]:
        if check["what"] in ("vram", "ram"):
            exact = check["phase"] in ("text", "encode") or (as_planned and line["gpus"] == 1)
            if check["phase"] == "sample":
                exact = exact and found.decoded == line.get("decoded", "") and _sampled_within(line) and check.get("idle", 0.0) < _MOST_IDLE
            key = check["phase"], check["what"]
            told = {"case": line["case"], "phase": key[0], "what": key[1]}
            lines.append(Compared(**told, predicted=held[key], measured=check["measured"], exact=exact))
    return lines


def _sampled_within(line: dict[str, Any]) -> bool:
    """Whether samples left some of the limit: a way of decoding that does not fit goes up to it."""
    return all(
        check["measured"] < line["limit_gib"] - 0.1 for check in line["checks"] if (check["phase"], check["what"]) == ("sample", "vram")
    )


def summary(path: Path) -> dict[str, Any]:
    """Errors by phase, in percent, of what is predicted now."""
    lines = list(read_done(path).values())
    found = [one for line in lines for one in compare(line) if one.exact]
    errors: dict[str, list[float]] = {}
    for one in found:
        errors.setdefault(f"{one.phase} {one.what}", []).append(one.percent)
    finished = [line for line in lines if line.get("finished") and line.get("loras") and "error" not in line]
    return {
        "runs": len(lines),
        "finished": len(finished),
        "took_rungs": [line["case"] for line in lines if line["rungs"]],
        "percent": {
            name: {
                "runs": len(some),
                "median": round(statistics.median(map(abs, some)), 1),
                "least": round(min(some), 1),
                "most": round(max(some), 1),
            }
            for name, some in errors.items()
        },
    }


if __name__ == "__main__":
    print(json.dumps(summary(Path(sys.argv[1])), indent=1))
