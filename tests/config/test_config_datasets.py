"""The dataset list: what each kind and key comes to, and which contradictions are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ltx2core.config.load import LoadedConfig, load_config, load_config_dict, save_config
from ltx2core.data.dataset import bucket_rule
from ltx2core.errors import ConfigError
from ltx2core.runs.folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("clips", "more", "ltxvideo2-two"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(entry: dict[str, object] | None = None, *, others: Sequence[object] = (), **keys: object) -> LoadedConfig:
    first: dict[str, object] = {"id": "clips", "instance_data_dir": "clips", **(entry or {})}
    return load_config_dict(keys, base=Path.cwd(), datasets=[first, *others])


def said(loaded: LoadedConfig, code: str) -> list[str]:
    return [notice.text for notice in loaded.notices if notice.code == code]


def test_each_kind_of_dataset_has_its_place() -> None:
    loaded = load(
        {"s2v_datasets": ["voices"]},
        others=[
            {"id": "stills", "dataset_type": "image", "instance_data_dir": "more"},
            {"id": "voices", "dataset_type": "audio", "instance_data_dir": "more"},
            {"id": "music", "dataset_type": "audio", "instance_data_dir": "more"},
            {"id": "seen", "dataset_type": "eval", "instance_data_dir": "more"},
            {"id": "text", "dataset_type": "text_embeds", "default": True},
            {"id": "off", "dataset_type": "image", "disable": True},
        ],
    )
    listed = loaded.datasets
    assert [dataset.id for dataset in listed.videos] == ["clips", "stills", "music"]
    assert [dataset.id for dataset in listed.evals] == ["seen"]
    assert [dataset.id for dataset in listed.sounds] == ["voices"]
    assert loaded.config.eval_split == 0  # the eval dataset stands for it
    assert loaded.notices == ()


def test_an_eval_split_that_is_asked_for_stays_beside_an_eval_dataset() -> None:
    entry = {"id": "seen", "dataset_type": "eval", "instance_data_dir": "more"}
    assert load(others=[entry], eval_split=0.2).config.eval_split == 0.2


def test_placeholders_in_paths_stand_for_the_config(project: Path) -> None:
    loaded = load({"id": "two", "instance_data_dir": "{model_family}-{id}"})
    assert loaded.datasets.videos[0].instance_data_dir == project / "ltxvideo2-two"
    with pytest.raises(ConfigError, match=r"\{other\}"):
        load({"instance_data_dir": "{other}"})


def test_cache_folders_are_answered_with_where_the_cache_is() -> None:
    loaded = load({"cache_dir_vae": "cache/vae/{model_family}"}, others=[{"dataset_type": "text_embeds", "cache_dir": "cache/text"}])
    (text,) = said(loaded, "cache_place")
    assert "[0].cache_dir_vae" in text
    assert "[1].cache_dir" in text


def test_lengths_of_their_own_need_no_number_of_frames() -> None:
    video = load({"video": {"bucket_strategy": "resolution_frames", "min_frames": 25}}).datasets.videos[0].video
    assert (video.num_frames, video.min_frames) == (497, 25)  # 20 s
    video = load({"video": {"bucket_strategy": "resolution_frames", "num_frames": 49}}).datasets.videos[0].video
    assert video.num_frames == 49
    capped = load({"video": {"bucket_strategy": "resolution_frames", "max_frames": 250, "frame_interval": 25}})
    rule = bucket_rule(capped.datasets.videos[0], frame_rate=25)
    assert (rule.max_frames, rule.frame_interval) == (250, 25)


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ({"crop_aspect": "random", "crop": True}, "crop_aspect_buckets is missing: crop_aspect random chooses among them"),
        ({"crop_aspect": "closest", "crop": True, "crop_aspect_buckets": [0.001]}, "a shape is width / height, 0.01 to 100"),
        ({"crop": True, "crop_style": "face"}, 'crop_style = "face": it is one of center, centre, corner, random'),
        ({"maximum_image_size": 1024}, "target_downsample_size is missing"),
        ({"target_downsample_size": 1024}, "maximum_image_size is missing"),
        ({"minimum_aspect_ratio": 2, "maximum_aspect_ratio": 1}, "maximum_aspect_ratio = 1: it is not below minimum_aspect_ratio, 2"),
        ({"start_step": 100, "end_step": 50}, "end_step = 50: it is not below start_step, 100"),
        ({"start_epoch": 3, "end_epoch": 2}, "end_epoch = 2"),
        ({"probability": 0}, 'set "disabled": true'),
        ({"caption_strategy": "huggingface"}, "it is one of textfile, filename, instanceprompt, csv, jsonl, parquet"),
        ({"type": "aws"}, "only local is supported"),
        ({"caption_strategy": "csv", "csv_file": "gone.csv"}, 'csv_file = "gone.csv": there is no such file'),
        ({"caption_strategy": "parquet", "parquet": {"path": "gone.parquet"}}, 'parquet.path = "gone.parquet": there is no such file'),
        ({"s2v_datasets": ["voices"]}, "no audio dataset has this id"),
        ({"caption_shuffle": {"split_on": "semicolon"}}, "it is one of comma, space, period"),
        ({"audio": {"truncation_mode": "middle"}}, "it is one of beginning, end, random"),
        ({"video": {"segments": "some"}}, "it is one of first, all, random"),
    ],
)
def test_what_cannot_work_is_refused_with_what_would(entry: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(entry)
    assert any(line in problem for problem in error.value.problems), error.value.problems


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ({"crop_style": "corner", "maximum_image_size": 9, "target_downsample_size": 8}, ["crop_style", "maximum_image_size"]),
        ({"audio": {"duration_interval": 5.0, "truncation_mode": "end"}}, ["duration_interval", "truncation_mode"]),
        ({"dataset_type": "image", "video": {"num_frames": 9}, "audio": {}}, ["audio", "video"]),
        ({"dataset_type": "audio", "resolution": 256, "video": {"num_frames": 9}}, ["resolution", "video"]),
    ],
)
def test_what_has_no_effect_is_named(entry: dict[str, object], names: list[str]) -> None:
    (text,) = said(load(entry), "no_effect")
    assert all(name in text for name in names)


def test_keys_of_training_have_no_effect_on_what_is_measured() -> None:
    entry = {"id": "seen", "dataset_type": "eval", "instance_data_dir": "more", "repeats": 3, "probability": 0.5}
    assert "probability, repeats have no effect, these files are measured on" in said(load(others=[entry]), "no_effect")[0]


def test_noise_offsets_need_a_normal() -> None:
    assert said(load({"timestep_sampling_offset": 0.5}), "no_effect") == []
    assert "flow_use_uniform_schedule" in said(load({"timestep_sampling_offset": 0.5}, flow_use_uniform_schedule=True), "no_effect")[0]


def test_regularisation_says_what_it_does_under_either_spelling() -> None:
    for name in ("is_regularisation_data", "is_regularization_data"):
        loaded = load({name: True})
        assert loaded.datasets.videos[0].is_regularisation_data
        assert "never dropped" in said(loaded, "regularisation")[0]
    with pytest.raises(ConfigError, match="is_regularization_data"):
        load({"is_regularisation_data": True, "is_regularization_data": False})


def test_a_caption_filter_is_read_when_the_settings_are(project: Path) -> None:
    (project / "filter.txt").write_text("arafed\n\ns/a/b/\n")
    (project / "filter.json").write_text(json.dumps(["x", "y"]))
    text: dict[str, object] = {"dataset_type": "text_embeds"}
    assert load(others=[text | {"caption_filter_list": "filter.txt"}]).datasets.text_embeds.caption_filter_list == ["arafed", "s/a/b/"]
    assert load(others=[text | {"caption_filter_list": "filter.json"}]).datasets.text_embeds.caption_filter_list == ["x", "y"]
    for wrong, line in (("gone.txt", "there is no such file"), (["("], "no regular expression"), (["s/a/\\9/"], "no regular expression")):
        with pytest.raises(ConfigError, match=line):
            load(others=[text | {"caption_filter_list": wrong}])


def test_a_list_of_every_kind_is_saved_and_loads_again_as_an_equal_one(project: Path) -> None:
    (project / "clips" / "captions.csv").write_text("file,caption\n")
    (project / "table.jsonl").write_text("")
    loaded = load(
        {
            "caption_strategy": "csv",
            "csv_file": "captions.csv",
            "crop": True,
            "crop_aspect": "closest",
            "crop_aspect_buckets": [1.0, 0.75],
            "maximum_image_size": 1024,
            "target_downsample_size": 800,
            "max_num_samples": 5,
            "end_step": 9,
            "s2v_datasets": ["voices"],
            "caption_shuffle": {"enable": True, "seed": 3},
            "video": {"segments": "random", "bucket_strategy": "resolution_frames", "is_i2v": True},
            "audio": {"allow_zero_audio": True},
        },
        others=[
            {
                "id": "stills",
                "dataset_type": "image",
                "instance_data_dir": "more",
                "caption_strategy": "jsonl",
                "parquet": {"path": "table.jsonl"},
            },
            {"id": "voices", "dataset_type": "audio", "instance_data_dir": "more"},
            {"id": "music", "dataset_type": "audio", "instance_data_dir": "more", "audio": {"truncation_mode": "random"}},
            {"id": "seen", "dataset_type": "eval", "instance_data_dir": "more"},
            {"dataset_type": "text_embeds", "caption_filter_list": ["a", "b"]},
        ],
    )
    assert loaded.datasets.videos[0].csv_file == project / "clips" / "captions.csv"
    folder = RunFolder(project / "runs" / "one")
    save_config(folder, loaded)
    again = load_config(folder.config)
    assert again.datasets == loaded.datasets
    assert again.config.eval_split == loaded.config.eval_split == 0
    for before, after in zip(loaded.datasets.videos[2:], again.datasets.videos[2:], strict=True):
        assert bucket_rule(before, frame_rate=25) == bucket_rule(after, frame_rate=25)
