"""How far gradients of a step lie from float32's, at LTX-2's own width: the engine's, compiled and captured, against eager bf16's.

    python -m tests.benchmarks.real_width_error                      # on a card: 3 blocks, 2,688 tokens
    python -m tests.benchmarks.real_width_error --device cpu --grid 2 4 6

A checkpoint of a few blocks with random weights is written to a temporary folder (2.9 GB for 3). The truth is diffusers and PEFT in
float32. The goal: the engine's error is no larger than that of diffusers and PEFT in bf16. Under autocast the blocks hand their answers on
in float32; all in bf16 is what the usual trainers and step_time.py's first case do.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.components import load_transformer
from ltx2core.models.released import released_config
from ltx2core.models.text import TextEmbedding
from ltx2core.training.adapter import AdapterSettings, add_adapter, load_adapter
from ltx2core.training.captured_step import StepRunner
from ltx2core.training.data import Batch
from ltx2core.training.fast_model import FastSettings, load_fast
from ltx2core.training.sigma import ShiftedLogitNormal
from ltx2core.training.step import Model, draw, losses_of
from tests.benchmarks.write_true_size import checkpoint_metadata, plan, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.training.step import Drawn

SETTINGS = AdapterSettings(rank=32, alpha=32.0)
WAYS = {
    "engine, eager": FastSettings(compile=False),
    "engine, compiled and captured": FastSettings(),
    "engine, compiled and captured, all kept": FastSettings(kept=99),
    "engine, compiled and captured, streamed": FastSettings(streamed=2, slots=1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--grid", type=int, nargs=3, default=(7, 16, 24), help="latent frames, rows and columns")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = _checkpoint(Path(folder) / "random.safetensors", layers=options.layers)
        batches = [_drawn(tuple(options.grid), seed=seed, device=device) for seed in range(options.seeds)]
        values: dict[str, Tensor] = {}
        truth = _usual(checkpoint, batches, device=device, dtype=torch.float32, values=values)
        found = {
            f"diffusers and PEFT, {name}": _usual(checkpoint, batches, device=device, dtype=torch.bfloat16, values=values, mixed=mixed)
            for name, mixed in (("all in bf16", False), ("bf16 by autocast", True))
        }
        for name, settings in WAYS.items():
            if device.type == "cuda" or not settings.compile:
                found[name] = _engine(checkpoint, batches, settings, device=device, values=values)
    errors = {
        name: [round(float((ours - true).norm() / true.norm()), 6) for ours, true in zip(gradients, truth, strict=True)]
        for name, gradients in found.items()
    }
    print(json.dumps({"device": str(device), "layers": options.layers, "grid": list(options.grid), "relative_error": errors}))


def _checkpoint(path: Path, *, layers: int) -> Checkpoint:
    """A file in which all but the transformer is a hole."""
    config = released_config("2.0.0")
    config["transformer"]["num_layers"] = layers
    write(path, plan(config), checkpoint_metadata(config), holes=lambda item: not item.key.startswith("model.diffusion_model."))
    return open_checkpoint(path)


def _drawn(grid: tuple[int, int, int], *, seed: int, device: torch.device) -> Drawn:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    sound = 8 * grid[0] - 7
    batch = Batch(
        video=random(1, grid[0] * grid[1] * grid[2], 128),
        audio=random(1, sound, 128),
        audio_learned=torch.ones(1, sound, dtype=torch.bool, device=device),
        text=TextEmbedding(random(1, 1024, 3840), random(1, 1024, 3840)),
        grid=grid,
        fps=torch.full((1,), 25.0),
        bucket="",
        reference=None,
    )
    return draw(batch, sampler=ShiftedLogitNormal(), generator=torch.Generator().manual_seed(100 + seed), parts=[])


def _usual(
    checkpoint: Checkpoint,
    batches: list[Drawn],
    *,
    device: torch.device,
    dtype: torch.dtype,
    values: dict[str, Tensor],
    mixed: bool = True,
) -> list[Tensor]:
    """The whole adapter's gradient for each batch, eager. values: of the adapter, drawn here when there are none. mixed: by autocast,
    around an adapter in float32."""
    transformer = load_transformer(checkpoint, dtype=dtype, device=device, audio=True)
    parameters = add_adapter(transformer, SETTINGS, audio=True, seed=0)
    if not values:
        generator = torch.Generator().manual_seed(5)
        for name, parameter in parameters.items():
            learned = 0.02 * torch.randn(parameter.shape, generator=generator)
            values[name] = parameter.detach().cpu().clone() if ".lora_A." in name else learned
    load_adapter(parameters, values)
    for parameter in () if mixed else transformer.parameters():  # tables, too, and the adapter
        parameter.data = parameter.data.to(dtype)
    model = Model(transformer=transformer, device=device, dtype=dtype, mixed=mixed)

    def gradients(drawn: Drawn) -> dict[str, Tensor]:
        drawn = drawn if mixed else _text_in(drawn, dtype)
        for parameter in parameters.values():
            parameter.grad = None
        with model.autocast():
            losses = losses_of(model, drawn, audio_weight=0.7)
        losses.total.backward()  # type: ignore[no-untyped-call]
        return {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}

    return _all(batches, gradients, values)


def _engine(
    checkpoint: Checkpoint, batches: list[Drawn], settings: FastSettings, *, device: torch.device, values: dict[str, Tensor]
) -> list[Tensor]:
    dtype = torch.bfloat16
    fast = load_fast(checkpoint, settings=settings, adapter=SETTINGS, audio=True, seed=0, dtype=dtype, device=device)
    load_adapter(fast.adapter.parameters, values)
    fast.adapter.refresh()
    model = Model(transformer=fast.transformer, device=device, dtype=dtype, mixed=False)

    def compute(drawn: Drawn) -> Tensor:
        losses = losses_of(model, drawn, audio_weight=0.7)
        losses.total.backward()  # type: ignore[no-untyped-call]
        return losses.total.detach()

    blocks = fast.blocks
    runner = StepRunner(compute, capture=settings.compile, before=blocks.settle, join=blocks.join, holds=fast.graph_memory)

    def gradients(drawn: Drawn) -> dict[str, Tensor]:
        drawn = _text_in(drawn, dtype)
        for _ in range(3 if settings.compile else 1):  # eager, captured, replayed
            fast.adapter.accumulate = False
            runner.run(drawn, ())
        return {name: fast.adapter.gradient_of(name) for name in fast.adapter.parameters}

    found = _all(batches, gradients, values)
    assert not settings.compile or runner.captured
    runner.forget()
    fast.close()
    return found


def _text_in(drawn: Drawn, dtype: torch.dtype) -> Drawn:
    text = TextEmbedding(drawn.batch.text.video.to(dtype), drawn.batch.text.audio.to(dtype))
    return replace(drawn, batch=replace(drawn.batch, text=text))


def _all(batches: list[Drawn], gradients: Callable[[Drawn], dict[str, Tensor]], values: dict[str, Any]) -> list[Tensor]:
    """Of each batch, in float32 on the CPU, in one order."""
    found = []
    for drawn in batches:
        each = gradients(drawn)
        assert each.keys() == values.keys()
        found.append(torch.cat([each[name].detach().float().flatten().cpu() for name in sorted(each)]))
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found


if __name__ == "__main__":
    main()
