"""Predicted against measured: memory and seconds of a step for a grid of layouts, precisions, sizes and caps, each run as it is planned.

python -m tests.benchmarks.plan_grid [--part 0 --parts 2]     a JSON line for each case; predictions first, then what came of them
python -m tests.benchmarks.plan_grid --summary FILE [...]     the errors of lines that were printed before
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2core.planning.step_plan import StepWish
from tests.benchmarks import step_time
from tests.benchmarks.step_time import FP8, FP8_BOTH_WAYS, INT8, Case

if TYPE_CHECKING:
    from collections.abc import Iterable

BF16 = StepWish()
HOST = StepWish(inputs_to_host=True)


def grid() -> dict[str, Case]:
    """By name. Ordered by shape, so that compiled blocks are found again."""
    found: dict[str, Case] = {}

    def add(name: str, tokens: int, wish: StepWish, caps: Iterable[float | None], **others: object) -> None:
        for cap in caps:
            found[f"{name}-{tokens}-{'all' if cap is None else f'{cap:g}'}"] = Case(tokens=tokens, wish=wish, cap_gib=cap, **others)  # type: ignore[arg-type]

    add("bf16", 2688, BF16, (None, 60, 48, 40, 32, 24, 16, 12))
    add("bf16-recomputed", 2688, StepWish(recompute_all=True), (None, 32))
    add("bf16-half-streamed", 2688, StepWish(streamed=24, slots=3), (None,))
    add("bf16-host", 2688, HOST, (16,))
    add("fp8-both-ways", 2688, FP8_BOTH_WAYS, (None, 40, 24, 16, 12, 8))
    add("fp8", 2688, FP8, (None, 24, 12))
    add("int8", 2688, INT8, (None, 24, 16, 12, 8))
    add("bf16-rank8", 2688, BF16, (None, 24), rank=8)
    add("int8-rank128", 2688, INT8, (24,), rank=128)
    add("bf16-video", 2688, BF16, (None, 24), audio=False)
    add("bf16-batch2", 2688, BF16, (None, 48), batch=2)
    add("bf16", 6144, BF16, (None, 60, 48, 24, 16))
    add("fp8-both-ways", 6144, FP8_BOTH_WAYS, (None, 24, 16, 12))
    add("int8", 6144, INT8, (24, 12))
    add("bf16", 14080, BF16, (None, 48, 24))
    add("fp8-both-ways", 14080, FP8_BOTH_WAYS, (None, 24, 16))
    return found


def summary(paths: Iterable[Path]) -> dict[str, object]:
    """Errors, in percent: of memory those too low apart, for they are what ends a run."""
    lines = [json.loads(line) for path in paths for line in path.read_text().splitlines() if line.startswith('{"case"')]
    done = [line for line in lines if "seconds" in line and line.get("planned_gib") is not None]
    memory = [100 * (line["planned_gib"] - line["process_gib"]) / line["process_gib"] for line in done]
    seconds = [100 * (line["planned_seconds"] - line["seconds"]) / line["seconds"] for line in done]
    return {
        "cases": len(done),
        "failed": [line["case"] for line in lines if "error" in line],
        "memory_percent": {
            "median": round(statistics.median(map(abs, memory)), 1),
            "most": round(max(memory), 1),
            "least": round(min(memory), 1),
        },
        "seconds_percent": {
            "median": round(statistics.median(map(abs, seconds)), 1),
            "most": round(max(seconds), 1),
            "least": round(min(seconds), 1),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--summary", nargs="*", type=Path)
    options = parser.parse_args()
    if options.summary:
        print(json.dumps(summary(options.summary), indent=1))
        return
    cases = grid()
    share = -(-len(cases) // options.parts)
    print(json.dumps({"rates": step_time.device_rates().as_json()}), flush=True)
    for name in list(cases)[options.part * share : (options.part + 1) * share]:
        step_time.run_case(name, cases[name], steps=options.steps, layers=options.layers)


if __name__ == "__main__":
    main()
