"""Loading, adjusting and saving settings: what works, and which notices it gives."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ltx2core.config.build import config_for_folder
from ltx2core.config.load import LoadedConfig, load_config, load_config_dict, load_part, save_config
from ltx2core.errors import ConfigError
from ltx2core.runs.folder import RunFolder

if TYPE_CHECKING:
    from ltx2core.runs.events import Notice

QUICKSTART = Path(__file__).parents[1] / "data" / "quickstart"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder, made the current one, with a folder of clips where the quickstart has it."""
    (tmp_path / "datasets" / "videos").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(config: dict[str, object] | None = None, **entry: object) -> LoadedConfig:
    """A config of a few keys, and one dataset of a few keys."""
    dataset: dict[str, object] = {"id": "clips", "instance_data_dir": "datasets/videos", **entry}
    return load_config_dict(config or {}, base=Path.cwd(), datasets=[dataset])


def notices(loaded: LoadedConfig, code: str) -> list[Notice]:
    return [notice for notice in loaded.notices if notice.code == code]


def test_the_quickstart_loads_unchanged_from_a_config_folder(project: Path) -> None:
    shutil.copytree(QUICKSTART, project / "config")
    loaded = load_config(Path("config/config.json"))
    assert loaded.config.validation_num_video_frames == 57
    assert loaded.config.musubi_blocks_to_swap == 6
    assert loaded.config.data_backend_config == project / "config" / "multidatabackend.json"
    (dataset,) = loaded.datasets.videos
    assert dataset.instance_data_dir == project / "datasets" / "videos"
    assert (dataset.resolution, dataset.repeats) == (512, 10)
    assert (dataset.video.num_frames, dataset.video.min_frames, dataset.video.frame_rate) == (57, 57, 25.0)
    assert dataset.audio is not None
    assert dataset.audio.channels == 2


def test_every_feature_that_the_quickstart_asks_for_is_built(project: Path) -> None:
    shutil.copytree(QUICKSTART, project / "config")
    loaded = load_config(Path("config/config.json"))
    assert notices(loaded, "not_built_yet") == []
    assert loaded.config.crepa_encoder_name == "dinov2_vitg14"


def test_a_simpletuner_user_s_own_config_loads() -> None:
    values: dict[str, object] = {
        "model_family": "ltxvideo2",
        "model_flavour": "dev",
        "model_type": "lora",
        "lora_rank": 32,
        "lora_dropout": 0.0,
        "output_dir": "output/ltx2",
        "resume_from_checkpoint": "",
        "num_train_epochs": 0,
        "max_train_steps": 200,
        "optimizer": "adamw_bf16",
        "learning_rate": 1e-4,
        "lr_warmup_steps": 50,
        "grad_clip_method": "norm",
        "text_encoder_1_precision": "int8-torchao",
        "ramtorch": True,
        "ramtorch_target_modules": "transformer_blocks.*",
        "ramtorch_disable_extensions": False,
        "framerate": 25,
        "validation_disable": True,
        "disable_benchmark": True,
        "report_to": "none",
    }
    loaded = load(values, crop=False, resolution=1.0, resolution_type="area", metadata_backend="discovery")
    assert loaded.config.output_dir == Path.cwd() / "output" / "ltx2"
    assert len(notices(loaded, "not_built_yet")) == len(loaded.notices) == 1  # RamTorch; the text encoder does go into 8 bits


def test_a_dataset_list_that_lies_beside_the_config_is_found_and_said() -> None:
    loaded = load_config(QUICKSTART / "config.json")
    (notice,) = notices(loaded, "dataset_list_beside")
    assert "multidatabackend.json" in notice.fix


@pytest.mark.parametrize("name", ["tread.json", "group_offload.json"])
def test_a_quickstart_file_with_a_few_keys_loads_as_a_part_and_inside_a_config(name: str) -> None:
    assert notices(load_part(QUICKSTART / name), "not_built_yet") == []
    values = json.loads((QUICKSTART / "config.json").read_text()) | json.loads((QUICKSTART / name).read_text())
    assert load_config_dict(values, base=QUICKSTART).datasets.videos


def test_a_dataset_list_loads_as_a_part() -> None:
    assert load_part(QUICKSTART / "multidatabackend.json").datasets.videos[0].id == "my-video-dataset"


