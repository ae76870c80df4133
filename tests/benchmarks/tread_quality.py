"""What TREAD costs in what is learned, and saves in time: the demo's LoRA on nano with and without routes, over a few seeds.

    python tests/benchmarks/tread_quality.py [STEPS] [SEEDS] [PERCENT]

The held-out loss, which is never routed, at equal steps, and at equal time: where the faster of the two is done, the slower one's curve is
read at the step that it has reached by then. A step's cost is the CPU time of its thread, which other work on the machine leaves alone.
nano has 48 video tokens, too few to be faster for leaving some out; how much faster a step must be to be worth it is `break_even_speed`:
the steps with routes, over those without after which the held-out loss is the same.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ltx2core.config.tread import TreadKeys, TreadRouteKeys
from ltx2core.demo import prepare_demo
from ltx2core.runs.events import HeldOutMeasured
from ltx2core.runs.journal import read_journal
from ltx2core.training import loop
from ltx2core.training.session import TrainingSession

MEASURED = 8  # times a run


def routes_of(percent: int) -> TreadKeys:
    """So much of the tokens skips three of nano's five blocks."""
    return TreadKeys(routes=(TreadRouteKeys(selection_ratio=percent / 100, start_layer_idx=1, end_layer_idx=-2),))


@dataclass(frozen=True)
class Run:
    """curve: (step, held-out loss), from 0 on. seconds: the median CPU time of a step."""

    curve: list[tuple[int, float]]
    seconds: float

    def at(self, step: float) -> float:
        """The held-out loss after so many steps, between two measurements on a straight line."""
        for (before, high), (after, low) in zip(self.curve, self.curve[1:], strict=False):
            if before <= step <= after:
                return high + (low - high) * (step - before) / (after - before)
        return self.curve[-1][1]

    def reaches(self, loss: float) -> float | None:
        """After how many steps the held-out loss is that low for the first time; None where it never is."""
        for (before, high), (after, low) in zip(self.curve, self.curve[1:], strict=False):
            if low <= loss:
                return before + (after - before) * (high - loss) / (high - low) if high > loss else before
        return None


def train(root: Path, name: str, *, steps: int, seed: int, routes: TreadKeys | None) -> Run:
    loaded = prepare_demo(root, steps=steps)
    changes = {
        "seed": seed,
        "validation_disable": True,
        "eval_steps_interval": max(1, steps // MEASURED),
        "checkpoint_step_interval": 0,
        "tread_config": routes,
    }
    spent: list[float] = []
    step_of = loop.Loop._step

    def timed(self: loop.Loop, step: int) -> loop._Measured:
        begin = time.thread_time()
        measured = step_of(self, step)
        spent.append(time.thread_time() - begin)
        return measured

    loop.Loop._step = timed  # type: ignore[method-assign]
    try:
        session = TrainingSession(replace(loaded, config=loaded.config.model_copy(update=changes)), root=root, name=name, resume=False)
        if session.run() != "finished":
            sys.exit(f"{name}: {session.failure}")
    finally:
        loop.Loop._step = step_of  # type: ignore[method-assign]
    measured = [entry.event for entry in read_journal(session.folder.journal) if isinstance(entry.event, HeldOutMeasured)]
    return Run([(event.step, event.loss) for event in measured], statistics.median(spent))


def main(steps: int = 200, seeds: int = 3, percent: int = 50) -> None:
    routed, whole, routes = [], [], routes_of(percent)
    with tempfile.TemporaryDirectory() as place:
        for seed in range(seeds):
            whole.append(train(Path(place), f"whole-{seed}", steps=steps, seed=seed, routes=None))
            routed.append(train(Path(place), f"routed-{seed}", steps=steps, seed=seed, routes=routes))
    costs = [statistics.median(run.seconds for run in runs) for runs in (whole, routed)]
    reached = [one.reaches(other.at(steps)) for one, other in zip(whole, routed, strict=True)]
    time_of_both = steps * min(costs)
    result = {
        "bench": "tread_quality",
        "steps": steps,
        "seeds": seeds,
        "routes": routes.model_dump()["routes"],
        "step_seconds": [round(cost, 4) for cost in costs],
        "speed": round(costs[0] / costs[1], 3),
        "held_out_before": round(whole[0].curve[0][1], 4),
        "equal_steps": _pair([run.at(steps) for run in whole], [run.at(steps) for run in routed]),
        "equal_time": _pair([run.at(time_of_both / costs[0]) for run in whole], [run.at(time_of_both / costs[1]) for run in routed]),
        "break_even_speed": [round(steps / step, 2) if step else None for step in reached],
    }
    print(json.dumps(result))


def _pair(whole: list[float], routed: list[float]) -> dict[str, object]:
    """Means over the seeds, and how far apart the pairs of a seed are."""
    apart = [one / other - 1 for one, other in zip(routed, whole, strict=True)]
    return {
        "whole": round(statistics.mean(whole), 4),
        "routed": round(statistics.mean(routed), 4),
        "worse_by": round(statistics.mean(apart), 4),
        "worse_by_of_each_seed": [round(value, 4) for value in apart],
    }


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
