"""What CREPA does to samples: nano on clips it has never seen, features over frames and flicker of what it draws, over a few seeds.

    python tests/benchmarks/crepa_quality.py [STEPS] [SEEDS]

Equal steps, seeds, noise and order for all ways of training. Held-out captions are drawn in 12 Euler steps, the same noise for all ways.
`similarity`: the mean cosine of an image encoder's patches with those of the next frame, the training clips' mean patch taken away.
`flicker`: the mean absolute difference of a frame's pixels from the mean of its two neighbours, which motion at a constant speed has
hardly any of. `motion`: from the frame before: a way that only stops motion shows here. The encoder is a DINOv2 of two layers with random
weights: no trained one comes with this repository; patches of it tell colours and edges, not what is seen.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fast_against_reference import ADAPTER, F32, HELD_OUT, LEARNING_RATE, TRAINED, make_batches
from tiny_dino import save_tiny_dino

from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.components import load_transformer, load_video_vae
from ltx2core.models.dino import PatchEncoder
from ltx2core.models.forward import predict_velocity
from ltx2core.models.latents import as_bytes, decode_video, unpack_video
from ltx2core.models.nano import nano_checkpoint
from ltx2core.training.adapter import add_adapter
from ltx2core.training.batches import generator_for
from ltx2core.training.crepa import Crepa, CrepaSettings, WeightSchedule
from ltx2core.training.head_optimizer import WithHead
from ltx2core.training.optimizer import AdamSettings, AdapterOptimizer
from ltx2core.training.sigma import ShiftedLogitNormal
from ltx2core.training.step import Model, draw, losses_of

if TYPE_CHECKING:
    from torch import Tensor

    from ltx2core.training.data import Batch

CPU = torch.device("cpu")
GRID = (3, 3, 3)
SAMPLE_STEPS = 12
WAYS = {
    "without": None,
    "encoder": CrepaSettings(width=32, block=1, weight=WeightSchedule(peak=0.5)),
    "encoder, weight 2": CrepaSettings(width=32, block=1, weight=WeightSchedule(peak=2.0)),
    "backbone": CrepaSettings(width=None, block=1, teacher=3, weight=WeightSchedule(peak=0.5)),
    "backbone, weight 2": CrepaSettings(width=None, block=1, teacher=3, weight=WeightSchedule(peak=2.0)),
}


def train(batches: list[Batch], *, steps: int, seed: int, settings: CrepaSettings | None) -> tuple[Model, float]:
    """The model, and the median CPU time of a step."""
    transformer = load_transformer(open_checkpoint(nano_checkpoint()), dtype=F32)
    crepa = None if settings is None else Crepa(transformer, settings, seed=seed, device=CPU, dtype=F32)
    parameters = add_adapter(transformer, ADAPTER, audio=True, seed=seed)
    model = Model(transformer=transformer, device=CPU, dtype=F32, crepa=crepa)
    adapter = AdapterOptimizer(parameters, AdamSettings())
    optimizer = adapter if crepa is None else WithHead(adapter, crepa)
    transformer.train()
    spent = []
    for step in range(steps):
        begin, generator = time.thread_time(), generator_for(seed, "step", step)
        batch = batches[int(torch.randint(len(batches), (), generator=generator))]
        if crepa is not None:
            crepa.set_step(step)
            crepa.forget_gradients()
        losses_of(model, draw(batch, sampler=ShiftedLogitNormal(), generator=generator), audio_weight=1.0).learned.backward()  # type: ignore[no-untyped-call]
        norm = optimizer.clip(1.0)
        optimizer.step(LEARNING_RATE * min(1.0, (step + 1) / 10), finite=torch.isfinite(norm))
        spent.append(time.thread_time() - begin)
    return model, statistics.median(spent)


@torch.no_grad()
def sample(model: Model, batch: Batch, *, seed: int) -> Tensor:
    """Latents drawn for a batch's caption, tokens [1, L, C]."""
    assert batch.video is not None
    assert batch.audio is not None
    generator = torch.Generator().manual_seed(seed)
    video, audio = torch.randn(batch.video.shape, generator=generator), torch.randn(batch.audio.shape, generator=generator)
    even = [1 - step / SAMPLE_STEPS for step in range(SAMPLE_STEPS + 1)]
    for now, then in pairwise([3 * level / (1 + 2 * level) for level in even]):
        level = torch.full((1,), now)
        shown, heard = predict_velocity(
            model.transformer, video=video, video_timesteps=level[:, None], video_sigma=level, audio=audio, audio_timesteps=level[:, None],
            audio_sigma=level, text=batch.text, grid=batch.grid, fps=batch.fps,
        )  # fmt: skip
        assert heard is not None
        video, audio = video + (then - now) * shown, audio + (then - now) * heard
    return video


