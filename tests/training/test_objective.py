"""The flow-matching objective against its plain formula (seed 0, float32, tolerance 1e-6)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ltx2core.training.objective import add_noise, combine, draw_noise, velocity_loss
from ltx2core.training.sigma import MixFlowDraw, ShiftedLogitNormal

REFERENCE = Path(__file__).parent.parent / "data" / "reference" / "ltx-2.0-tiny.io.safetensors"


def _tensors(batch: int = 3, tokens: int = 7, channels: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(batch, tokens, channels), torch.randn(batch, tokens, channels), torch.rand(batch)


def test_noise_is_mixed_in_as_flow_matching_says() -> None:
    clean, noise, sigma = _tensors()
    noised = add_noise(clean, sigma=sigma, noise=noise)
    for sample in range(3):
        torch.testing.assert_close(noised.noisy[sample], (1 - sigma[sample]) * clean[sample] + sigma[sample] * noise[sample])
        assert torch.equal(noised.timesteps[sample], sigma[sample].expand(1))  # one for all tokens


def test_mixflow_shows_more_noise_than_it_tells_but_none_in_what_is_given() -> None:
    clean, noise, sigma = _tensors()
    given = torch.zeros(3, 7, dtype=torch.bool)
    given[:, :2] = True
    slowed = sigma + 0.5 * (1 - sigma)
    noised = add_noise(clean, sigma=sigma, noise=noise, given=given, slowed=slowed)
    told = add_noise(clean, sigma=sigma, noise=noise, given=given)
    assert torch.equal(noised.timesteps, told.timesteps)
    assert torch.equal(noised.noisy[:, :2], clean[:, :2])
    level = slowed.view(3, 1, 1)
    torch.testing.assert_close(noised.noisy[:, 2:], ((1 - level) * clean + level * noise)[:, 2:])

    drawn = draw_noise(torch.zeros(500, 3, 2), sampler=MixFlowDraw(), generator=torch.Generator().manual_seed(0), grid=(3, 1, 1))
    seen = (drawn.noisy / drawn.noise)[:, 0, 0]  # of clean zeros
    assert bool((seen >= drawn.sigma - 1e-5).all())
    assert (seen - drawn.sigma).mean() == pytest.approx(0.4 * (2 / 3), abs=0.03)


def test_the_right_velocity_has_no_loss() -> None:
    clean, noise, _ = _tensors()
    everything = torch.ones(3, 7, dtype=torch.bool)
    assert torch.equal(velocity_loss(noise - clean, clean, noise, everything), torch.zeros(3))


def test_padding_is_not_learned_and_does_not_shrink_the_loss() -> None:
    clean, noise, _ = _tensors()
    predicted = torch.zeros_like(clean)
    learned = torch.ones(3, 7, dtype=torch.bool)
    learned[1, 5:] = False
    learned[2] = False
    loss = velocity_loss(predicted, clean, noise, learned)
    squared = (noise - clean).square()
    torch.testing.assert_close(loss[0], squared[0].mean())
    torch.testing.assert_close(loss[1], squared[1, :5].mean())
    assert loss[2] == 0
    mask = learned[1].float()  # the official form: masked error divided by the mask's mean
    torch.testing.assert_close(loss[1], (squared[1].mean(dim=1) * mask).mean() / mask.mean())


def test_shapes_that_disagree_are_refused() -> None:
    clean, noise, _ = _tensors()
    with pytest.raises(ValueError, match=r"expected three \[B, L, C\]"):
        velocity_loss(clean[:, :3], clean, noise, torch.ones(3, 7, dtype=torch.bool))


def test_video_and_audio_have_their_own_sigma_and_the_audio_weight_counts_once() -> None:
    generator = torch.Generator().manual_seed(5)
    video = draw_noise(torch.randn(2, 50, 4), sampler=ShiftedLogitNormal(), generator=generator, grid=(2, 5, 5))
    audio = draw_noise(torch.randn(2, 9, 6), sampler=ShiftedLogitNormal(), generator=generator, grid=(9, 1, 1))
    assert not torch.equal(video.sigma, audio.sigma)
    losses = combine(torch.zeros(2, 50, 4), torch.zeros(2, 9, 6), video=video, audio=audio, audio_weight=0.25)
    assert losses.audio is not None
    torch.testing.assert_close(losses.total, losses.video + 0.25 * losses.audio)


def test_a_batch_without_audio_has_no_audio_loss() -> None:
    video = draw_noise(torch.randn(1, 5, 4), sampler=ShiftedLogitNormal(), generator=torch.Generator().manual_seed(5), grid=(5, 1, 1))
    losses = combine(torch.zeros(1, 5, 4), None, video=video, audio=None, audio_weight=1.0)
    assert losses.audio is None
    assert torch.equal(losses.total, losses.video)


def test_a_training_sample_and_its_loss_are_the_official_ones() -> None:
    reference = load_file(REFERENCE)
    clean = {
        "video": reference["g.latents.video"].flatten(2).transpose(1, 2),
        "audio": reference["g.latents.audio"].transpose(1, 2).flatten(2),
    }
    noised = {
        name: add_noise(clean[name], sigma=reference[f"g.t2v.{name}.sigma"], noise=reference[f"g.t2v.noise.{name}"]) for name in clean
    }
    for name, modality in noised.items():
        torch.testing.assert_close(modality.noisy, reference[f"g.t2v.{name}.latent"])
        torch.testing.assert_close(modality.timesteps.expand(modality.clean.shape[:2]), reference[f"g.t2v.{name}.timesteps"])
        loss = velocity_loss(reference[f"g.t2v.{name}.pred"], modality.clean, modality.noise, modality.learned)
        torch.testing.assert_close(loss, reference[f"g.t2v.{name}.loss"])
    losses = combine(
        reference["g.t2v.video.pred"], reference["g.t2v.audio.pred"], video=noised["video"], audio=noised["audio"], audio_weight=1.0
    )
    torch.testing.assert_close(losses.total, reference["g.t2v.loss"].mean())


def test_the_first_sigma_drawn_is_the_official_one() -> None:
    reference = load_file(REFERENCE)
    drawn = draw_noise(torch.zeros(2, 24, 8), sampler=ShiftedLogitNormal(), generator=torch.Generator().manual_seed(11200), grid=(4, 2, 3))
    torch.testing.assert_close(drawn.sigma, reference["g.t2v.video.sigma"])
