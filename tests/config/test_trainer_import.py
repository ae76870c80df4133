"""Configs of the official LTX-2 trainer, written here from its documented keys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ltx2core.config.load import look_at
from ltx2core.config.trainer_import import import_trainer, is_trainer_config, read_yaml
from ltx2core.config.trainer_keys import SECTIONS
from ltx2core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.config.exchange import Exchange, Row

WHOLE = """
model:
  model_path: "/models/ltx-2-19b-dev.safetensors"
  text_encoder_path: /models/gemma
  training_mode: lora
  load_checkpoint: null
lora: {rank: 32, alpha: 32, dropout: 0.0, target_modules: [to_k, to_q, to_v, to_out.0]}
training_strategy:
  name: flexible
  video:
    is_generated: true
    latents_dir: latents
    conditions:
      - {type: first_frame, probability: 0.5}
      - {type: spatial_crop, probability: 0.2, spatial_region: [0, 64, 256, 512]}
      - {type: reference, latents_dir: reference_latents}
  audio: {is_generated: true, latents_dir: audio_latents, conditions: []}
optimization:
  learning_rate: 1e-4
  steps: 2000
  batch_size: 1
  gradient_accumulation_steps: 1
  max_grad_norm: 1.0
  optimizer_type: adamw8bit
  scheduler_type: linear
  scheduler_params: {}
  enable_gradient_checkpointing: true
acceleration:
  mixed_precision_mode: bf16
  quantization: int8-quanto
  load_text_encoder_in_8bit: true
  offload_optimizer_during_validation: true
data: {preprocessed_data_root: /data/prepared, num_dataloader_workers: 2}
validation:
  samples: [{prompt: A red kite circles.}, {prompt: A second one., seed: 3}]
  negative_prompt: blurry
  video_dims: [960, 540, 89]
  frame_rate: 24
  seed: 42
  inference_steps: 30
  interval: 100
  video_cfg_scale: 3.0
  audio_cfg_scale: 7.0
  video_stg_scale: 1.0
  audio_stg_scale: 1.0
  stg_blocks: [28]
  guidance_rescale: 0.7
  video_modality_guidance_scale: 3.0
  audio_modality_guidance_scale: 2.0
  generate_audio: true
  generate_video: true
  skip_initial_validation: false