def test_keys_may_carry_dashes_and_old_names() -> None:
    config = load({"--lora_rank": 8, "--max-train-steps": "7", "validation_steps": 3, "checkpointing_steps": 4, "framerate": 24}).config
    assert (config.lora_rank, config.max_train_steps, config.frame_rate) == (8, 7, 24)
    assert (config.validation_step_interval, config.checkpoint_step_interval) == (3, 4)


def test_null_is_the_same_as_leaving_a_key_out() -> None:
    assert load({"lora_rank": None, "seed": None}, video=None, audio=None).config == load().config


def test_text_that_says_false_is_false() -> None:
    assert load(crop="False").notices == ()


def test_products_in_8_bits_are_told_to_have_no_effect_on_weights_of_4() -> None:
    (notice,) = notices(load({"base_model_precision": "nf4-bnb", "quantize_activations": True}), "no_effect")
    assert "quantize_activations" in notice.text
    assert load({"base_model_precision": "nf4-bnb"}).notices == ()


@pytest.mark.parametrize(
    ("values", "idle", "why"),
    [
        ({"enable_group_offload": True, "musubi_blocks_to_swap": 6}, "musubi_blocks_to_swap", "enable_group_offload lets every block wait"),
        ({"enable_group_offload": True, "ramtorch": True}, "ramtorch", "enable_group_offload"),
        ({"ramtorch": True, "musubi_blocks_to_swap": 6}, "musubi_blocks_to_swap", "ramtorch says"),
        ({"quantize_activations": True}, "quantize_activations", "weights keep 16 bits"),
        ({"base_model_precision": "int8dq-torchao", "fp8_gradients": True}, "fp8_gradients", "weights are in int8"),
        ({"base_model_precision": "fp8-quanto", "fp8_gradients": True}, "fp8_gradients", "widens weights"),
    ],
)
def test_a_key_of_memory_that_another_overrules_is_told_to_have_no_effect(values: dict[str, object], idle: str, why: str) -> None:
    (notice,) = load(values).notices
    assert notice.code == "no_effect"
    assert notice.text.startswith(f"config {idle}: no effect")
    assert why in notice.text


@pytest.mark.parametrize(
    "values",
    [
        {"enable_group_offload": True, "group_offload_use_stream": True, "group_offload_blocks_per_group": 2},
        {"ramtorch": True, "ramtorch_transformer_percent": 50},
        {"musubi_blocks_to_swap": 6},
        {"base_model_precision": "fp8-torchao", "fp8_gradients": True},
        {"base_model_precision": "fp8-quanto", "quantize_activations": True, "fp8_gradients": True},
        {"base_model_precision": "int8-quanto", "sdnq_use_quantized_matmul": True},
    ],
)
def test_keys_of_memory_that_work_together_are_no_matter(values: dict[str, object]) -> None:
    assert load(values).notices == ()


def test_a_key_of_offloading_that_is_not_built_is_named_only_where_offloading_is_on() -> None:
    leaf: dict[str, object] = {"group_offload_type": "leaf_level"}
    assert notices(load(leaf), "not_built_yet") == []
    assert "whole blocks travel" in notices(load(leaf | {"enable_group_offload": True}), "not_built_yet")[0].text


@pytest.mark.parametrize("name", ["int4-quanto", "int2-quanto", "int4-torchao", "uint4-sdnq"])
def test_other_kinds_of_few_bits_are_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=f"base_model_precision = '?\"?{name}"):
        load({"base_model_precision": name})


def test_defaults_give_no_notice() -> None:
    assert load({"enable_group_offload": False, "group_offload_use_stream": True, "crepa_lambda": 0.1}).notices == ()


@pytest.mark.parametrize(
    ("written", "trained", "next_up"), [(61, 57, 65), (50, 49, 57), (49, 49, None), (8, 1, 9), (1, 1, None), (33, 33, None)]
)
def test_frames_become_8k_plus_1_with_the_rule(written: int, trained: int, next_up: int | None) -> None:
    loaded = load(video={"num_frames": written})
    assert loaded.datasets.videos[0].video.num_frames == trained
    told = notices(loaded, "frames_snapped")
    if next_up is None:
        assert told == []
    else:
        assert told[0].text == f"datasets [0].video.num_frames = {written}: LTX-2 takes 8k + 1 frames; clips are trained with {trained}."
        assert str(next_up) in told[0].fix


