"""Guidance is the formula it says it is, each of its levers does something, and the way weights are held changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from engine_fixtures import events_of
from nano_world import AUDIO_STEPS, FPS, GRID, scenes, world
from step_engine import fast_nano, reference_nano

from ltx2core.models.forward import predict_velocity
from ltx2core.models.nano import clips
from ltx2core.models.text import TextEmbedding
from ltx2core.training.fast_model import FastSettings
from ltx2core.validation.guidance import Guidance, combine, perturbing, stg_blocks
from ltx2core.validation.sampling import DISTILLED_SIGMAS, Inputs

if TYPE_CHECKING:
    from engine_fixtures import MakeConfig, OpenRun
    from torch import Tensor

PLAIN = Guidance.plain(3.0)
ALL = Guidance(video=3.0, audio=5.0, stg=1.0, modality=2.0, rescale=0.7)
LEVERS = {
    "guidance": replace(PLAIN, video=4.0),
    "guidance of sound": replace(PLAIN, audio=6.0),
    "stg": replace(PLAIN, stg=1.0),
    "another block": replace(PLAIN, stg=1.0, stg_blocks=(0,)),
    "modality": replace(PLAIN, modality=3.0),
    "rescale": replace(PLAIN, rescale=0.7),
}


def test_the_combination_is_the_formula() -> None:
    draw = torch.Generator().manual_seed(0)
    c, u, p, i = (torch.randn(1, 12, 8, generator=draw) for _ in range(4))
    guided = c + 3 * (c - u) + 0.5 * (c - p) + 1.5 * (c - i)
    expected = 0.7 * guided * (c.std() / guided.std()) + 0.3 * guided
    found = combine({"given": c, "without": u, "perturbed": p, "isolated": i}, guidance=4.0, stg=0.5, modality=2.5, rescale=0.7)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(combine({"given": c}, guidance=4.0, stg=0.5, modality=2.5, rescale=0.0), c)


def predictions(text: TextEmbedding, video: Tensor, audio: Tensor, *, isolated: bool = False, perturbed: tuple[int, ...] = ()) -> Tensor:
    """What nano takes the clean video to be, from pure noise."""
    one = torch.ones(1, 1)
    with torch.no_grad(), perturbing(world().transformer, perturbed):
        velocity, _ = predict_velocity(
            world().transformer, video=video, video_timesteps=one, video_sigma=one[:, 0], audio=audio, audio_timesteps=one,
            audio_sigma=one[:, 0], text=TextEmbedding.stack([text]), grid=GRID, fps=torch.tensor([FPS]), isolated=isolated,
            perturbed=perturbed,
        )  # fmt: skip
    return video - velocity


def test_a_step_of_sampling_combines_the_four_predictions_of_the_model() -> None:
    given, nothing = world().texts
    draw = torch.Generator().manual_seed(9)
    video = torch.randn(1, 48, world().transformer.config.in_channels, generator=draw)
    audio = torch.randn(1, AUDIO_STEPS, world().transformer.config.audio_in_channels, generator=draw)
    c, u = predictions(given, video, audio), predictions(nothing, video, audio)
    p, i = predictions(given, video, audio, perturbed=stg_blocks(world().transformer)), predictions(given, video, audio, isolated=True)
    guided = c + 2 * (c - u) + 1.0 * (c - p) + 1.0 * (c - i)
    expected = guided * (0.7 * c.std() / guided.std() + 0.3)
    found = world().draw(seed=9, steps=1, guidance=ALL).video  # one step from noise to the clean tokens
    assert found is not None
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lever", LEVERS)
def test_each_lever_changes_what_is_drawn(lever: str) -> None:
    plain, found = (world().draw(steps=2, guidance=guidance) for guidance in (PLAIN, LEVERS[lever]))
    which = "audio" if lever == "guidance of sound" else "video"
    difference = (getattr(found, which) - getattr(plain, which)).abs().mean()
    assert difference > 1e-3 * getattr(plain, which).abs().mean()


def test_a_model_that_was_perturbed_is_as_before_afterwards() -> None:
    before = world().draw(steps=2)
    world().draw(steps=2, guidance=ALL)
    after = world().draw(steps=2)
    assert torch.equal(before.video, after.video)
    assert not any(block.perturbed_attn for block in world().transformer.transformer_blocks)


def test_a_block_that_the_model_has_not_is_refused(make_config: MakeConfig, open_run: OpenRun) -> None:
    with pytest.raises(ValueError, match="expected blocks 0 to 4, got 29"):
        stg_blocks(world().transformer, (29,))
    session = open_run(make_config(ltx2_validation_stg_scale=1.0, ltx2_validation_stg_blocks=[29]), "no-block")
    assert session.run() == "failed"
    assert session.failure is not None
    assert session.failure.text.startswith("ltx2_validation_stg_blocks: expected blocks 0 to 4")
    assert not any(getattr(event, "phase", "") == "cache_video" for event in events_of(session))


def _given() -> Inputs:
    one = scenes(1, seed=2)
    pixels = clips.render_video(one, width=128, height=128, frames=1, fps=FPS)
    waveform = clips.render_sound(one, seconds=0.68, sample_rate=16000)
    return Inputs(first_frame=world().first_frame(pixels), audio=world().sound(waveform))


@pytest.mark.parametrize("given", [False, True], ids=["from text", "from a picture and a sound"])
def test_a_sample_through_the_ring_is_the_one_with_resident_weights(given: bool) -> None:
    inputs = _given() if given else Inputs()
    streamed, resident = (
        world().draw(
            steps=2, guidance=ALL, inputs=inputs, transformer=fast_nano(FastSettings(compile=False, streamed=count))[1].transformer
        )
        for count in (4, 0)
    )
    assert torch.equal(streamed.video, resident.video)
    assert torch.equal(streamed.audio, resident.audio)


@pytest.mark.parametrize("given", [False, True], ids=["from text", "from a picture and a sound"])
def test_a_sample_of_the_step_engine_is_that_of_diffusers_and_peft(given: bool) -> None:
    inputs = _given() if given else Inputs()
    found, expected = (
        world().draw(steps=2, guidance=ALL, inputs=inputs, transformer=transformer)
        for transformer in (fast_nano()[1].transformer, reference_nano()[0].transformer)
    )
    torch.testing.assert_close(found.video, expected.video, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.audio, expected.audio, rtol=1e-3, atol=1e-4)


def test_guidance_keys_reach_the_samples(make_config: MakeConfig) -> None:
    from ltx2core.training.settings import sample_settings

    keys = {
        "validation_guidance": 3.0,
        "ltx2_validation_audio_guidance": 7.0,
        "ltx2_validation_stg_scale": 1.0,
        "ltx2_validation_stg_blocks": [2],
        "ltx2_validation_modality_guidance": 3.0,
        "validation_guidance_rescale": 0.7,
    }
    settings = sample_settings(make_config(**keys).config, audio=True)
    assert settings.guidance == Guidance(video=3.0, audio=7.0, stg=1.0, stg_blocks=(2,), modality=3.0, rescale=0.7)
    assert settings.sigmas is None


def test_distilled_weights_are_drawn_in_eight_steps_without_guidance(make_config: MakeConfig) -> None:
    from ltx2core.training.settings import sample_settings

    settings = sample_settings(make_config(model_flavour="2.3-distilled").config, audio=True)
    assert settings.sigmas == DISTILLED_SIGMAS
    assert settings.total_steps == 8
    assert settings.guidance == Guidance.plain(1.0)
    assert sample_settings(make_config(model_flavour="2.3-distilled", ltx2_validation_schedule="full").config, audio=True).sigmas is None
