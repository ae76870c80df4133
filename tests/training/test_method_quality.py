"""What methods are for, on nano and clips it has never seen: a seed or two here, more in tests/benchmarks and docs/METHODS.md."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from nano_clips import TRAINED, nano_batches
from step_engine import CPU, F32, nano
from tiny_dino import save_tiny_dino

from ltx2core.models import components
from ltx2core.models.dino import PatchEncoder
from ltx2core.models.forward import predict_velocity
from ltx2core.models.latents import as_bytes, decode_video, unpack_video
from ltx2core.training.adapter import AdapterSettings, add_adapter
from ltx2core.training.batches import generator_for
from ltx2core.training.crepa import Crepa, CrepaSettings, WeightSchedule
from ltx2core.training.head_optimizer import WithHead
from ltx2core.training.objective import add_noise
from ltx2core.training.optimizer import AdamSettings, AdapterOptimizer, Optimizer
from ltx2core.training.rollout import Rollouts, roll_out
from ltx2core.training.sigma import ShiftedLogitNormal
from ltx2core.training.step import Model, _Forward, draw, losses_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from ltx2core.training.data import Batch


def _train(batches: list[Batch], *, steps: int, crepa: CrepaSettings | None = None, rollouts: Rollouts | None = None) -> Model:
    transformer = components.load_transformer(nano(), dtype=F32)
    head = None if crepa is None else Crepa(transformer, crepa, seed=0, device=CPU, dtype=F32)
    parameters = add_adapter(transformer, AdapterSettings(rank=16, alpha=16.0), audio=True, seed=0)
    model = Model(transformer=transformer, device=CPU, dtype=F32, crepa=head, rollouts=rollouts)
    optimizer: Optimizer = AdapterOptimizer(parameters, AdamSettings())
    optimizer = optimizer if head is None else WithHead(optimizer, head)  # type: ignore[arg-type]
    transformer.train()
    for step in range(steps):
        generator = generator_for(0, "step", step)
        if head is not None:
            head.set_step(step)
            head.forget_gradients()
        batch = batches[int(torch.randint(len(batches), (), generator=generator))]
        drawn = draw(batch, sampler=ShiftedLogitNormal(), generator=generator, rollouts=rollouts, step=step)
        losses_of(model, drawn, audio_weight=1.0).learned.backward()  # type: ignore[no-untyped-call]
        norm = optimizer.clip(1.0)
        optimizer.step(2e-3, finite=torch.isfinite(norm))
    transformer.eval()
    return model


def _frames(latents: Tensor, batch: Batch) -> Tensor:
    """uint8 [F, H, W, 3]."""
    vae = components.load_video_vae(nano(), dtype=F32)
    return as_bytes(decode_video(vae, unpack_video(latents, grid=batch.grid)))[0].permute(1, 2, 3, 0)


@torch.no_grad()
def _sample(model: Model, batch: Batch, *, seed: int, steps: int = 8) -> Tensor:
    """Frames that the model draws for a caption."""
    assert batch.video is not None
    assert batch.audio is not None
    generator = torch.Generator().manual_seed(seed)
    video, audio = torch.randn(batch.video.shape, generator=generator), torch.randn(batch.audio.shape, generator=generator)
    for now, then in pairwise([3 * level / (1 + 2 * level) for level in torch.linspace(1, 0, steps + 1).tolist()]):
        level = torch.full((1,), now)
        shown, heard = predict_velocity(
            model.transformer, video=video, video_timesteps=level[:, None], video_sigma=level, audio=audio, audio_timesteps=level[:, None],
            audio_sigma=level, text=batch.text, grid=batch.grid, fps=batch.fps,
        )  # fmt: skip
        assert heard is not None
        video, audio = video + (then - now) * shown, audio + (then - now) * heard
    return _frames(video, batch)


def test_crepa_makes_features_of_neighbouring_frames_more_alike_and_cuts_flicker(tmp_path: Path) -> None:
    encoder = PatchEncoder(save_tiny_dino(tmp_path / "dino"), side=112, frames_at_once=16, dtype=F32, device=CPU)
    trained, held_out = nano_batches()[:TRAINED], nano_batches()[TRAINED:]
    trained = [
        replace(batch, features=encoder.of_clip(_frames(batch.video, batch), grid=batch.grid)[None])
        for batch in trained
        if batch.video is not None
    ]
    settings = CrepaSettings(width=32, block=1, weight=WeightSchedule(peak=2.0))
    similarity, flicker = [], []
    for crepa in (None, settings):
        model = _train(trained, steps=30, crepa=crepa)
        frames = [_sample(model, batch, seed=seed) for batch in held_out for seed in (0, 1)]
        each = [torch.stack([encoder.of_clip(frame[None], grid=(1, 2, 2)) for frame in one]) for one in frames]
        similarity.append(sum(float(torch.cosine_similarity(one[1:], one[:-1], dim=-1).mean()) for one in each) / len(each))
        shown = [one.float() for one in frames]
        flicker.append(sum(float((one[1:-1] - (one[:-2] + one[2:]) / 2).abs().mean()) for one in shown) / len(shown))
    assert similarity[1] > similarity[0]
    assert flicker[1] < 0.9 * flicker[0]


def test_rollouts_narrow_the_gap_between_states_of_training_and_of_sampling() -> None:
    """The error of the clean clip predicted from states that the model reached itself, beyond that from exact ones: at much noise, where
    a step goes furthest astray."""
    gaps = []
    for rollouts in (None, Rollouts(most_steps=4, step_size=0.05, probability=0.5)):
        model = _train(nano_batches()[:TRAINED], steps=40, rollouts=rollouts)
        gap = 0.0
        with model.evaluating():
            for number, batch in enumerate(nano_batches()):
                generator = generator_for(0, "gap", number)
                assert batch.video is not None
                assert batch.audio is not None
                level = torch.full((1,), 0.7)
                streams = [add_noise(x, sigma=level, noise=torch.randn(x.shape, generator=generator)) for x in (batch.video, batch.audio)]
                forward = _Forward(model, batch)
                rolled = roll_out(forward.velocities, streams[0], streams[1], steps=4, step_size=0.05)
                errors = []
                for shown, heard in ((streams[0], streams[1]), rolled):
                    assert shown is not None
                    velocity, _ = forward.velocities(shown, heard)
                    assert velocity is not None
                    errors.append(float((shown.noisy - 0.7 * velocity - shown.clean).square().mean()))
                gap += errors[1] - errors[0]
        gaps.append(gap / len(nano_batches()))
    assert gaps[1] < 0.93 * gaps[0]
