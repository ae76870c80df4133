"""Rollouts against a plain Euler loop, ReflexFlow against its formula, in both engines (float32; 1e-4 of each other)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import torch
from step_engine import difference, draw_batch, fast_nano, fast_step, make_batch, nano, reference_nano, reference_step

from ltx2core.config.rollout import RolloutKeys
from ltx2core.models.components import load_transformer
from ltx2core.models.forward import predict_velocity
from ltx2core.planning.flops import count_step, model_shape
from ltx2core.training.conditions import GivenPart
from ltx2core.training.objective import velocity_loss
from ltx2core.training.rollout import ReflexFlow, Rollouts, bias_weights, drift_loss, roll_out, towards_clip
from ltx2core.training.sigma import FixedLevels, ShiftedLogitNormal
from ltx2core.training.step import Drawn, Model, _Forward, draw, losses_of
from ltx2core.training.step_meter import StepMeter, batch_shape

if TYPE_CHECKING:
    from torch import Tensor

    from ltx2core.training.objective import Noised

ALWAYS = Rollouts(most_steps=3, step_size=0.1, probability=1.0)
FIRST = GivenPart(kind="first_frame", probability=1.0)


def _drawn(*, sigma: float = 0.5, steps: int = 3, audio: int | None = 9, parts: tuple[GivenPart, ...] = ()) -> Drawn:
    batch = make_batch(count=2, audio=audio)
    drawn = draw(batch, sampler=FixedLevels(levels=(sigma,)), generator=torch.Generator().manual_seed(4), parts=parts)
    return replace(drawn, rollout_steps=steps)


def _euler(model: Model, drawn: Drawn, *, steps: int, step_size: float) -> dict[str, Tensor]:
    """The states reached, by diffusers' model alone; the batch's samples share a sigma."""
    assert drawn.video is not None
    goal = float(drawn.video.sigma[0])
    start = min(1.0, goal + steps * step_size)
    levels = [start + (goal - start) * step / steps for step in range(steps + 1)]
    streams = {name: part for name, part in (("video", drawn.video), ("audio", drawn.audio)) if part is not None}
    given = {name: part.timesteps.expand(part.clean.shape[:2]) == 0 for name, part in streams.items()}
    states = {
        name: torch.where(given[name].unsqueeze(2), part.clean, (1 - start) * part.clean + start * part.noise)
        for name, part in streams.items()
    }
    for now, then in pairwise(levels):
        sigma = torch.full((2,), now)
        with torch.no_grad():
            found = predict_velocity(
                model.transformer, video=states["video"], video_timesteps=(~given["video"]) * now, video_sigma=sigma,
                audio=states.get("audio"), audio_timesteps=sigma.view(-1, 1) if "audio" in states else None,
                audio_sigma=sigma if "audio" in states else None, text=drawn.batch.text, grid=drawn.batch.grid, fps=drawn.batch.fps,
            )  # fmt: skip
        for name, velocity in zip(("video", "audio"), found, strict=True):
            if velocity is not None:
                states[name] = torch.where(given[name].unsqueeze(2), states[name], states[name] + (then - now) * velocity)
    return states


@pytest.mark.parametrize("parts", [(), (FIRST,)])
@pytest.mark.parametrize(("sigma", "steps", "audio"), [(0.5, 3, 9), (0.5, 1, None), (0.85, 3, 9)])  # the last is stopped at pure noise
def test_a_rollout_ends_where_a_plain_euler_loop_does(sigma: float, steps: int, audio: int | None, parts: tuple[GivenPart, ...]) -> None:
    drawn = _drawn(sigma=sigma, steps=steps, audio=audio, parts=parts)
    seen: list[tuple[Noised | None, Noised | None]] = []
    for model in (reference_nano(audio=audio is not None)[0], fast_nano(audio=audio is not None)[0]):
        with model.looking():
            seen.append(roll_out(_Forward(model, drawn.batch).velocities, drawn.video, drawn.audio, steps=steps, step_size=0.1))
    expected = _euler(reference_nano(audio=audio is not None)[0], drawn, steps=steps, step_size=0.1)
    for video, sound in seen:
        assert video is not None
        assert drawn.video is not None
        torch.testing.assert_close(video.noisy, expected["video"], rtol=1e-4, atol=1e-4)
        assert float((video.noisy - drawn.video.noisy).abs().max()) > 0.01  # a real move
        assert torch.equal(video.sigma, drawn.video.sigma)
        assert (sound is None) == (audio is None)
        if sound is not None:
            torch.testing.assert_close(sound.noisy, expected["audio"], rtol=1e-4, atol=1e-4)
        if parts:
            assert torch.equal(video.noisy[:, :6], drawn.video.clean[:, :6])


def test_the_state_reached_is_led_back_to_the_clip_and_an_exact_one_has_the_usual_target() -> None:
    video = _drawn().video
    assert video is not None
    torch.testing.assert_close(towards_clip(video).noise, video.noise, rtol=1e-4, atol=1e-4)
    drifted = replace(video, noisy=video.noisy + 0.1)
    target = towards_clip(drifted)
    torch.testing.assert_close(drifted.noisy - 0.5 * (target.noise - target.clean), video.clean, rtol=1e-4, atol=1e-5)


def test_reflexflow_is_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    video = _drawn().video
    assert video is not None
    reached = replace(video, noisy=video.noisy + 0.1)
    velocity, exact = (torch.randn(video.clean.shape, generator=generator) for _ in range(2))
    for sample in range(2):
        toward = (reached.noisy - reached.clean)[sample].flatten()
        v = velocity[sample].flatten()
        assert float(drift_loss(velocity, reached)[sample]) == pytest.approx(
            float((v / v.norm() - toward / toward.norm()).square().sum()), rel=1e-4
        )
        bias = (exact - velocity)[sample].abs()
        torch.testing.assert_close(bias_weights(exact, velocity, reached.learned, alpha=2.0)[sample], 1 + 2 * bias / bias.mean())
    assert float(drift_loss(reached.noisy - reached.clean, reached).max()) < 1e-6
    assert float(drift_loss(reached.clean - reached.noisy, reached).min()) == pytest.approx(4, rel=1e-4)


@pytest.mark.parametrize("reflexflow", [None, ReflexFlow(alpha=1.0, beta1=0.5, beta2=1.0)])
@pytest.mark.parametrize("audio", [9, None])
def test_both_engines_learn_the_same_from_a_rollout_and_another_thing_than_without(
    reflexflow: ReflexFlow | None, audio: int | None
) -> None:
    rollouts = replace(ALWAYS, reflexflow=reflexflow)
    drawn = _drawn(audio=audio, parts=(FIRST,))
    usual, parameters = reference_nano(audio=audio is not None)
    flat, fast = fast_nano(audio=audio is not None)
    usual, flat = replace(usual, rollouts=rollouts), replace(flat, rollouts=rollouts)
    usual.transformer.train()
    loss, expected = reference_step(usual, parameters, drawn)
    found_loss, found = fast_step(flat, fast, drawn)
    torch.testing.assert_close(found_loss, loss, rtol=1e-4, atol=1e-5)
    assert difference(found, expected) < 1e-3
    plain, _ = reference_step(usual, parameters, replace(drawn, rollout_steps=0))
    assert abs(float(plain - loss)) > 1e-3
    assert usual.transformer.training


def test_what_a_rollout_learns_is_the_way_back_from_the_state_it_reached() -> None:
    drawn = _drawn(audio=None)
    model, _ = reference_nano(audio=False)
    model = replace(model, rollouts=ALWAYS)
    state = _euler(model, drawn, steps=3, step_size=0.1)["video"]
    assert drawn.video is not None
    reached = replace(drawn.video, noisy=state)
    with torch.no_grad():
        velocity, _ = _Forward(model, drawn.batch).velocities(reached, None)
        assert velocity is not None
        expected = velocity_loss(velocity, reached.clean, reached.clean + (state - reached.clean) / 0.5, reached.learned).mean()
        found = losses_of(model, drawn, audio_weight=1.0).total
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strategy", ["uniform", "biased_early", "biased_late"])
def test_lengths_are_drawn_as_the_strategy_says_and_as_often_as_the_probability(strategy: str) -> None:
    rollouts = Rollouts(most_steps=4, strategy=strategy, probability=0.75)
    generator = torch.Generator().manual_seed(0)
    lengths = Counter(rollouts.draw(0, generator) for _ in range(4000))
    assert lengths[0] == pytest.approx(1000, rel=0.1)
    drawn = {length: count for length, count in lengths.items() if length}
    assert set(drawn) == {1, 2, 3, 4}
    mean = sum(length * count for length, count in drawn.items()) / sum(drawn.values())
    assert mean == pytest.approx(
        RolloutKeys(scheduled_sampling_max_step_offset=4, scheduled_sampling_strategy=strategy).rollout_forwards, rel=0.03
    )


def test_the_share_of_rollouts_rises_over_the_ramp_and_stays() -> None:
    linear = Rollouts(most_steps=2, first=0.2, last=0.6, ramp_steps=10, start_step=5)
    assert [linear.probability_at(step) for step in (0, 4, 5, 10, 15, 99)] == pytest.approx([0, 0, 0.2, 0.4, 0.6, 0.6])
    cosine = replace(linear, ramp="cosine")
    assert [cosine.probability_at(step) for step in (5, 7, 10, 15)] == pytest.approx([0.2, 0.2 + 0.4 * 0.0955, 0.4, 0.6], abs=1e-4)


def test_noise_is_the_same_with_and_without_rollouts() -> None:
    batch = make_batch()
    with_them, without = (
        draw(batch, sampler=ShiftedLogitNormal(), generator=torch.Generator().manual_seed(4), rollouts=rollouts)
        for rollouts in (ALWAYS, None)
    )
    assert with_them.rollout_steps > 0
    assert without.rollout_steps == 0
    assert with_them.video is not None
    assert without.video is not None
    assert torch.equal(with_them.video.noisy, without.video.noisy)


def test_a_rollout_that_was_drawn_for_a_model_without_them_is_refused() -> None:
    model, _ = reference_nano()
    with pytest.raises(ValueError, match="rollouts"):
        losses_of(model, replace(draw_batch(make_batch()), rollout_steps=2), audio_weight=1.0)


def test_operations_of_a_rollout_are_counted_with_the_step_s() -> None:
    fast = fast_nano()[1]
    shape = model_shape(load_transformer(nano(), dtype=torch.float32), ranks=dict.fromkeys(fast.targets, 4))
    meter = StepMeter(shape, matmul_rate=1e12)
    plain, rolled = (meter.flops(_drawn(steps=steps)) for steps in (0, 3))
    forward = count_step(shape, batch_shape(_drawn(steps=0), ())).forward
    assert rolled == plain + 3 * forward
