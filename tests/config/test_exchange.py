"""Settings on the way to SimpleTuner and from it. The rules of its parser are facts that were found by running it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltx2core.config.exchange import Exchange, Row, own_files
from ltx2core.config.keys import facts_of
from ltx2core.config.load import LoadedConfig, load_config_dict, look_at
from ltx2core.config.simpletuner_export import simpletuner_files
from ltx2core.config.simpletuner_import import import_simpletuner
from ltx2core.config.simpletuner_keys import DATASET_KEYS, KEYS
from ltx2core.config.train import TrainConfig
from ltx2core.errors import ConfigError

QUICKSTART = Path(__file__).parents[1] / "data" / "quickstart"
MODEL = {"pretrained_model_name_or_path": "Lightricks/LTX-2"}

# A whole config that its parser was seen to take.
BASELINE: dict[str, Any] = {
    "model_family": "ltxvideo2",
    "model_flavour": "dev",
    "model_type": "lora",
    "lora_rank": 32,
    "lora_dropout": 0.0,
    "output_dir": "output/ltx2",
    "resume_from_checkpoint": "",
    "seed": 42,
    "train_batch_size": 1,
    "num_train_epochs": 0,
    "max_train_steps": 200,
    "optimizer": "adamw_bf16",
    "learning_rate": 1e-4,
    "lr_scheduler": "constant_with_warmup",
    "lr_warmup_steps": 50,
    "max_grad_norm": 1.0,
    "grad_clip_method": "norm",
    "caption_dropout_probability": 0.0,
    "mixed_precision": "bf16",
    "base_model_precision": "no_change",
    "text_encoder_1_precision": "int8-torchao",
    "gradient_checkpointing": True,
    "ramtorch": True,
    "ramtorch_target_modules": "transformer_blocks.*",
    "ramtorch_disable_extensions": False,
    "framerate": 25,
    "vae_enable_tiling": True,
    "validation_disable": True,
    "disable_benchmark": True,
    "report_to": "none",
}


def _loaded(tmp_path: Path, *, dataset: dict[str, object] | None = None, **keys: object) -> LoadedConfig:
    entry = {"id": "clips", "instance_data_dir": str(tmp_path)} | (dataset or {})
    return load_config_dict(MODEL | keys, base=tmp_path, datasets=[entry])


def _row(rows: tuple[Row, ...], source: str) -> Row:
    (row,) = [row for row in rows if row.source.startswith(source)]
    return row


def _obeys_its_parser(exchange: Exchange) -> None:
    config = exchange.config
    assert set(config) <= KEYS
    assert json.loads(json.dumps(config)) == config
    assert config["model_type"] == "lora"  # left out, it would train all weights
    assert (config["num_train_epochs"] == 0) != (config.get("max_train_steps", 0) == 0)
    assert not any(isinstance(value, list) for value in config.values())  # its command line takes them as text
    frames = config["validation_num_video_frames"]
    assert isinstance(frames, int)
    assert frames % 8 == 1
    for entry in exchange.datasets:
        video, audio = entry.get("video", {}), entry.get("audio", {})
        assert isinstance(video, dict)
        assert isinstance(audio, dict)
        names = {*entry, *(f"video.{name}" for name in video), *(f"audio.{name}" for name in audio)} - {"video", "audio"}
        assert names <= DATASET_KEYS
        if entry["dataset_type"] == "video":
            assert video["min_frames"] >= video["num_frames"]
        assert audio.get("channels", 2) == 2
    texts = [entry for entry in exchange.datasets if entry["dataset_type"] == "text_embeds"]
    assert [entry["default"] for entry in texts] == [True]
    ids = [entry["id"] for entry in exchange.datasets]
    assert len(ids) == len(set(map(str, ids)))


@pytest.mark.parametrize(
    ("keys", "dataset"),
    [
        ({}, {}),
        ({"num_train_epochs": 3}, {"audio": {}}),
        (
            {"base_model_precision": "int8", "peft_lora_target_modules": ["attn1.to_q"], "musubi_blocks_to_swap": 48},
            {"video": {"num_frames": 33}},
        ),
        (
            {"ltx2_intrinsic_conditioning": [{"type": "first_frame"}], "frame_rate": 24, "flow_schedule_shift": 2.5},
            {"caption_strategy": "csv"},
        ),
        ({"flow_custom_timesteps": [0.5, 0.9]}, {"dataset_type": "image", "crop": True, "crop_style": "centre"}),
        ({"tread_config": {"routes": [{"selection_ratio": 0.5, "start_layer_idx": 2, "end_layer_idx": -2}]}}, {"dataset_type": "audio"}),
    ],
)
def test_what_is_exported_obeys_the_rules_of_simpletuners_parser(
    tmp_path: Path, keys: dict[str, object], dataset: dict[str, object]
) -> None:
    exchange = simpletuner_files(_loaded(tmp_path, dataset=dataset, **keys))
    _obeys_its_parser(exchange)


def test_every_key_that_is_set_is_written_or_said_to_have_no_equivalent(tmp_path: Path) -> None:
    """A new key of ours must be sorted into one of the two: neither may it vanish, nor make the parser stop."""
    for name, field in TrainConfig.model_fields.items():
        value = {bool: True, int: 8, float: 0.5}.get(field.annotation) if isinstance(field.annotation, type) else None
        if facts_of(field).later is not None or value is None or value == field.default:
            continue
        keys: dict[str, object] = {name: value}
        try:
            exchange = simpletuner_files(look_at(MODEL | keys, base=tmp_path))
        except ConfigError:
            continue  # it does not stand alone
        told = [row for row in exchange.rows if row.source.startswith(f"{name} =")]
        assert len(told) == 1, name
        assert (told[0].verdict == "refused") == (not told[0].target), name
        assert told[0].why or told[0].verdict == "kept", name


def test_keys_that_its_parser_refuses_are_listed_with_the_reason_and_not_written(tmp_path: Path) -> None:
    exchange = simpletuner_files(_loaded(tmp_path, audio_loss_weight=0.5, lora_dtype="fp32", dataset={"video": {"segments": "all"}}))
    assert _row(exchange.rows, "audio_loss_weight").verdict == "refused"
    assert _row(exchange.rows, "lora_dtype").verdict == "refused"
    assert _row(exchange.rows, "dataset clips: video.segments").verdict == "refused"
    assert "audio_loss_weight" not in exchange.config


def test_routes_that_stop_simpletuner_with_an_error_are_not_written_for_it(tmp_path: Path) -> None:
    routes = {"routes": [{"selection_ratio": 0.5, "start_layer_idx": 2, "end_layer_idx": -2}]}
    exchange = simpletuner_files(_loaded(tmp_path, tread_config=routes))
    assert "tread_config" not in exchange.config
    row = _row(exchange.rows, "tread_config")
    assert row.verdict == "refused"
    assert "tread_share_of_steps, 0.3 here" in row.why


def test_sizes_names_and_rules_that_differ_are_turned(tmp_path: Path) -> None:
    exchange = simpletuner_files(_loaded(tmp_path, validation_resolution="512x768", frame_rate=24.0, base_model_precision="fp8"))
    assert exchange.config["validation_resolution"] == "768x512"  # width first
    assert exchange.config["framerate"] == 24
    assert exchange.config["base_model_precision"] == "fp8-torchao"
    # clips of 16 x 24 latents and 7 of time: exp(0.5833 + 3.5807e-4 * 2688)
    wide = simpletuner_files(_loaded(tmp_path, dataset={"resolution": 512, "video": {"num_frames": 49}}))
    assert wide.config["flow_schedule_shift"] == pytest.approx(4.69, abs=0.01)
    assert simpletuner_files(_loaded(tmp_path, flow_schedule_shift=3)).config["flow_schedule_shift"] == 3


def test_blocks_in_ram_are_asked_for_in_the_way_that_simpletuner_has(tmp_path: Path) -> None:
    group = simpletuner_files(_loaded(tmp_path, enable_group_offload=True, group_offload_use_stream=True, musubi_blocks_to_swap=6))
    assert {name: group.config[name] for name in ("ramtorch", "ramtorch_disable_extensions", "musubi_blocks_to_swap")} == {
        "ramtorch": True,
        "ramtorch_disable_extensions": False,
        "musubi_blocks_to_swap": 0,
    }
    assert not [name for name in group.config if "group_offload" in name]  # its parser knows them no more
    assert _row(group.rows, "musubi_blocks_to_swap").verdict == "refused"
    swap = simpletuner_files(_loaded(tmp_path, musubi_blocks_to_swap=48))
    assert swap.config["musubi_blocks_to_swap"] == 47
    assert _row(swap.rows, "musubi_blocks_to_swap").verdict == "changed"


def test_a_caption_filter_goes_into_a_file_of_its_own(tmp_path: Path) -> None:
    datasets = [
        {"id": "clips", "instance_data_dir": str(tmp_path)},
        {"id": "texts", "dataset_type": "text_embeds", "caption_filter_list": ["a photo of", "s/cat/dog/"]},
    ]
    exchange = simpletuner_files(load_config_dict(MODEL, base=tmp_path, datasets=datasets))
    assert exchange.files == {"caption_filter.txt": "a photo of\ns/cat/dog/\n"}
    assert exchange.datasets[-1]["caption_filter_list"] == "caption_filter.txt"


def test_nano_is_not_exported_to_a_program_that_lacks_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot train it"):
        simpletuner_files(_loaded(tmp_path, pretrained_model_name_or_path="nano"))


def test_what_goes_there_and_back_is_what_it_was(tmp_path: Path) -> None:
    keys: dict[str, object] = {
        "lora_rank": 24,
        "max_train_steps": 700,
        "validation_resolution": "480x832",
        "base_model_precision": "int8-torchao",
        "peft_lora_target_modules": ["attn1.to_q", "ff.net.2"],
        "flow_schedule_shift": 2.0,
    }
    before = _loaded(tmp_path, dataset={"repeats": 3, "audio": {}, "video": {"num_frames": 57, "min_frames": 57}}, **keys)
    there = simpletuner_files(before)
    (tmp_path / "list.json").write_text(json.dumps(there.datasets))
    back = import_simpletuner(there.config | {"data_backend_config": "list.json"}, base=tmp_path, name="config.json")
    after = look_at(back.config, base=tmp_path, datasets=back.datasets)
    differing = {n for n in TrainConfig.model_fields if getattr(before.config, n) != getattr(after.config, n)} - {"data_backend_config"}
    assert differing == {"model_flavour"}  # "2.0" and "dev" are two names of one
    assert after.datasets.videos[0].model_dump(exclude={"cache_dir_vae"}) == before.datasets.videos[0].model_dump(exclude={"cache_dir_vae"})


def test_a_config_that_simpletuner_takes_is_imported_key_by_key(tmp_path: Path) -> None:
    exchange = import_simpletuner(BASELINE, base=tmp_path, name="config.json")
    refused = {row.source.split(" ")[0] for row in exchange.rows if row.verdict == "refused"}
    assert refused == {"ramtorch_target_modules"}
    told = {row.source.split(" ")[0] for row in exchange.rows}
    assert set(BASELINE) <= told
    assert look_at(exchange.config, base=tmp_path).config.frame_rate == 25


def test_the_quickstart_is_imported_with_every_change_and_its_rule() -> None:
    values = json.loads((QUICKSTART / "config.json").read_text())
    exchange = import_simpletuner(values, base=QUICKSTART, name="config.json")
    frames = _row(exchange.rows, "dataset my-video-dataset: video.num_frames")
    assert (frames.verdict, frames.source, frames.target) == (
        "changed",
        "dataset my-video-dataset: video.num_frames = 61",
        "video.num_frames = 57",
    )
    assert "8k + 1 frames" in frames.why
    assert _row(exchange.rows, "dataset my-video-dataset: video.min_frames").target == "video.min_frames = 57"
    assert _row(exchange.rows, "dataset my-video-dataset: audio.channels").verdict == "changed"
    size = _row(exchange.rows, "validation_resolution")
    assert (size.target, size.why) == ('validation_resolution = "768x512"', "SimpleTuner writes width x height, here it is height x width")
    keys = {row.source.split(" ")[0] for row in exchange.rows}
    assert set(values) - {"data_backend_config"} <= keys
    assert exchange.datasets[0]["video"] == {"num_frames": 57, "min_frames": 57, "frame_rate": 25, "bucket_strategy": "aspect_ratio"}


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"base_model_precision": "int4-quanto"}, "it is one of"),
        ({"twinflow_enabled": True}, "neither program has such a key"),
        ({"lora_rnak": 16}, "lora_rank may be meant"),
        ({"lora_rank": "wide"}, "it is a whole number"),
        ({"model_type": "full"}, "training all weights is not built yet"),
        ({"optimizer": "lion"}, "no such optimizer is built here"),
        ({"data_backend_config": "nowhere.json"}, "there is no such file"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_the_reason_and_the_rest_is_kept(tmp_path: Path, values: dict[str, object], why: str) -> None:
    exchange = import_simpletuner({"seed": 7} | values, base=tmp_path, name="config.json")
    (refused,) = [row for row in exchange.rows if row.verdict == "refused"]
    assert why in refused.why
    assert exchange.config == {"seed": 7}


def test_two_names_of_one_key_are_not_both_taken(tmp_path: Path) -> None:
    exchange = import_simpletuner({"framerate": 24, "frame_rate": 30}, base=tmp_path, name="config.json")
    assert exchange.config == {"frame_rate": 24}
    assert _row(exchange.rows, "frame_rate = 30").verdict == "refused"


def test_entries_of_other_places_and_kinds_are_refused_one_by_one(tmp_path: Path) -> None:
    entries: list[object] = [
        {"id": "far", "type": "aws", "dataset_type": "video"},
        {"id": "off", "disabled": True, "instance_data_dir": "x"},
        {"id": "odd", "dataset_type": "hologram"},
        "no entry",
        {
            "id": "good",
            "instance_data_dir": str(tmp_path),
            "crop": "sideways",
            "cache_dir_vae": "cache/vae",
            "video": {"num_frames": 49, "fps": 3},
        },
    ]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    exchange = import_simpletuner({"--data_backend_config": "list.json"}, base=tmp_path, name="config.json")
    refused = [row.source for row in exchange.rows if row.verdict == "refused"]
    assert [source.partition(" = ")[0] for source in refused] == [
        "dataset far: type",
        "dataset off: disabled",
        "dataset odd: dataset_type",
        "[3]",
        "dataset good: crop",
        "dataset good: video.fps",
        "dataset good: cache_dir_vae",
    ]
    assert exchange.datasets == [{"id": "good", "instance_data_dir": str(tmp_path), "video": {"num_frames": 49}}]


def test_defaults_that_differ_are_told_where_the_file_leaves_them_open(tmp_path: Path) -> None:
    exchange = import_simpletuner({"lora_rank": 8}, base=tmp_path, name="config.json")
    open_keys = {row.source.split(" ")[0] for row in exchange.rows if row.verdict == "default"}
    assert {"learning_rate", "flow_schedule_shift", "model_type"} <= open_keys
    assert "lora_rank" not in open_keys


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(KEYS - {"data_backend_config"})) | st.text(max_size=8), JSON, max_size=6))
def test_whatever_a_file_holds_each_of_its_keys_is_told_once_and_what_is_written_loads(values: dict[str, Any]) -> None:
    try:
        exchange = import_simpletuner(values, base=Path("/nowhere"), name="config.json")
    except ConfigError:  # keys that exclude each other
        return
    told = [row for row in exchange.rows if row.verdict != "default"]
    assert len(told) == len([value for value in values.values() if value is not None])
    look_at(exchange.config, base=Path("/nowhere"))


def test_our_own_export_holds_what_is_set_and_loads_as_the_same(tmp_path: Path) -> None:
    before = _loaded(tmp_path, lora_rank=24, dataset={"repeats": 2, "audio": {}})
    exchange = own_files(before)
    assert set(exchange.config) == {"pretrained_model_name_or_path", "lora_rank"}
    after = load_config_dict(exchange.config, base=tmp_path, datasets=exchange.datasets)
    assert after.config == before.config
    assert after.datasets.videos == before.datasets.videos
