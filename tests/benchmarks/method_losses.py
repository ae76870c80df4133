"""What optimizers, losses and kinds of adapter reach on nano: the demo's LoRA, held-out loss after equal steps, over a few seeds.

    python tests/benchmarks/method_losses.py [STEPS] [SEEDS] [WAYS, separated by commas]

The held-out loss is squared and unweighted for all; equal clips, noise and noise levels. Each rule has the learning rate of this list and
is not tuned further: what is shown is that all of them train, not which is best.
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fast_against_reference import ADAPTER, F32, held_out_loss
from tread_quality import HELD_OUT, make_batches

from ltx2core.config.lycoris import LokrSettings
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.components import load_transformer
from ltx2core.models.nano import nano_checkpoint
from ltx2core.training.adapter import AdapterSettings, add_adapter
from ltx2core.training.average import AverageSettings
from ltx2core.training.batches import generator_for
from ltx2core.training.optimizer import AdamSettings, AdapterOptimizer, Optimizer
from ltx2core.training.penalty import SQUARES, Penalty
from ltx2core.training.rules import RuleOptimizer, RuleSettings
from ltx2core.training.sigma import ShiftedLogitNormal
from ltx2core.training.step import Model, draw, losses_of

if TYPE_CHECKING:
    from ltx2core.config.optimizers import Rule
    from ltx2core.training.data import Batch


@dataclass(frozen=True, kw_only=True)
class Way:
    rule: Rule = "adamw"
    rate: float = 1e-3
    adapter: AdapterSettings = ADAPTER
    penalty: Penalty = SQUARES
    eight_bit: bool = False
    average: float | None = None


WAYS = {
    "adamw": Way(),
    "adamw_8bit": Way(eight_bit=True),
    "adafactor": Way(rule="adafactor"),
    "came": Way(rule="came"),
    "prodigy": Way(rule="prodigy", rate=1.0),
    "adamw_schedulefree": Way(rule="schedule-free", rate=3e-3),
    "muon": Way(rule="muon"),
    "huber": Way(penalty=Penalty(shape="huber")),
    "snr_gamma 5": Way(penalty=Penalty(snr_gamma=5.0)),
    "use_rslora": Way(adapter=replace(ADAPTER, rank_stabilised=True)),
    "use_dora": Way(adapter=replace(ADAPTER, dora=True)),
    "lokr": Way(adapter=replace(ADAPTER, lokr=LokrSettings(rank=16, alpha=16.0))),
    "use_ema 0.95": Way(average=0.95),
}


def train(batches: list[Batch], way: Way, *, steps: int, seed: int) -> tuple[float, float]:
    """The held-out loss before and after."""
    transformer = load_transformer(open_checkpoint(nano_checkpoint()), dtype=F32)
    parameters = add_adapter(transformer, way.adapter, audio=True, seed=seed)
    model = Model(transformer=transformer, device=torch.device("cpu"), dtype=F32)
    adam = AdamSettings(eight_bit=way.eight_bit)
    average = None if way.average is None else AverageSettings(decay=way.average)
    optimizer: Optimizer
    if way.rule == "adamw":
        optimizer = AdapterOptimizer(parameters, adam, average=average)
    else:
        optimizer = RuleOptimizer(parameters, RuleSettings(rule=way.rule, adam=adam), average=average)
    before = held_out_loss(model, batches[-HELD_OUT:])
    transformer.train()
    for step in range(steps):
        generator = generator_for(seed, "step", step)
        batch = batches[int(torch.randint(len(batches) - HELD_OUT, (), generator=generator))]
        drawn = draw(batch, sampler=ShiftedLogitNormal(), generator=generator)
        losses_of(model, drawn, audio_weight=1.0, penalty=way.penalty).total.backward()  # type: ignore[no-untyped-call]
        norm = optimizer.clip(1.0)
        optimizer.step(way.rate * min(1.0, (step + 1) / 10), finite=torch.isfinite(norm))
    if (averaged := optimizer.averaged()) is not None:
        with torch.no_grad():
            for name, value in averaged.items():
                parameters[name].copy_(value)
    with optimizer.at_rest():
        return before, held_out_loss(model, batches[-HELD_OUT:])


def main(steps: int = 100, seeds: int = 5, names: str = ",".join(WAYS)) -> None:
    batches = make_batches()
    for name in names.split(","):
        found = [train(batches, WAYS[name], steps=steps, seed=seed) for seed in range(seeds)]
        line = {
            "bench": "method_losses",
            "steps": steps,
            "seeds": seeds,
            "way": name,
            "learning_rate": WAYS[name].rate,
            "held_out_before": round(statistics.mean(before for before, _ in found), 4),
            "held_out_after": round(statistics.mean(after for _, after in found), 4),
            "after_of_each_seed": [round(after, 4) for _, after in found],
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3]), *sys.argv[3:])
