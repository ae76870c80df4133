"""The planner's search against an exhaustive one over a coarse grid of layouts, by the same model: how much slower its plans are.

    python -m tests.benchmarks.plan_search [--coarse 4] [--cards "RTX 4060,RTX 4090,H100"]

For each card, size of clip and kind of weights, every layout of the grid that fits is timed: blocks that travel, slots, blocks that keep
all, blocks that keep their self-attention, inputs in host memory. One JSON line: how many searches, and by how many percent the plan was
slower than the grid's best at worst (below 0: faster, since the grid is coarse). No GPU is needed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from ltx2core.config.train import TrainConfig
from ltx2core.errors import RunError
from ltx2core.hardware.device_memory import CONTEXT_BYTES
from ltx2core.planning.clips import ClipShape
from ltx2core.planning.flops import BatchShape
from ltx2core.planning.hardware import hardware_named
from ltx2core.planning.job import job_of
from ltx2core.planning.levers import NF4, precisions
from ltx2core.planning.model_sizes import released_sizes
from ltx2core.planning.predict import step_need
from ltx2core.planning.step_memory import step_bytes
from ltx2core.planning.step_plan import Layout, plan_step
from ltx2core.planning.step_time import least_step_seconds, step_seconds, step_speed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ltx2core.planning.step_plan import StepNeed
    from ltx2core.planning.step_time import StepSpeed

CARDS = ("RTX 4060", "RTX 3080 10GB", "RTX 4070", "RTX 4080", "RTX 4090", "RTX 5090", "A100 40GB", "L40S", "H100")
CLIPS = (
    ClipShape(width=768, height=512, frames=49),
    ClipShape(width=768, height=512, frames=121),
    ClipShape(width=1280, height=704, frames=121),
)


def layouts(blocks: int, coarse: int) -> Iterator[Layout]:
    """Every one of the grid."""
    some = range(0, blocks + 1, coarse)
    for streamed, kept, attention, host in product(some, some, some, (False, True)):
        if kept + streamed > blocks or attention + kept > blocks:
            continue
        for slots in (1, 2, 3) if streamed else (0,):
            yield Layout(streamed=streamed, slots=slots, kept=kept, attention=attention, inputs_to_host=host)


def best_of_grid(need: StepNeed, speed: StepSpeed, *, free_bytes: int, coarse: int) -> float | None:
    """Seconds of the fastest layout that fits; None where none does."""
    best: float | None = None
    for layout in layouts(need.num_blocks, coarse):
        if step_bytes(need, layout).total > free_bytes:
            continue
        if best is None or least_step_seconds(need, layout, speed) < best:
            seconds = step_seconds(need, layout, speed)
            best = seconds if best is None else min(best, seconds)
    return best


def searches(cards: list[str], coarse: int) -> Iterator[tuple[str, float, float]]:
    """What was planned for, the plan's seconds and the grid's."""
    for card, clip in product(cards, CLIPS):
        hardware = hardware_named(card)
        for precision in (*precisions(hardware), NF4):
            job = replace(job_of(TrainConfig(), clip=clip), clip=clip)
            job = replace(job, wish=replace(job.wish, storage=precision.storage, precision=precision.products))
            sizes = released_sizes(job.version, joint=job.audio)
            need = step_need(sizes, job)
            batch = BatchShape(count=1, video=clip.tokens, audio=clip.sound_tokens, text=1024)
            speed = step_speed(
                sizes.shape(job.rank_of),
                batch,
                hardware.rates,
                width=sizes.width,
                storage=precision.storage,
                precision=precision.products,
            )
            free = hardware.free_bytes - CONTEXT_BYTES
            best = best_of_grid(need, speed, free_bytes=free, coarse=coarse)
            try:
                plan = plan_step(need, job.wish, free_bytes=free, speed=speed)
            except RunError:
                assert best is None, f"{card}, {clip}, {precision.words}: the grid has a layout that fits, and the plan has none"
                continue
            if best is not None and plan.seconds is not None:
                yield f"{card}, {clip}, {precision.words}", plan.seconds, best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--coarse", type=int, default=4, help="blocks between two places of the grid")
    parser.add_argument("--cards", default=",".join(CARDS))
    options = parser.parse_args()
    found = [(name, 100 * (planned / best - 1)) for name, planned, best in searches(options.cards.split(","), options.coarse)]
    worst = max(found, key=lambda pair: pair[1])
    print(
        json.dumps(
            {
                "benchmark": "plan_search",
                "searches": len(found),
                "layouts": sum(1 for _ in layouts(48, options.coarse)),
                "worst_percent": round(worst[1], 2),
                "worst": worst[0],
                "mean_percent": round(sum(percent for _, percent in found) / len(found), 2),
            }
        )
    )


if __name__ == "__main__":
    main()
