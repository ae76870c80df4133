"""Whether TREAD reaches a held-out loss in less time: the demo's LoRA on nano, ways to route beside each other, over a few seeds.

    python tests/benchmarks/tread_quality.py [STEPS] [SEEDS] [WAYS, separated by commas]

Every way gets the time of STEPS steps without routes, so that faster steps are more of them. A step's time is its operations, counted on
LTX-2 2.0 at 6,144 video tokens where the same share of blocks is skipped: nano's clips, of 48 tokens, are too small to gain.
The held-out loss is never routed. `time_to_whole` is when a way has the loss that training without routes ends with, of its time; None
where it never has. Equal seeds, clips, noise and noise levels; the learning rate is constant, so that a curve may be read anywhere.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fast_against_reference import ADAPTER, F32, LEARNING_RATE, held_out_loss

from ltx2core.demo import prepare_demo
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.components import load_transformer
from ltx2core.models.nano import nano_checkpoint
from ltx2core.planning.flops import BatchShape, count_step
from ltx2core.planning.model_sizes import released_sizes
from ltx2core.training.adapter import add_adapter
from ltx2core.training.batches import generator_for
from ltx2core.training.data import Reader
from ltx2core.training.optimizer import AdamSettings, AdapterOptimizer
from ltx2core.training.prepare import prepare
from ltx2core.training.sigma import ShiftedLogitNormal
from ltx2core.training.step import Model, draw, losses_of
from ltx2core.training.tread import Route, add_routes

if TYPE_CHECKING:
    from ltx2core.training.data import Batch

BLOCKS = 5  # nano's
TOKENS, SOUND, TEXT = 6144, 126, 1024  # of LTX-2 at 121x512x768
MEASURED = 8  # times a run
HELD_OUT = 5  # clips


@dataclass(frozen=True)
class Way:
    """route: of nano's blocks, None for none; share: of the time, from its begin, that is routed."""

    route: Route | None = None
    share: float = 1.0

    @property
    def cost(self) -> float:
        """Of a routed step, in steps without routes."""
        if self.route is None:
            return 1.0
        sizes = released_sizes("2.0", joint=True)
        model = sizes.shape(lambda name: 32 if "attn" in name and "gate" not in name else 0)
        first, last = round(self.route.start / BLOCKS * sizes.blocks), round((self.route.end + 1) / BLOCKS * sizes.blocks) - 1
        routed = ((first, last, round(TOKENS * (1 - self.route.ratio))),)
        whole, less = (
            count_step(model, BatchShape(count=1, video=TOKENS, audio=SOUND, text=TEXT, routed=routes)).needed for routes in ((), routed)
        )
        return less / whole


def _route(ratio: float, start: int = 1, end: int = 3) -> Route:
    return Route(ratio=ratio, start=start, end=end)


WAYS = {
    "whole": Way(),
    "half": Way(_route(0.5)),
    "half in the first half": Way(_route(0.5), 0.5),
    "half in the first quarter": Way(_route(0.5), 0.25),
    "half and four blocks in the first quarter": Way(_route(0.5, 0, 3), 0.25),
    "three quarters in the first quarter": Way(_route(0.75), 0.25),
    "half and two blocks": Way(_route(0.5, 1, 2)),
    "a quarter": Way(_route(0.25)),
    "a quarter in the first half": Way(_route(0.25), 0.5),
}


@dataclass(frozen=True)
class Curve:
    """points: (time, held-out loss), time in steps without routes."""

    points: list[tuple[float, float]]
    steps: int

    @property
    def last(self) -> float:
        return self.points[-1][1]

    def reaches(self, loss: float) -> float | None:
        """When the held-out loss is that low for the first time."""
        for (before, high), (after, low) in zip(self.points, self.points[1:], strict=False):
            if low <= loss:
                return before + (after - before) * (high - loss) / (high - low) if high > loss else before
        return None


def make_batches() -> list[Batch]:
    """The demo's clips, each a batch of its own; the last HELD_OUT are not trained on."""
    with tempfile.TemporaryDirectory() as place:
        prepared = prepare(prepare_demo(Path(place)), root=Path(place), emit=lambda _: None, should_stop=lambda: False)
        cached = prepared.cache()
        reader = Reader(prepared.store, cached, torch.device("cpu"))
        clips = list(cached.clips)
        order = torch.randperm(len(clips), generator=generator_for(0, "clips")).tolist()
        return [reader.batch([clips[number]]) for number in order]


def train(batches: list[Batch], way: Way, *, steps: int, seed: int) -> Curve:
    transformer = load_transformer(open_checkpoint(nano_checkpoint()), dtype=F32)
    routes = () if way.route is None else (way.route,)
    router = add_routes(transformer, routes) if routes else None
    parameters = add_adapter(transformer, ADAPTER, audio=True, seed=seed)
    model = Model(transformer=transformer, device=torch.device("cpu"), dtype=F32, router=router)
    optimizer = AdapterOptimizer(parameters, AdamSettings())
    transformer.train()
    spent, step, cost = 0.0, 0, way.cost
    points = [(0.0, held_out_loss(model, batches[-HELD_OUT:]))]
    while spent < steps - 1e-6:
        routed = bool(routes) and spent < way.share * steps
        generator = generator_for(seed, "step", step)
        batch = batches[int(torch.randint(len(batches) - HELD_OUT, (), generator=generator))]
        drawn = draw(batch, sampler=ShiftedLogitNormal(), generator=generator, routes=routes if routed else ())
        losses_of(model, drawn, audio_weight=1.0).total.backward()  # type: ignore[no-untyped-call]
        norm = optimizer.clip(1.0)
        optimizer.step(LEARNING_RATE * min(1.0, (step + 1) / 10), finite=torch.isfinite(norm))
        step, spent = step + 1, spent + (cost if routed else 1.0)
        if spent >= len(points) * steps / MEASURED - 1e-6:
            points.append((spent, held_out_loss(model, batches[-HELD_OUT:])))
    return Curve(points, step)


def main(steps: int = 200, seeds: int = 5, names: str = ",".join(WAYS)) -> None:
    batches = make_batches()
    whole = [train(batches, WAYS["whole"], steps=steps, seed=seed) for seed in range(seeds)]
    video = batches[0].video
    assert video is not None
    begin = {"bench": "tread_quality", "steps": steps, "seeds": seeds, "video_tokens": video.shape[1]}
    for name in names.split(","):
        way = WAYS[name]
        runs = whole if name == "whole" else [train(batches, way, steps=steps, seed=seed) for seed in range(seeds)]
        apart = [one.last / other.last - 1 for one, other in zip(runs, whole, strict=True)]
        reached = [one.reaches(other.last) for one, other in zip(runs, whole, strict=True)]
        line = begin | {
            "way": name,
            "steps_of_way": runs[0].steps,
            "speed": round(1 / way.cost, 2),
            "held_out_before": round(statistics.mean(run.points[0][1] for run in runs), 4),
            "held_out_after": round(statistics.mean(run.last for run in runs), 4),
            "worse_by": round(statistics.mean(apart), 4),
            "worse_by_of_each_seed": [round(value, 4) for value in apart],
            "time_to_whole": [None if time is None else round(time / steps, 2) for time in reached],
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3]), *sys.argv[3:])
