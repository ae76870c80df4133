"""Keys of losses, optimizers and adapters: what is said about those that have no effect or do not go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltx2core.config.load import LoadedConfig, load_config_dict
from ltx2core.config.optimizers import RULES
from ltx2core.errors import ConfigError
from ltx2core.training.objective_settings import rollouts_of
from ltx2core.training.settings import adapter_settings, rule_settings


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clips").mkdir()
    monkeypatch.chdir(tmp_path)


def load(**keys: object) -> LoadedConfig:
    return load_config_dict(keys, base=Path.cwd(), datasets=[{"instance_data_dir": "clips"}])


def told(loaded: LoadedConfig, code: str) -> str:
    return " ".join(f"{notice.text} {notice.fix}" for notice in loaded.notices if notice.code == code)


def test_a_width_of_huber_beside_squares_is_named_and_beside_huber_it_is_not() -> None:
    assert "huber_c" in told(load(huber_c=0.3), "no_effect")
    assert load(huber_c=0.3, loss_type="huber").notices == ()
    assert load(snr_gamma=5, loss_type="smooth_l1", huber_schedule="constant").notices == ()


def test_every_name_of_an_optimizer_is_a_rule_that_trains_and_unknown_ones_are_refused_by_name() -> None:
    for name, rule in RULES.items():
        loaded = load(optimizer=name, learning_rate=1.0)
        assert not told(loaded, "not_built_yet")
        assert rule_settings(loaded.config).rule == rule
    with pytest.raises(ConfigError, match=r"optimizer = \"lion\": no such optimizer is built here; use one of adamw, .*prodigy"):
        load(optimizer="lion")


def test_prodigy_gets_the_rate_it_needs_and_has_no_rates_for_single_layers() -> None:
    loaded = load(optimizer="prodigy", audio_learning_rate=0.1)
    assert loaded.config.learning_rate == 1.0
    assert "1.0" in told(loaded, "prodigy_rate")
    assert "audio_learning_rate" in told(loaded, "no_effect")
    assert adapter_settings(loaded.config).audio_rate == 1.0
    assert "Use 1.0" in told(load(optimizer="prodigy", learning_rate=1e-4), "prodigy_rate")


def test_a_schedule_beside_schedule_free_is_named() -> None:
    assert "constant_with_warmup" in told(load(optimizer="adamw_schedulefree", lr_scheduler="cosine"), "two_schedules")
    assert load(optimizer="adamw_schedulefree").notices == ()


def test_patterns_may_be_written_as_text_and_give_layers_their_own_rank_alpha_and_rate() -> None:
    config = load(
        lora_rank=8,
        lora_rank_pattern='{"attn1": 4, "attn1.to_q": 2}',
        lora_alpha_pattern={"attn2": 16},
        learning_rate_pattern={"transformer_blocks.3": 0.5},
        learning_rate=1e-3,
        audio_learning_rate=2.5e-4,
    ).config
    settings = adapter_settings(config)
    shapes = {
        name: settings.shape_of(f"transformer_blocks.3.{name}") for name in ("attn1.to_q", "attn1.to_k", "attn2.to_q", "audio_attn1.to_q")
    }
    assert [shape.rank for shape in shapes.values()] == [2, 4, 8, 8]
    assert [shape.scale for shape in shapes.values()] == [1.0, 1.0, 2.0, 1.0]
    assert [shape.rate for shape in shapes.values()] == [0.5, 0.5, 0.5, 0.125]
    assert settings.shape_of("transformer_blocks.0.audio_to_video_attn.to_k").rate == 1.0  # it reads sound and changes pictures
    assert settings.shape_of("transformer_blocks.0.video_to_audio_attn.to_k").rate == 0.25


def test_rslora_divides_by_the_root_of_the_rank() -> None:
    assert adapter_settings(load(lora_rank=16, lora_alpha=8, use_rslora=True).config).shape_of("attn1.to_q").scale == 2.0


def test_adapters_that_cannot_be_both_and_lycoris_files_that_are_not_there_are_refused() -> None:
    with pytest.raises(ConfigError) as error:
        load(use_dora=True, lora_type="lycoris", lora_rank_pattern={"attn1": 4}, lora_format="diffusers", lycoris_config="none.json")
    said = " ".join(error.value.problems)
    assert all(word in said for word in ("use_dora", "lora_rank_pattern", "lora_format", "none.json"))
    with pytest.raises(ConfigError, match="Muon updates matrices"):
        load(use_dora=True, optimizer="muon")


def test_a_lokr_of_feed_forward_layers_targets_them() -> None:
    Path("lycoris.json").write_text('{"algo": "lokr", "factor": 4, "apply_preset": {"target_module": ["Attention", "FeedForward"]}}')
    settings = adapter_settings(load(lora_type="lycoris", lycoris_config="lycoris.json").config)
    assert settings.lokr is not None
    assert settings.lokr.factor == 4
    assert settings.targets is not None
    assert {"ff.net.2", "attn1.to_q"} <= set(settings.targets)


def test_a_rate_that_suits_adamw_is_too_high_for_came_and_is_told() -> None:
    assert "CAME" in told(load(optimizer="came", learning_rate=1e-3), "came_rate")
    assert load(optimizer="came").notices == ()


def test_what_rollouts_cost_is_said_before_they_are_trained_with() -> None:
    loaded = load(scheduled_sampling_max_step_offset=10, scheduled_sampling_probability=0.5, scheduled_sampling_sampler="unipc")
    assert "50% of batches take 5.5 more forwards on average, 2.8 over all" in told(loaded, "rollout_cost")
    assert "1.7 to 1.9 times its time" in told(loaded, "rollout_cost")
    assert "Euler" in told(loaded, "sampler_changed")
    rollouts = rollouts_of(loaded.config)
    assert rollouts is not None
    assert (rollouts.most_steps, rollouts.step_size, rollouts.probability, rollouts.reflexflow) == (10, 0.05, 0.5, None)


def test_keys_of_rollouts_that_never_happen_are_named() -> None:
    loaded = load(scheduled_sampling_max_step_offset=4)
    assert "scheduled_sampling_probability is 0" in told(loaded, "no_effect")
    assert rollouts_of(loaded.config) is None
    assert rollouts_of(load(scheduled_sampling_probability=0.5).config) is None
    ramp = {"scheduled_sampling_max_step_offset": 4, "scheduled_sampling_ramp_steps": 10, "scheduled_sampling_probability": 0.5}
    assert "scheduled_sampling_probability" in told(load(**ramp), "no_effect")
    assert "reflexflow_alpha" in told(load(**ramp, scheduled_sampling_reflexflow_alpha=2), "no_effect")
    assert load().notices == ()