def frames_of(vae: torch.nn.Module, tokens: Tensor, *, grid: tuple[int, int, int]) -> Tensor:
    """uint8 [F, H, W, 3] of latents as tokens [1, L, C]."""
    return as_bytes(decode_video(vae, unpack_video(tokens, grid=grid)))[0].permute(1, 2, 3, 0)


def measure(model: Model, batches: list[Batch], vae: torch.nn.Module, encoder: PatchEncoder, middle: Tensor) -> dict[str, float]:
    """middle: the mean patch, [D]."""
    found: dict[str, list[float]] = {"similarity": [], "flicker": [], "motion": []}
    model.transformer.eval()
    for number, batch in enumerate(batches):
        tokens = sample(model, batch, seed=number)
        frames = frames_of(vae, tokens, grid=batch.grid)
        each = torch.stack([encoder.of_clip(frame[None], grid=(1, 3, 3)) for frame in frames]) - middle
        found["similarity"].append(float(torch.nn.functional.cosine_similarity(each[1:], each[:-1], dim=-1).mean()))
        shown = frames.float() / 255
        found["flicker"].append(float((shown[1:-1] - (shown[:-2] + shown[2:]) / 2).abs().mean()))
        found["motion"].append(float((shown[1:] - shown[:-1]).abs().mean()))
    return {name: statistics.mean(values) for name, values in found.items()}


def with_features(batches: list[Batch], vae: torch.nn.Module, encoder: PatchEncoder) -> list[Batch]:
    """The batches with the encoder's features of their clips, as the latents show them."""
    found = []
    for batch in batches:
        assert batch.video is not None
        frames = frames_of(vae, batch.video, grid=batch.grid)
        found.append(replace(batch, features=encoder.of_clip(frames, grid=batch.grid)[None]))
    return found


def main(steps: int = 150, seeds: int = 5) -> None:
    checkpoint = open_checkpoint(nano_checkpoint())
    batches, vae = make_batches(checkpoint, CPU), load_video_vae(checkpoint, dtype=F32)
    with tempfile.TemporaryDirectory() as place:
        encoder = PatchEncoder(save_tiny_dino(Path(place)), side=112, frames_at_once=16, dtype=F32, device=CPU)
    trained, held_out = with_features(batches[:TRAINED], vae, encoder), batches[TRAINED : TRAINED + HELD_OUT]
    middle = torch.cat([batch.features[0] for batch in trained if batch.features is not None]).mean(dim=0)
    result: dict[str, object] = {"bench": "crepa_quality", "steps": steps, "seeds": seeds}
    plain: list[dict[str, float]] = []
    for way, settings in WAYS.items():
        runs = [train(trained, steps=steps, seed=seed, settings=settings) for seed in range(seeds)]
        found = [measure(model, held_out, vae, encoder, middle) for model, _ in runs]
        plain = plain or found
        result[way] = {
            **{name: round(statistics.mean(one[name] for one in found), 5) for name in found[0]},
            "more_similar_in_seeds": sum(one["similarity"] > other["similarity"] for one, other in zip(found, plain, strict=True)),
            "less_flicker_in_seeds": sum(one["flicker"] < other["flicker"] for one, other in zip(found, plain, strict=True)),
            "step_seconds": round(statistics.median(seconds for _, seconds in runs), 4),
        }
        print(json.dumps({way: result[way]}), file=sys.stderr)
    print(json.dumps(result))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
