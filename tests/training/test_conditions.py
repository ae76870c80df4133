"""Parts of a clip that are given: which tokens, how often, and what the official trainer makes of them (tests/data/reference, group g)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from ltx2core.config.load import load_config_dict
from ltx2core.errors import ConfigError
from ltx2core.runs.events import StepDone
from ltx2core.training.conditions import GivenPart, draw_given, with_first_frame
from ltx2core.training.objective import add_noise, velocity_loss
from ltx2core.training.objective_settings import given_parts, sigma_sampler
from ltx2core.training.sigma import BetaDraw, FixedLevels, ShiftedLogitNormal, StaticShift, UniformDraw

if TYPE_CHECKING:
    from engine_fixtures import MakeConfig, OpenRun

    from ltx2core.config.load import LoadedConfig

REFERENCE = Path(__file__).parent.parent / "data" / "reference" / "ltx-2.0-tiny.io.safetensors"
GRID = (4, 2, 3)


def _given(*parts: GivenPart, count: int = 1, grid: tuple[int, int, int] = GRID) -> torch.Tensor:
    return draw_given(parts, grid=grid, count=count, generator=torch.Generator().manual_seed(0)).view(count, *grid)


def test_each_kind_gives_the_tokens_that_it_names() -> None:
    frames = {
        kind: _given(GivenPart(kind=kind, probability=1, length=2))[0].all(dim=(1, 2)).tolist()
        for kind in ("first_frame", "prefix", "suffix")
    }
    assert frames == {
        "first_frame": [True, False, False, False],
        "prefix": [True, True, False, False],
        "suffix": [False, False, True, True],
    }
    crop = _given(GivenPart(kind="spatial_crop", probability=1, region=(0, 1, 1, 3)))[0]
    assert crop[:, 0, 1:].all()
    assert crop.sum() == 4 * 2


def test_parts_are_drawn_for_each_sample_by_themselves() -> None:
    given_ = _given(GivenPart(kind="first_frame", probability=0.25), GivenPart(kind="suffix", probability=0.5), count=4000)
    first, last = given_[:, 0, 0, 0], given_[:, 3, 0, 0]
    assert first.float().mean() == pytest.approx(0.25, abs=0.03)
    assert last.float().mean() == pytest.approx(0.5, abs=0.03)
    assert (first & last).float().mean() == pytest.approx(0.125, abs=0.03)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5))
def test_something_is_always_left_to_learn(prefix: int, suffix: int, frames: int) -> None:
    parts = (GivenPart(kind="prefix", probability=1, length=prefix), GivenPart(kind="suffix", probability=0.5, length=suffix))
    assert not _given(*parts, count=8, grid=(frames, 1, 1)).flatten(1).all(dim=1).any()


@pytest.mark.parametrize(("case", "probability"), [("i2v", 1.0), ("i2v_half", 0.5)])
def test_a_given_first_frame_is_what_the_official_trainer_makes_of_it(case: str, probability: float) -> None:
    reference = load_file(REFERENCE)
    first_frame = _given(GivenPart(kind="first_frame", probability=1)).flatten(1)
    video = add_noise(
        reference["g.latents.video"].flatten(2).transpose(1, 2),
        sigma=reference[f"g.{case}.video.sigma"],
        noise=reference[f"g.{case}.noise.video"],
        given=(reference[f"g.{case}.first_frame_draw"] < probability)[:, None] & first_frame,
    )
    for name, found in {"latent": video.noisy, "sigma": video.sigma, "timesteps": video.timesteps}.items():
        torch.testing.assert_close(found, reference[f"g.{case}.video.{name}"])
    assert torch.equal(video.learned, reference[f"g.{case}.video.loss_mask"])
    loss = velocity_loss(reference[f"g.{case}.video.pred"], video.clean, video.noise, video.learned)
    torch.testing.assert_close(loss, reference[f"g.{case}.video.loss"])


def _loaded(tmp_path: Path, **values: object) -> LoadedConfig:
    (tmp_path / "clips").mkdir(exist_ok=True)
    datasets = [{"id": "clips", "instance_data_dir": str(tmp_path / "clips")}]
    base = {"pretrained_model_name_or_path": "nano", "max_train_steps": 1}
    return load_config_dict({**base, **values}, base=tmp_path, datasets=datasets)


def test_the_config_says_what_is_given_and_how_noise_is_drawn(tmp_path: Path) -> None:
    config = _loaded(
        tmp_path,
        ltx2_first_frame_conditioning_probability=0.5,
        ltx2_suffix_conditioning_probability=0.1,
        ltx2_suffix_conditioning_frames=2,
        ltx2_intrinsic_conditioning=[{"type": "prefix", "probability": 0.2, "modality": "audio", "temporal_boundary": 5}],
    ).config
    assert given_parts(config) == (
        GivenPart(kind="first_frame", probability=0.5),
        GivenPart(kind="suffix", probability=0.1, length=2),
        GivenPart(kind="prefix", probability=0.2, modality="audio", length=5),
    )
    assert given_parts(_loaded(tmp_path).config) == ()
    samplers = {
        "official": sigma_sampler(_loaded(tmp_path, flow_shift_max_tokens=4096, flow_sigmoid_scale=0.5).config),
        "fixed": sigma_sampler(_loaded(tmp_path, flow_schedule_shift=3).config),
        "uniform": sigma_sampler(_loaded(tmp_path, flow_use_uniform_schedule=True, flow_schedule_shift=2).config),
        "beta": sigma_sampler(_loaded(tmp_path, flow_use_beta_schedule=True, flow_beta_schedule_alpha=3).config),
        "list": sigma_sampler(_loaded(tmp_path, flow_custom_timesteps=[0.25, 900]).config),
    }
    assert samplers == {
        "official": ShiftedLogitNormal(std=0.5, most_tokens=4096),
        "fixed": StaticShift(shift=3),
        "uniform": UniformDraw(shift=2),
        "beta": BetaDraw(alpha=3, beta=2),
        "list": FixedLevels(levels=(0.25, 0.9)),
    }


def test_a_key_of_noise_levels_that_another_overrules_is_named(tmp_path: Path) -> None:
    def told(**values: object) -> str:
        return " ".join(notice.text for notice in _loaded(tmp_path, **values).notices if notice.code == "no_effect")

    assert "config flow_shift_max_tokens: no effect" in told(flow_schedule_shift=3, flow_shift_max_tokens=4096)
    assert "flow_schedule_shift, flow_use_beta_schedule" in told(
        flow_custom_timesteps=[0.5], flow_use_beta_schedule=True, flow_schedule_shift=2
    )
    assert told(flow_use_beta_schedule=True, flow_beta_schedule_alpha=3, flow_schedule_shift=2) == ""
    assert told(flow_sigmoid_scale=0.5, flow_shift_max_tokens=4096) == ""


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"type": "spatial_crop"}, "a spatial_crop of the picture has its spatial_region"),
        ({"type": "spatial_crop", "spatial_region": [3, 0, 2, 2]}, "y1 < y2"),
        ({"type": "prefx"}, "use prefix"),
        ({"type": "prefix", "temporal_boundry": 3}, "use temporal_boundary"),
    ],
)
def test_a_wrong_part_is_told_with_what_would_work(tmp_path: Path, entry: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        _loaded(tmp_path, ltx2_intrinsic_conditioning=[entry])


def test_a_run_with_given_parts_trains_otherwise_than_one_without(make_config: MakeConfig, open_run: OpenRun) -> None:
    from engine_fixtures import events_of

    losses = {}
    for name, chance in (("without", 0.0), ("never", 1e-9), ("with", 1.0)):
        silent = make_config(dataset={"audio": None}, max_train_steps=1, ltx2_first_frame_conditioning_probability=chance)
        run = open_run(silent, name)
        assert run.run() == "finished", run.failure
        losses[name] = [event.video_loss for event in events_of(run) if isinstance(event, StepDone)]
    assert losses["never"] == pytest.approx(losses["without"], rel=1e-6)  # drawing alone changes nothing of a clip without sound
    assert losses["with"] != losses["without"]


def test_a_dataset_is_for_image_to_video_as_often_as_the_run_says_or_half_of_the_time_or_never() -> None:
    first, suffix = GivenPart(kind="first_frame", probability=0.2), GivenPart(kind="suffix", probability=0.1)
    assert with_first_frame([first, suffix], None) == [first, suffix]
    assert with_first_frame([first, suffix], True) == [first, suffix]
    assert with_first_frame([first, suffix], False) == [suffix]
    assert with_first_frame([suffix], True) == [GivenPart(kind="first_frame", probability=0.5), suffix]
    assert with_first_frame([], None) == with_first_frame([], False) == []
