"""A LoRA file of the official trainer, put on the tiny reference model: its loss and gradients (tests/data/reference, group g).

float32 on a CPU; tolerance 1e-4 of the largest value, which is what rounding of large RoPE angles costs.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ltx2core.lora.keys import official_key
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.components import load_transformer
from ltx2core.models.forward import predict_velocity
from ltx2core.models.text import TextEmbedding
from ltx2core.training.adapter import AdapterSettings, add_adapter, load_adapter
from ltx2core.training.objective import velocity_loss

FOLDER = Path(__file__).parent.parent / "data" / "reference"


@pytest.mark.parametrize("recompute", [False, True])
def test_loss_and_gradients_of_an_official_lora_are_the_official_ones(recompute: bool) -> None:
    io, lora = load_file(FOLDER / "ltx-2.0-tiny.io.safetensors"), load_file(FOLDER / "ltx-2.0-tiny.lora.safetensors")
    transformer = load_transformer(open_checkpoint(FOLDER / "ltx-2.0-tiny.safetensors"), dtype=torch.float32)
    parameters = add_adapter(transformer, AdapterSettings(rank=4, alpha=4), audio=True, seed=0)
    assert {official_key(name) for name in parameters} == set(lora)  # the default targets are the official ones
    load_adapter(parameters, {name: lora[official_key(name)].float() for name in parameters})
    transformer.train()
    if recompute:
        transformer.enable_gradient_checkpointing()
    given = {key.removeprefix("g.i2v."): value for key, value in io.items() if key.startswith("g.i2v.")}
    answers = predict_velocity(
        transformer,
        video=given["video.latent"],
        video_timesteps=given["video.timesteps"],
        video_sigma=given["video.sigma"],
        audio=given["audio.latent"],
        audio_timesteps=given["audio.timesteps"],
        audio_sigma=given["audio.sigma"],
        text=TextEmbedding(io["b.embeds.video"], io["b.embeds.audio"]),
        grid=(4, 2, 3),
        fps=torch.full((2,), 24.0),
    )
    losses = []
    for name, answer in zip(("video", "audio"), answers, strict=True):
        assert answer is not None
        noise = given[f"noise.{name}"]
        losses.append(velocity_loss(answer, noise - given[f"{name}.target"], noise, given[f"{name}.loss_mask"]))
    total = losses[0] + losses[1]
    torch.testing.assert_close(total, io["g.lora.loss"], atol=1e-4, rtol=1e-4)
    total.mean().backward()
    norm = torch.stack([parameter.grad.norm() for parameter in parameters.values() if parameter.grad is not None]).norm()
    torch.testing.assert_close(norm, io["g.lora.grad_norm"], atol=0, rtol=1e-4)
    expected = {key.removeprefix("g.lora.grad."): value for key, value in io.items() if key.startswith("g.lora.grad.")}
    assert len(expected) == 12
    for name, gradient in expected.items():
        found = parameters[name].grad
        assert found is not None
        assert float((found - gradient).abs().max() / gradient.abs().max()) < 1e-3, name
