"""What rollouts do to the gap between training and sampling: nano on clips it has never seen, over a few seeds.

    python tests/benchmarks/rollout_gap.py [STEPS] [SEEDS] [WAYS, separated by semicolons]

For held-out clips at each noise level, the squared error of the clean clip that the model predicts (x - sigma v), once from the exact
mixture of clip and noise, as in training, and once from the state that the model reaches itself in four steps of 0.05 above, as
in sampling. Their difference is the gap. Equal steps, seeds, noise and order for all ways of training; pictures and sound.
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fast_against_reference import ADAPTER, F32, HELD_OUT, LEARNING_RATE, make_batches

from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.components import load_transformer
from ltx2core.models.nano import nano_checkpoint
from ltx2core.training.adapter import add_adapter
from ltx2core.training.batches import generator_for
from ltx2core.training.objective import add_noise, mean_of_learned
from ltx2core.training.optimizer import AdamSettings, AdapterOptimizer
from ltx2core.training.rollout import ReflexFlow, Rollouts, roll_out
from ltx2core.training.sigma import ShiftedLogitNormal
from ltx2core.training.step import Model, _Forward, draw, losses_of

if TYPE_CHECKING:
    from ltx2core.training.data import Batch

SIGMAS = (0.3, 0.5, 0.7)
PLAIN = Rollouts(most_steps=4, step_size=0.05, probability=0.5)
WAYS = {
    "without": None,
    "rollouts": PLAIN,
    "reflexflow": replace(PLAIN, reflexflow=ReflexFlow()),
    "reflexflow, beta1 0.1": replace(PLAIN, reflexflow=ReflexFlow(beta1=0.1)),
}


Errors = dict[float, tuple[float, float]]


def errors(model: Model, batches: list[Batch]) -> Errors:
    """Of each level: mean squared error of the clean pictures, predicted from the exact mixture and from the state reached."""
    exact: dict[float, list[float]] = {sigma: [] for sigma in SIGMAS}
    reached: dict[float, list[float]] = {sigma: [] for sigma in SIGMAS}
    with model.evaluating():
        for number, batch in enumerate(batches):
            for sigma in SIGMAS:
                generator = generator_for(0, "gap", number)
                level = torch.full((1,), sigma)
                assert batch.video is not None
                assert batch.audio is not None
                video = add_noise(batch.video, sigma=level, noise=torch.randn(batch.video.shape, generator=generator))
                audio = add_noise(batch.audio, sigma=level, noise=torch.randn(batch.audio.shape, generator=generator))
                forward = _Forward(model, batch)
                rolled = roll_out(forward.velocities, video, audio, steps=4, step_size=0.05)
                for found, (seen, heard) in ((exact, (video, audio)), (reached, rolled)):
                    assert seen is not None
                    velocity, _ = forward.velocities(seen, heard)
                    assert velocity is not None
                    clean = seen.noisy - sigma * velocity
                    found[sigma].append(float(mean_of_learned((clean - seen.clean).square().mean(dim=2), seen.learned)))
    return {sigma: (statistics.mean(exact[sigma]), statistics.mean(reached[sigma])) for sigma in SIGMAS}


def mean(found: Errors) -> tuple[float, float]:
    """The same over all levels."""
    exact, reached = zip(*found.values(), strict=True)
    return statistics.mean(exact), statistics.mean(reached)


def train(batches: list[Batch], *, steps: int, seed: int, rollouts: Rollouts | None) -> Model:
    transformer = load_transformer(open_checkpoint(nano_checkpoint()), dtype=F32)
    parameters = add_adapter(transformer, ADAPTER, audio=True, seed=seed)
    model = Model(transformer=transformer, device=torch.device("cpu"), dtype=F32, rollouts=rollouts)
    optimizer = AdapterOptimizer(parameters, AdamSettings())
    transformer.train()
    for step in range(steps):
        generator = generator_for(seed, "step", step)
        batch = batches[int(torch.randint(len(batches), (), generator=generator))]
        drawn = draw(batch, sampler=ShiftedLogitNormal(), generator=generator, rollouts=rollouts, step=step)
        total = losses_of(model, drawn, audio_weight=1.0).total
        total.backward()  # type: ignore[no-untyped-call]
        norm = optimizer.clip(1.0)
        optimizer.step(LEARNING_RATE * min(1.0, (step + 1) / 10), finite=torch.isfinite(norm))
    return model


def main(steps: int = 200, seeds: int = 5, names: str = ";".join(WAYS)) -> None:
    batches = make_batches(open_checkpoint(nano_checkpoint()), torch.device("cpu"))
    held_out, trained = batches[-HELD_OUT:], batches[:-HELD_OUT]
    base = mean(errors(train(trained, steps=0, seed=0, rollouts=None), held_out))
    result: dict[str, object] = {"bench": "rollout_gap", "steps": steps, "seeds": seeds, "base": [round(value, 4) for value in base]}
    gaps: dict[str, list[float]] = {}
    for way in ["without", *(name for name in names.split(";") if name != "without")]:
        rollouts = WAYS[way]
        runs = [errors(train(trained, steps=steps, seed=seed, rollouts=rollouts), held_out) for seed in range(seeds)]
        found = [mean(run) for run in runs]
        gaps[way] = [reached - exact for exact, reached in found]
        result[way] = {
            "exact": round(statistics.mean(exact for exact, _ in found), 4),
            "reached": round(statistics.mean(reached for _, reached in found), 4),
            "gap": round(statistics.mean(gaps[way]), 4),
            "gap_of_each_level": {sigma: round(statistics.mean(run[sigma][1] - run[sigma][0] for run in runs), 4) for sigma in SIGMAS},
            "gap_of_each_seed": [round(gap, 4) for gap in gaps[way]],
            "smaller_in_seeds": sum(gap < plain for gap, plain in zip(gaps[way], gaps["without"], strict=True)),
        }
        print(json.dumps({way: result[way]}), file=sys.stderr)
    print(json.dumps(result))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3]), *sys.argv[3:])