def test_a_shortest_length_of_its_own_is_told_apart() -> None:
    loaded = load(video={"num_frames": 49, "min_frames": 20})
    assert loaded.datasets.videos[0].video.min_frames == 17
    assert "clips of 17 frames and more" in notices(loaded, "frames_snapped")[0].text


def test_720_becomes_704_and_736_is_offered() -> None:
    loaded = load({"validation_resolution": "720x1280"})
    assert loaded.config.validation_size == (704, 1280)
    (notice,) = notices(loaded, "size_snapped")
    assert "704" in notice.fix
    assert "736" in notice.fix


def test_an_upright_sample_size_is_said_because_others_write_width_first() -> None:
    loaded = load({"validation_resolution": "1280x704"})
    assert loaded.config.validation_size == (1280, 704)
    assert "704x1280" in notices(loaded, "size_upright")[0].fix


def test_of_several_sample_sizes_each_is_made_to_work() -> None:
    loaded = load({"validation_resolution": "512, 768x500,512"})
    assert loaded.config.validation_sizes == ((512, 512), (768, 512))
    assert loaded.config.validation_size == (512, 512)
    assert len(notices(loaded, "size_snapped")) == 1
    assert len(notices(loaded, "size_upright")) == 1


@pytest.mark.parametrize(("guidance", "warned"), [(5.0, False), (2, False), (6, False), (7.5, True), (1, True)])
def test_guidance_outside_2_to_6_warns(guidance: float, warned: bool) -> None:
    assert bool(notices(load({"validation_guidance": guidance}), "guidance_unusual")) == warned


def test_a_resolution_that_is_no_multiple_of_32_becomes_the_nearest() -> None:
    loaded = load(resolution=500)
    assert loaded.datasets.videos[0].resolution == 512
    assert notices(loaded, "size_snapped")[0].fix == "Use 512 or 480 instead of 500."


def test_areas_stay_as_they_are_written() -> None:
    loaded = load(resolution=0.26, resolution_type="area")
    assert (loaded.datasets.videos[0].resolution, loaded.notices) == (0.26, ())


def test_without_an_audio_block_only_pictures_are_trained() -> None:
    assert load().datasets.videos[0].audio is None
    assert load(audio={}).datasets.videos[0].audio is not None
    off = load(audio={"auto_split": False})
    assert off.datasets.videos[0].audio is None
    assert notices(off, "audio_off")


def test_mono_becomes_stereo_and_other_rates_are_converted() -> None:
    loaded = load(audio={"channels": 1, "sample_rate": 48000})
    audio = loaded.datasets.videos[0].audio
    assert audio is not None
    assert (audio.channels, audio.sample_rate) == (2, 16000)
    assert notices(loaded, "audio_stereo")
    assert notices(loaded, "audio_resampled")


def test_epochs_take_the_place_of_the_default_number_of_steps() -> None:
    config = load({"num_train_epochs": 3}).config
    assert (config.max_train_steps, config.num_train_epochs) == (0, 3)
    config = load({"num_train_epochs": 0, "max_train_steps": 200}).config
    assert (config.max_train_steps, config.num_train_epochs) == (200, 0)


def test_a_shift_of_0_is_the_official_rule() -> None:
    assert load({"flow_schedule_shift": 0}).config.flow_schedule_shift is None
    assert load({"flow_schedule_shift": 3.0}).config.flow_schedule_shift == 3.0


@pytest.mark.parametrize("written", [[0, 1.5, 3], "[0, 1.5, 3]", "0, 1.5, 3"])
@pytest.mark.parametrize("key", ["flow_cubic_schedule_weights", "flow_custom_timesteps"])
def test_a_list_of_numbers_may_be_written_as_text(written: object, key: str) -> None:
    if key == "flow_custom_timesteps":
        written = written[1:] if isinstance(written, list) else written.replace("0, ", "")
    assert getattr(load({key: written}).config, key) == ([1.5, 3.0] if key == "flow_custom_timesteps" else [0.0, 1.5, 3.0])


def test_an_empty_curve_is_none_and_one_without_height_is_refused() -> None:
    assert load({"flow_cubic_schedule_weights": []}).config.flow_cubic_schedule_weights is None
    assert load({"flow_cubic_schedule_weights": ""}).config.flow_cubic_schedule_weights is None
    with pytest.raises(ConfigError, match="a curve is above 0 somewhere"):
        load({"flow_cubic_schedule_weights": [0, 0]})
    with pytest.raises(ConfigError, match=r"flow_cubic_schedule_weights\[1\] = -1: it is at least 0"):
        load({"flow_cubic_schedule_weights": [1, -1]})
    with pytest.raises(ConfigError, match="it is a list"):
        load({"flow_cubic_schedule_weights": "steep"})


