"""Whether the step engine trains as well as diffusers with PEFT: nano on clips that it has never seen, held-out loss after 200 steps.

    python tests/benchmarks/fast_against_reference.py [--steps 200] [--seeds 5] [--device cuda]

Each seed draws another adapter, order, noise and noise levels, the same for all ways of training. `spread` is the standard deviation of the
reference's held-out loss over the seeds: a way that differs from it by less than that cannot be told from another seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ltx2core.models import components, latents
from ltx2core.models.checkpoint import Checkpoint, open_checkpoint
from ltx2core.models.nano import clips, nano_checkpoint, nano_text_encoder
from ltx2core.models.nano.vocabulary import caption
from ltx2core.models.text import TextEmbedding, embed_captions, load_text_encoder
from ltx2core.training.adapter import AdapterSettings, add_adapter
from ltx2core.training.batches import generator_for
from ltx2core.training.data import Batch
from ltx2core.training.fast_model import FastSettings, load_fast
from ltx2core.training.flat_optimizer import FlatOptimizer
from ltx2core.training.optimizer import AdamSettings, AdapterOptimizer
from ltx2core.training.sigma import ShiftedLogitNormal
from ltx2core.training.step import Model, draw, losses_at, losses_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

F32, BF16 = torch.float32, torch.bfloat16
ADAPTER = AdapterSettings(rank=16, alpha=16.0)
LEARNING_RATE = 1e-3
TRAINED, HELD_OUT = 16, 8  # clips
SIGMAS = (0.2, 0.5, 0.8)  # of the held-out loss
WAYS: dict[str, tuple[FastSettings | None, torch.dtype]] = {
    "reference": (None, F32),
    "engine": (FastSettings(compile=False, kept=5), F32),
    "engine-streamed": (FastSettings(compile=False, streamed=4, slots=2, inputs_to_host=True), F32),
    "engine-bf16": (FastSettings(compile=False), BF16),
    "engine-int8": (FastSettings(compile=False, storage="int8"), BF16),
    "engine-int8-w8a8": (FastSettings(compile=False, storage="int8", precision="w8a8"), BF16),
    "engine-fp8-w8a8": (FastSettings(compile=False, storage="fp8", precision="w8a8"), BF16),
    "engine-nf4": (FastSettings(compile=False, storage="nf4"), BF16),
    "engine-adam8": (FastSettings(compile=False), F32),  # its optimizer's state in 8 bits
}


def make_batches(checkpoint: Checkpoint, device: torch.device) -> list[Batch]:
    """Clips of combinations that nano's training never showed, with sound and caption, each a batch of its own."""
    generator = torch.Generator().manual_seed(2024)
    words = clips.random_words(TRAINED + HELD_OUT, generator, held_out=True)
    scenes = clips.scenes_of(words, generator)
    video_vae, audio_vae = components.load_video_vae(checkpoint, dtype=F32), components.load_audio_vae(checkpoint, dtype=F32)
    pixels = clips.render_video(scenes, width=96, height=96, frames=17, fps=25)
    video = latents.pack_video(torch.cat([latents.encode_video(video_vae, part) for part in pixels.split(4)])).to(device)
    sound = clips.render_sound(scenes, seconds=clips.SECONDS, sample_rate=latents.SAMPLE_RATE)
    audio = latents.pack_audio(latents.encode_sound(audio_vae, sound)).to(device)
    encoder, connectors = load_text_encoder(nano_text_encoder(), dtype=F32), components.load_connectors(checkpoint, dtype=F32)
    texts = embed_captions([caption(item, number) for number, item in enumerate(words)], encoder, connectors)
    return [
        Batch(
            video=video[number : number + 1],
            audio=audio[number : number + 1],
            audio_learned=torch.ones(1, audio.shape[1], dtype=torch.bool, device=device),
            text=TextEmbedding.stack([text]).to(device, F32),
            grid=latents.latent_grid(width=96, height=96, frames=17),
            fps=torch.tensor([25.0]),
            bucket="",
        )
        for number, text in enumerate(texts)
    ]