checkpoints: {interval: null, keep_last_n: -1, precision: bfloat16, save_training_state: minimal}
flow_matching: {timestep_sampling_mode: shifted_logit_normal, timestep_sampling_params: {}}
hub: {push_to_hub: true, hub_model_id: me/kites}
wandb: {enabled: true, project: kites, entity: me, tags: [a], log_validation_videos: true}
seed: 7
output_dir: outputs
"""


@pytest.fixture
def whole(tmp_path: Path) -> Exchange:
    """No file that it names is on this machine."""
    (tmp_path / "t2v.yaml").write_text(WHOLE)
    values = read_yaml(tmp_path / "t2v.yaml")
    assert is_trainer_config(values)
    assert set(values) - {"seed", "output_dir"} <= set(SECTIONS)
    return import_trainer(values, base=tmp_path, clips=str(tmp_path))


def _row(rows: tuple[Row, ...], source: str) -> Row:
    (row,) = [row for row in rows if row.source.startswith(source)]
    return row


def test_what_means_the_same_is_kept_under_our_names(whole: Exchange) -> None:
    kept = {
        "lora_rank": 32,
        "learning_rate": 1e-4,  # which YAML takes for text
        "max_train_steps": 2000,
        "lr_scheduler": "linear",
        "gradient_checkpointing": True,
        "base_model_precision": "int8-quanto",
        "text_encoder_1_precision": "int8-torchao",
        "validation_prompt": "A red kite circles.",
        "validation_num_video_frames": 89,
        "frame_rate": 24,
        "validation_guidance": 3.0,
        "ltx2_validation_audio_guidance": 7.0,
        "ltx2_validation_stg_scale": 1.0,
        "ltx2_validation_stg_blocks": [28],
        "validation_guidance_rescale": 0.7,
        "ltx2_validation_modality_guidance": 3.0,
        "validation_step_interval": 100,
        "disable_benchmark": False,
        "push_to_hub": True,
        "hub_model_id": "me/kites",
        "report_to": "wandb",
        "tracker_project_name": "kites",
        "lora_dtype": "bf16",
        "seed": 7,
    }
    assert {name: whole.config.get(name) for name in kept} == kept
    assert _row(whole.rows, "lora.rank").verdict == "kept"
    assert whole.config["optimizer"] == "adamw_8bit"


def test_what_is_said_another_way_here_is_changed_with_the_reason(whole: Exchange) -> None:
    changed = {
        "validation.video_dims = [960, 540, 89]": ("544x960", "height x width"),
        "checkpoints.interval": ("checkpoint_step_interval = 0", "0 stands for none"),
        "checkpoints.keep_last_n": ("checkpoints_total_limit = 0", "0 stands for all"),
        "training_strategy.video.conditions[1]": ("spatial_crop", "32 pixels"),
    }
    for source, (target, why) in changed.items():
        row = next(row for row in whole.rows if row.source.startswith(source) and row.verdict == "changed")
        assert target in row.target
        assert why in row.why
    assert whole.config["ltx2_intrinsic_conditioning"] == [
        {"type": "first_frame", "probability": 0.5, "modality": "video"},
        {"type": "spatial_crop", "probability": 0.2, "spatial_region": [0, 2, 8, 16]},
    ]


def test_what_has_no_meaning_here_is_refused_one_by_one(whole: Exchange) -> None:
    refused = {row.source.partition(" = ")[0]: row.why for row in whole.rows if row.verdict == "refused"}
    assert set(refused) == {
        "training_strategy.video.latents_dir",
        "training_strategy.video.conditions[2]",
        "training_strategy.audio.latents_dir",
        "optimization.scheduler_params",
        "acceleration.offload_optimizer_during_validation",
        "data.preprocessed_data_root",
        "data.num_dataloader_workers",
        "validation.samples[1].seed",
        "validation.audio_modality_guidance_scale",
        "checkpoints.save_training_state",
        "flow_matching.timestep_sampling_params",
        "wandb.entity",
        "wandb.tags",
    }
    assert all(refused.values())
    assert "--clips" in refused["data.preprocessed_data_root"]


def test_the_dataset_has_the_clips_that_were_named_and_the_samples_size(whole: Exchange, tmp_path: Path) -> None:
    assert whole.datasets == [
        {
            "id": "clips",
            "type": "local",
            "dataset_type": "video",
            "instance_data_dir": str(tmp_path),
            "video": {"num_frames": 89},
            "resolution": 512,
            "audio": {},
        }
    ]
    for name, text in whole.files.items():
        (tmp_path / name).write_text(text)
    loaded = look_at(whole.config, base=tmp_path, datasets=whole.datasets)
    assert loaded.config.validation_resolution == "544x960"
    assert json.loads(whole.files["prompts.json"]) == {"sample-2": "A second one."}
    assert loaded.config.user_prompt_library == tmp_path / "prompts.json"


def test_what_holds_in_the_trainer_without_a_key_is_told_where_ours_differs(tmp_path: Path) -> None:
    exchange = import_trainer({"lora": {"rank": 8}, "validation": {"video_cfg_scale": 4.0}}, base=tmp_path)
    told = {row.source: row.target for row in exchange.rows if row.verdict == "default"}
    assert told["optimization.learning_rate = 0.0005"] == "learning_rate = 0.0001"
    assert told["validation.video_stg_scale = 1"] == "ltx2_validation_stg_scale = 0"
    assert not any(source.startswith(("lora.rank", "validation.video_cfg_scale")) for source in told)


@pytest.mark.parametrize(
    ("group", "kept"),
    [
        ({"validation": {"generate_video": False}}, {"validation_audio_only": True}),
        ({"validation": {"generate_audio": False}}, {}),
        ({"wandb": {"enabled": False}}, {"report_to": "none"}),
        ({"validation": {"samples": [{"prompt": ""}, {"prompt": "One."}]}}, {"validation_prompt": "One."}),
    ],
)
def test_switches_and_odd_samples_come_to_what_they_mean(tmp_path: Path, group: dict[str, object], kept: dict[str, object]) -> None:
    assert import_trainer(group, base=tmp_path).config == kept


@pytest.mark.parametrize(
    ("section", "key", "value", "why"),
    [
        ("model", "training_mode", "full", "training all weights is not built yet"),
        ("acceleration", "quantization", "int4-quanto", "fewer bits than 8"),
        ("optimization", "learning_rate", -1, "it is more than 0"),
        ("lora", "rank", "wide", "it is a whole number"),
        ("lora", "rnak", 8, "has no such key"),
        ("validation", "video_dims", [1, 2], "it is width, height and frames"),
        ("training_strategy", "name", "video_to_video", "references are clips"),
        ("training_strategy", "video", {"is_generated": False}, "not built yet"),
        ("flow_matching", "timestep_sampling_mode", "beta", "official rule"),
    ],
)
def test_a_value_that_cannot_be_taken_is_refused_and_the_rest_goes_on(
    tmp_path: Path, section: str, key: str, value: object, why: str
) -> None:
    exchange = import_trainer({"seed": 7, section: {key: value}}, base=tmp_path, clips=str(tmp_path))
    refused = [row for row in exchange.rows if row.verdict == "refused"]
    assert [why in row.why for row in refused] == [True], refused
    assert exchange.config == {"seed": 7}


def test_the_older_strategy_and_prompts_are_read_too(tmp_path: Path) -> None:
    values: dict[str, object] = {
        "training_strategy": {"name": "text_to_video", "first_frame_conditioning_p": 0.1, "with_audio": False},
        "validation": {"prompts": ["One."], "guidance_scale": 4.0},
        "flow_matching": {"timestep_sampling_mode": "uniform"},
    }
    exchange = import_trainer(values, base=tmp_path, clips=str(tmp_path))
    assert exchange.config == {
        "ltx2_first_frame_conditioning_probability": 0.1,
        "validation_prompt": "One.",
        "validation_guidance": 4.0,
        "flow_use_uniform_schedule": True,
    }
    assert "audio" not in exchange.datasets[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: [1, 2", "line 1"),
        ("just words", "holds no settings"),
        ("- a\n- b\n", "holds no settings"),
        ("1: 2\n", "holds no settings"),
        ("a: !!python/object:os.system {}", "line 1"),
    ],
)
def test_a_file_that_is_no_yaml_of_settings_is_refused_by_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_yaml(tmp_path / "bad.yaml")