@pytest.mark.parametrize(
    ("keys", "unread"),
    [
        ({"mixflow_enabled": True, "flow_use_uniform_schedule": True}, "flow_use_uniform_schedule"),
        ({"mixflow_gamma": 0.3}, "mixflow_gamma"),
        ({"flow_timesteps_mode": "round-robin"}, "flow_timesteps_mode"),
        ({"flow_cubic_schedule_weights": [1, 2], "flow_sigmoid_scale": 2}, "flow_sigmoid_scale"),
        ({"flux_fast_schedule": True, "flow_schedule_shift": 3}, "flow_schedule_shift"),
        ({"flow_custom_timesteps": [0.5], "mixflow_enabled": True, "mixflow_gamma": 0.3}, "mixflow_enabled, mixflow_gamma"),
    ],
)
def test_keys_of_noise_levels_that_are_not_read_are_named(keys: dict[str, object], unread: str) -> None:
    (notice,) = notices(load(keys), "no_effect")
    assert notice.text == f"config {unread}: no effect, since noise levels are drawn in another way."


def test_each_way_of_drawing_noise_levels_is_built() -> None:
    for keys in (
        {"flow_custom_timesteps": [0.5], "flow_timesteps_mode": "round-robin"},
        {"mixflow_enabled": True, "mixflow_gamma": 0.4, "flow_schedule_shift": 3},
        {"flow_cubic_schedule_weights": [1, 2], "flow_schedule_shift": 3},
        {"flux_fast_schedule": True},
    ):
        assert load(keys).notices == ()


def test_optimizers_with_a_smaller_state_than_8_bits_are_told_and_adamw_is_not() -> None:
    for name in ("adamw_bf16", "adamw_8bit", "bnb-adamw8bit", "ao-adamw8bit", "bnb-adamw-paged"):
        assert load({"optimizer": name}).notices == ()
    assert "8-bit" in notices(load({"optimizer": "ao-adamw4bit"}), "not_built_yet")[0].text


def test_a_list_of_layers_may_be_written_as_text() -> None:
    assert load({"peft_lora_target_modules": '["to_q", "to_k"]'}).config.peft_lora_target_modules == ["to_q", "to_k"]


def test_entries_that_are_disabled_or_of_another_kind_are_left_out(project: Path) -> None:
    folder = str(project / "datasets" / "videos")
    entries = [
        {"id": "a", "instance_data_dir": folder},
        {"id": "b", "instance_data_dir": "gone", "disabled": True},
        {"id": "c", "dataset_type": "image_embeds", "instance_data_dir": folder},
        {"id": "d", "dataset_type": "eval", "disabled": True},
    ]
    loaded = load_config_dict({}, base=project, datasets=entries)
    assert [dataset.id for dataset in loaded.datasets.videos] == ["a"]
    assert len(loaded.notices) == 1


def test_a_relative_model_file_becomes_absolute(project: Path) -> None:
    (project / "model.safetensors").touch()
    assert load({"pretrained_model_name_or_path": "model.safetensors"}).config.pretrained_model_name_or_path == str(
        project / "model.safetensors"
    )
    assert load({"pretrained_model_name_or_path": "nano"}).config.pretrained_model_name_or_path == "nano"


def test_a_key_written_twice_is_told(project: Path) -> None:
    (project / "list.json").write_text('[{"instance_data_dir": "datasets/videos"}]')
    (project / "config.json").write_text('{"seed": 1, "seed": 2, "data_backend_config": "list.json"}')
    loaded = load_config(project / "config.json")
    assert loaded.config.seed == 2
    assert "seed is written twice" in notices(loaded, "key_twice")[0].text


def test_a_file_with_a_byte_order_mark_and_windows_lines_loads(project: Path) -> None:
    (project / "list.json").write_bytes(b'[{"instance_data_dir":\r\n"datasets/videos"}]')
    (project / "config.json").write_bytes(b'\xef\xbb\xbf{"seed": 5,\r\n"data_backend_config": "list.json"}\r\n')
    assert load_config(project / "config.json").config.seed == 5


