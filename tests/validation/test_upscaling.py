"""Samples in two stages: the upsampler's file is read as it was written, and the second stage goes on from the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from diffusers.pipelines.ltx2 import LTX2LatentUpsamplerModel
from engine_fixtures import events_of
from nano_world import world
from safetensors.torch import save_file

from ltx2core.errors import CheckpointError, ConfigError
from ltx2core.models.upsampler import check_upsampler, load_upsampler, upsample, video_statistics
from ltx2core.runs.events import Notice, Progress, SampleReady
from ltx2core.training.step import Model
from ltx2core.validation.drawing import draw_take
from ltx2core.validation.inputs import Take
from ltx2core.validation.media import SampleSettings, draw
from ltx2core.validation.shots import Shot

if TYPE_CHECKING:
    from pathlib import Path

    from engine_fixtures import MakeConfig, OpenRun

CPU, F32 = torch.device("cpu"), torch.float32


def network(**others: object) -> LTX2LatentUpsamplerModel:
    torch.manual_seed(0)
    channels = world().transformer.config.in_channels
    return LTX2LatentUpsamplerModel(**{"in_channels": channels, "mid_channels": 32, "num_blocks_per_stage": 2, **others}).eval()


@pytest.fixture(scope="module")
def upsampler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upsampler") / "ltx-2-spatial-upscaler-x2-1.0.safetensors"
    save_file(network().state_dict(), path)
    return path


@pytest.mark.parametrize("rational", [True, False], ids=["of 2.0", "of later versions"])
def test_a_file_is_loaded_by_its_shapes_alone(tmp_path: Path, rational: bool) -> None:
    made = network(use_rational_resampler=rational)
    save_file(made.state_dict(), tmp_path / "up.safetensors")
    found = load_upsampler(tmp_path / "up.safetensors", device=CPU, dtype=F32)
    latents = torch.randn(1, made.in_channels, 2, 3, 2)
    assert torch.equal(found(latents), made(latents))


def test_the_upsampler_sees_latents_as_the_vae_has_them(upsampler: Path) -> None:
    latents = torch.randn(1, world().transformer.config.in_channels, 2, 2, 3)
    found = upsample(load_upsampler(upsampler, device=CPU, dtype=F32), latents, world().checkpoint)
    vae = world().vae
    mean, std = (part.view(1, -1, 1, 1, 1) for part in (vae.latents_mean, vae.latents_std))
    with torch.no_grad():
        expected = (network()(latents * std + mean) - mean) / std
    assert found.shape == (1, latents.shape[1], 2, 4, 6)
    torch.testing.assert_close(found, expected)
    assert torch.equal(video_statistics(world().checkpoint)[1], vae.latents_std)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"in_channels": 16}, "for latents of 16 channels"),
        ({"spatial_upsample": False, "temporal_upsample": True}, "does not upsample by two in width and height"),
        ({"rational_spatial_scale": 1.5}, "does not upsample by two in width and height"),
    ],
    ids=["of another model", "in time", "by one and a half"],
)
def test_another_upsampler_is_refused(tmp_path: Path, others: dict[str, object], said: str) -> None:
    save_file(network(**others).state_dict(), tmp_path / "up.safetensors")
    with pytest.raises(CheckpointError, match=said):
        check_upsampler(tmp_path / "up.safetensors", world().checkpoint)


def test_a_lora_is_no_upsampler(tmp_path: Path) -> None:
    save_file({"a.lora_A.weight": torch.zeros(1, 1)}, tmp_path / "lora.safetensors")
    with pytest.raises(CheckpointError, match="is no latent upsampler"):
        check_upsampler(tmp_path / "lora.safetensors", world().checkpoint)


def test_the_second_stage_goes_on_from_the_first(upsampler: Path) -> None:
    model = Model(transformer=world().transformer, device=CPU, dtype=F32)
    given, nothing = world().texts
    settings = SampleSettings(width=128, height=128, frames=9, fps=25.0, steps=4, guidance=3.0, seed=0, audio=True, upsampler=upsampler)
    steps: list[tuple[int, int]] = []
    take = Take(shot=Shot(name="", prompt="", width=128, height=128, seed=0), settings=settings)
    found = draw_take(
        model, world().checkpoint, take, text=given, negative=nothing, on_step=lambda done, total: steps.append((done, total))
    )
    assert steps == [(done, 7) for done in range(1, 8)]
    assert found.video.shape[-3:] == (2, 4, 4)
    alone = draw(model, text=given, negative=nothing, settings=SampleSettings(
        width=128, height=128, frames=9, fps=25.0, steps=4, guidance=3.0, seed=0, audio=True))  # fmt: skip
    assert not torch.allclose(found.video, alone.video, atol=0.1)
    assert found.audio.shape == alone.audio.shape


def test_a_run_upsamples_its_samples_and_says_that_they_are_rough(make_config: MakeConfig, open_run: OpenRun, upsampler: Path) -> None:
    loaded = make_config(
        max_train_steps=1,
        validation_disable=False,
        validation_step_interval=1,
        validation_resolution="120x128",
        ltx2_validation_pipeline_mode="spatial-upscale",
        ltx2_validation_spatial_upsampler_model=str(upsampler.parent),
        validation_using_datasets=True,
        num_eval_images=1,
    )
    assert loaded.config.validation_resolution == "128x128"
    session = open_run(loaded, "large")
    assert session.run() == "finished", session.failure
    events = events_of(session)
    assert [event.mode for event in events if isinstance(event, SampleReady)] == ["i2v", "i2v"]
    assert {event.total for event in events if isinstance(event, Progress) and event.phase == "sample"} == {2 + 3}
    assert any(isinstance(event, Notice) and event.code == "not_distilled" for event in events)


def test_an_upsampler_that_is_not_there_is_said_when_the_config_is_read(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="ltx2_validation_spatial_upsampler_model"):
        make_config(ltx2_validation_pipeline_mode="spatial-upscale", ltx2_validation_spatial_upsampler_model="./gone.safetensors")
