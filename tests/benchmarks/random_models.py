"""The transformer of 2.0 with random weights, which cost what real ones do, in the step engine and as diffusers and PEFT have it; and
batches of random latents for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from diffusers import LTX2VideoTransformer3DModel
from torch import nn

from ltx2core.models import header
from ltx2core.models.forward import follow_official_code
from ltx2core.models.modalities import leave_out
from ltx2core.models.released import released_config
from ltx2core.models.text import TextEmbedding
from ltx2core.training.adapter import AdapterSettings, add_adapter, target_modules
from ltx2core.training.data import Batch
from ltx2core.training.fast_model import FastModel, FastSettings, build_fast, turn
from ltx2core.training.step import Model

if TYPE_CHECKING:
    from ltx2core.offload.shared_memory import Group

GIB = 2**30
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = torch.bfloat16
GRIDS = {32: (2, 4, 4), 1024: (4, 16, 16), 2688: (7, 16, 24), 6144: (16, 16, 24), 14080: (16, 22, 40)}
SMALL = {  # another model, for trying a benchmark out on a CPU
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "cross_attention_dim": 128,
    "audio_num_attention_heads": 4,
    "audio_attention_head_dim": 16,
    "audio_cross_attention_dim": 64,
    "caption_channels": 64,
}


def sound_tokens(grid: tuple[int, int, int]) -> int:
    """25 a second, as many as frames at 25 fps."""
    return 8 * grid[0] - 7


def shapes_of(*, audio: bool, layers: int, small: bool = False) -> LTX2VideoTransformer3DModel:
    """The 2.0 transformer on meta."""
    config = released_config("2.0.0")
    config["transformer"]["num_layers"] = layers
    with torch.device("meta"):
        model = LTX2VideoTransformer3DModel(**header.transformer_arguments(config) | (SMALL if small else {}))
    if not audio:
        leave_out(model, "audio")
    return model


def random_model(
    settings: FastSettings, *, audio: bool, layers: int, rank: int = 32, small: bool = False, group: Group | None = None
) -> FastModel:
    """The 2.0 transformer with random weights of a fresh model's spread. group: of processes that build the same, from the same seed."""
    shapes = shapes_of(audio=audio, layers=layers, small=small)
    outside = shapes_of(audio=audio, layers=0, small=small)
    outside = outside.to(DTYPE).to_empty(device=DEVICE).eval().requires_grad_(False)
    for parameter in outside.parameters():
        nn.init.normal_(parameter, std=0.02)
    follow_official_code(outside)
    targets = target_modules(shapes, audio=audio)
    fast = build_fast(
        outside,
        shapes,
        targets=targets,
        settings=settings,
        adapter=AdapterSettings(rank=rank),
        seed=0,
        dtype=DTYPE,
        device=DEVICE,
        group=group,
    )
    for weights in fast.blocks.weights:
        for name, member in fast.layout.members.items():
            place = fast.layout.matrices.get(member.name) or fast.layout.rest[member.name]
            shape = (member.rows, *place.shape[1:]) if place.shape else ()
            shape = fast.layout.shape_of(name) if fast.layout.is_rounded(name) else shape
            value = torch.randn(shape, device=DEVICE, dtype=DTYPE)
            value = (
                value * shape[1] ** -0.5
                if len(shape) == 2 and "table" not in name
                else 1 + 0.01 * value
                if "norm" in name
                else 0.01 * value
            )
            weights.put(name, value)
    fast.masters.wait()
    turn(fast)
    fast.blocks.weights_changed()
    if fast.blocks.ring is not None:
        fast.blocks.ring.reload()
    return fast


def usual_model(*, layers: int) -> tuple[Model, dict[str, nn.Parameter]]:
    """diffusers' transformer with PEFT adapters in bf16, each block checkpointed."""
    transformer = shapes_of(audio=True, layers=layers)
    transformer = transformer.to(DTYPE).to_empty(device=DEVICE).train().requires_grad_(False)
    for parameter in transformer.parameters():
        nn.init.normal_(parameter, std=0.02)
    follow_official_code(transformer)
    parameters = add_adapter(transformer, AdapterSettings(), audio=True, seed=0)
    for parameter in parameters.values():
        parameter.data = parameter.data.to(DTYPE)
    transformer.enable_gradient_checkpointing()
    return Model(transformer=transformer, device=DEVICE, dtype=DTYPE, mixed=False), parameters


def make_batch(grid: tuple[int, int, int], *, audio: bool, count: int = 1, caption_width: int = 3840) -> Batch:
    tokens, steps = grid[0] * grid[1] * grid[2], sound_tokens(grid)
    return Batch(
        video=torch.randn(count, tokens, 128, device=DEVICE),
        audio=torch.randn(count, steps, 128, device=DEVICE) if audio else None,
        audio_learned=torch.ones(count, steps, dtype=torch.bool, device=DEVICE) if audio else None,
        text=TextEmbedding(*(torch.randn(count, 1024, caption_width, device=DEVICE, dtype=DTYPE) for _ in range(2))),
        grid=grid,
        fps=torch.tensor([25.0] * count),
        bucket="",
    )