def test_what_is_saved_with_a_run_loads_again_from_anywhere_as_an_equal_config(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_config(QUICKSTART / "config.json")
    folder = RunFolder(project / "runs" / "one")
    save_config(folder, loaded)
    (project / "elsewhere").mkdir()
    monkeypatch.chdir(project / "elsewhere")
    again = load_config(folder.config)
    assert again.datasets == loaded.datasets
    assert again.config == loaded.config.model_copy(update={"data_backend_config": folder.datasets})
    assert {notice.code for notice in again.notices} == {"cache_place", "no_effect"}  # of musubi_blocks_to_swap
    saved = folder.config.read_bytes(), folder.datasets.read_bytes()
    save_config(folder, again)
    assert (folder.config.read_bytes(), folder.datasets.read_bytes()) == saved


def test_a_config_is_built_for_a_folder(project: Path) -> None:
    loaded = config_for_folder(
        project / "datasets" / "videos",
        prompt="a red ball",
        resolution=128,
        num_frames=17,
        steps=50,
        rank=8,
        more={"learning_rate": 0.002, "eval_split": 0.2},
        more_of_dataset={"caption_strategy": "filename"},
    )
    assert loaded.notices == ()
    assert loaded.config.validation_size == (128, 128)
    assert (loaded.config.max_train_steps, loaded.config.lora_rank, loaded.config.validation_prompt) == (50, 8, "a red ball")
    assert (loaded.config.learning_rate, loaded.config.eval_split) == (0.002, 0.2)
    assert loaded.datasets.videos[0].caption_strategy == "filename"


def test_loading_settings_imports_no_torch_and_no_screen() -> None:
    code = "import sys, ltx2core.config.load, ltx2core.config.explain; print({'torch', 'textual', 'rich', 'av'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_clips_of_fewer_pixels_than_two_latents_are_refused_and_megapixels_are_not() -> None:
    for size in (0.25, 32, 63):
        with pytest.raises(ConfigError, match="at least 64 pixels") as caught:
            load(resolution=size)
        assert "resolution_type" in caught.value.fix or "resolution_type" in caught.value.text
    for kind, size in (("pixel_area", 63), ("area", 0.004)):
        with pytest.raises(ConfigError, match="at least 64"):
            load(resolution=size, resolution_type=kind)
    assert load(resolution=64).datasets.videos[0].resolution == 64
    assert load(resolution=0.25, resolution_type="area").datasets.videos[0].resolution == 0.25


def test_a_sample_too_small_to_be_decoded_is_made_larger() -> None:
    loaded = load({"validation_resolution": "32x96"})
    assert loaded.config.validation_size == (64, 96)
    (notice,) = notices(loaded, "size_snapped")
    assert "at least 64" in notice.text
    assert notice.fix == "Use 64 instead of 32."
    assert notices(load({"validation_resolution": "64x96"}), "size_snapped") == []


def test_a_warm_up_that_the_constant_rate_ignores_is_told() -> None:
    (notice,) = notices(load({"lr_scheduler": "constant", "lr_warmup_steps": 50}), "no_warmup")
    assert "lr_warmup_steps = 50" in notice.text
    assert "constant_with_warmup" in notice.fix
    assert not notices(load({"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 50}), "no_warmup")


def test_the_lora_to_start_from_is_found_beside_the_config_and_told_when_it_is_not_there(project: Path) -> None:
    (project / "old.safetensors").write_bytes(b"x")
    assert load({"init_lora": "old.safetensors"}).config.init_lora == str(project / "old.safetensors")
    assert notices(load({"init_lora": "gone.safetensors"}), "no_init_lora")


def test_several_gpus_of_one_machine_are_built_and_other_ways_to_use_them_are_named_with_what_works() -> None:
    assert load({"num_processes": 4}).notices == ()
    with pytest.raises(ConfigError, match="num_processes = 0"):
        load({"num_processes": 0})
    told = {
        "fsdp_enable = true": load({"num_processes": 2, "fsdp_enable": True, "fsdp_version": 1}),
        "num_machines = 2": load({"num_machines": 2}),
        "context_parallel_size = 2": load({"context_parallel_size": 2}),
        "deepspeed_config": load({"deepspeed_config": {"zero": 3}}),
    }
    for key, loaded in told.items():
        (notice,) = notices(loaded, "not_built_yet")
        assert key in notice.text
        assert "num_processes" in notice.text
    assert "they do not train, so each GPU has all of them" in notices(told["fsdp_enable = true"], "not_built_yet")[0].text