def trainee(
    way: str, checkpoint: Checkpoint, seed: int, device: torch.device
) -> tuple[Model, AdapterOptimizer | FlatOptimizer, Callable[[], None]]:
    """The model, its optimizer, and what gives its memory back."""
    settings, dtype = WAYS[way]
    if settings is None:
        transformer = components.load_transformer(checkpoint, dtype=dtype, device=device)
        parameters = add_adapter(transformer, ADAPTER, audio=True, seed=seed)
        return Model(transformer=transformer, device=device, dtype=dtype), AdapterOptimizer(parameters, AdamSettings()), lambda: None
    fast = load_fast(checkpoint, settings=settings, adapter=ADAPTER, audio=True, seed=seed, dtype=dtype, device=device)
    model = Model(transformer=fast.transformer, device=device, dtype=dtype, mixed=False)
    return model, FlatOptimizer(fast.adapter, AdamSettings(eight_bit=way.endswith("adam8"))), fast.close


def held_out_loss(model: Model, batches: list[Batch]) -> float:
    """Mean over clips and noise levels, with the same noise for every seed and way."""
    with torch.no_grad():
        losses: list[Tensor] = [
            losses_at(model, batch, sigma=sigma, generator=generator_for(0, "held out", number), audio_weight=1.0).total
            for number, batch in enumerate(batches)
            for sigma in SIGMAS
        ]
    return float(torch.stack(losses).mean())


def train(way: str, checkpoint: Checkpoint, batches: list[Batch], *, seed: int, steps: int, device: torch.device) -> tuple[float, float]:
    """The held-out loss before and after."""
    model, optimizer, close = trainee(way, checkpoint, seed, device)
    begin = held_out_loss(model, batches[TRAINED:])
    for step in range(steps):
        generator = generator_for(seed, "step", step)
        batch = batches[int(torch.randint(TRAINED, (), generator=generator))]
        losses = losses_of(model, draw(batch, sampler=ShiftedLogitNormal(), generator=generator), audio_weight=1.0)
        losses.total.backward()  # type: ignore[no-untyped-call]
        norm = optimizer.clip(1.0)
        optimizer.step(LEARNING_RATE, finite=torch.isfinite(norm))
    end = held_out_loss(model, batches[TRAINED:])
    close()
    return begin, end


def measure(ways: list[str], *, steps: int, seeds: int, device: torch.device) -> Iterator[dict[str, object]]:
    """A line for each way, the reference first."""
    checkpoint = open_checkpoint(nano_checkpoint())
    batches = make_batches(checkpoint, device)
    expected: list[float] = []
    for way in ["reference", *(way for way in ways if way != "reference")]:
        begun = time.perf_counter()
        found = [train(way, checkpoint, batches, seed=seed, steps=steps, device=device) for seed in range(seeds)]
        ends = [end for _, end in found]
        expected = expected or ends
        spread = statistics.stdev(expected) if seeds > 1 else float("nan")
        apart = statistics.mean(ends) - statistics.mean(expected)
        yield {
            "bench": "fast_against_reference",
            "way": way,
            "steps": steps,
            "seeds": seeds,
            "held_out_before": round(statistics.mean(begin for begin, _ in found), 4),
            "held_out_after": round(statistics.mean(ends), 5),
            "spread": round(spread, 5),
            "mean_apart": round(apart, 6),
            "most_apart_of_a_seed": round(max(abs(one - two) for one, two in zip(ends, expected, strict=True)), 6),
            "within_spread": abs(apart) < spread,
            "seconds": round(time.perf_counter() - begun, 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--ways", default=",".join(WAYS), help="names, separated by commas")
    options = parser.parse_args()
    ways = options.ways.split(",")
    if unknown := [name for name in ways if name not in WAYS]:
        sys.exit(f"no way {', '.join(unknown)}; there are {', '.join(WAYS)}")
    for line in measure(ways, steps=options.steps, seeds=options.seeds, device=torch.device(options.device)):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
