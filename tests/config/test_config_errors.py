"""Settings that cannot be used: each is told with file, key path, value, rule and what works, and all of them at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ltx2core.config.load import load_config, load_config_dict, load_part
from ltx2core.errors import ConfigError


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "clips").mkdir()
    (tmp_path / "datasets.json").write_text('[{"id": "clips", "instance_data_dir": "clips"}]')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(config: object | None = None, datasets: object = None) -> list[str]:
    """What is said about a config and a dataset list."""
    Path("config.json").write_text(json.dumps(config if config is not None else {"data_backend_config": "datasets.json"}))
    if datasets is not None:
        Path("datasets.json").write_text(json.dumps(datasets))
    with pytest.raises(ConfigError) as caught:
        load_config(Path("config.json"))
    return caught.value.problems


def of_key(**config: object) -> str:
    (problem,) = problems({"data_backend_config": "datasets.json", **config})
    return problem


def of_entry(**entry: object) -> str:
    (problem,) = problems(datasets=[{"id": "clips", "instance_data_dir": "clips", **entry}])
    return problem


def of_text(text: str) -> str:
    Path("config.json").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(Path("config.json"))
    return str(caught.value)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"lora_rnk": 8}, "config.json lora_rnk = 8: there is no such key; use lora_rank."),
        ({"--Lora_Rank": 8}, "config.json --Lora_Rank = 8: there is no such key; use lora_rank."),
        ({"zzzz": 8}, "config.json zzzz = 8: there is no such key; remove it."),
        ({"lora_rank": "many"}, 'config.json lora_rank = "many": it is a whole number; use 32.'),
        ({"lora_rank": 7.6}, "config.json lora_rank = 7.6: it is a whole number; use 8."),
        ({"lora_rank": 0}, "config.json lora_rank = 0: it is at least 1; use 1."),
        ({"lora_rank": 5000}, "config.json lora_rank = 5000: it is at most 1024; use 1024."),
        ({"train_batch_size": True}, "config.json train_batch_size = true: it is a whole number; use 1."),
        ({"learning_rate": 0}, "config.json learning_rate = 0: it is more than 0; use 0.0001."),
        ({"lora_dropout": 1}, "config.json lora_dropout = 1: it is less than 1; use 0."),
        ({"learning_rate": [1]}, "config.json learning_rate = [1]: it is a number; use 0.0001."),
        ({"gradient_checkpointing": "perhaps"}, 'config.json gradient_checkpointing = "perhaps": it is true or false; use true.'),
        ({"validation_prompt": 5}, 'config.json validation_prompt = 5: it is text in quotes; use "5".'),
        ({"model_family": "wan"}, 'config.json model_family = "wan": only ltxvideo2 is supported; use ltxvideo2.'),
        ({"mixed_precision": "bf32"}, 'config.json mixed_precision = "bf32": it is one of bf16, no, fp16, fp8; use bf16.'),
        ({"validation_resolution": "big"}, 'config.json validation_resolution = "big": a size is height x width in pixels'),
        ({"validation_steps": -1}, "config.json validation_steps = -1: it is at least 0; use 0."),
        ({"max_train_steps": 5, "num_train_epochs": 2}, "only one of them can say how long to train; set num_train_epochs to 0."),
        ({"max_train_steps": 0}, "config.json max_train_steps = 0: without num_train_epochs nothing would be trained; use 2000."),
        ({"framerate": 24, "frame_rate": 25}, "are the same key; remove one of them."),
        ({"pretrained_model_name_or_path": "./gone.safetensors"}, "there is no such file or folder; name one that exists."),
        ({"peft_lora_target_modules": []}, 'it is a list, such as ["attn1.to_q"], with at least one entry; or leave the key out.'),
    ],
)
def test_a_wrong_key_is_told_with_its_rule_and_what_works(config: dict[str, object], said: str) -> None:
    assert said in of_key(**config)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"repeat": 3}, "datasets.json [0].repeat = 3: there is no such key; use repeats."),
        ({"video": {"num_frame": 3}}, "datasets.json [0].video.num_frame = 3: there is no such key; use num_frames."),
        ({"video": {"num_frames": "x"}}, 'datasets.json [0].video.num_frames = "x": it is a whole number; use 49.'),
        ({"video": {"num_frames": 0}}, "datasets.json [0].video.num_frames = 0: it is at least 1; use 1."),
        ({"video": 5}, "datasets.json [0].video = 5: it is a group of keys in braces; use {}."),
        (
            {"video": {"min_frames": 49, "max_frames": 9}},
            "datasets.json [0].video.max_frames = 9: it is at least min_frames, 49; use 49 or more.",
        ),
        ({"type": "aws"}, 'datasets.json [0].type = "aws": only local is supported; use local.'),
        (
            {"caption_strategy": "textfiles"},
            'caption_strategy = "textfiles": it is one of textfile, filename, instanceprompt, csv, jsonl, parquet; use textfile.',
        ),
        ({"caption_strategy": "instanceprompt"}, "datasets.json [0].instance_prompt is missing"),
        (
            {"dataset_type": "vidoe"},
            'datasets.json [0].dataset_type = "vidoe": it is one of video, image, audio, eval, conditioning, text_embeds; use video.',
        ),
        ({"instance_data_dir": "gone"}, 'datasets.json [0].instance_data_dir = "gone": there is no such folder; name the folder'),
        ({"instance_data_dir": "datasets.json"}, "it is a file, not a folder; use "),
        ({"instance_prompt": 5}, "datasets.json [0].instance_prompt = 5: it is text in quotes"),
    ],
)
def test_a_wrong_entry_is_told_with_its_path(entry: dict[str, object], said: str) -> None:
    assert said in of_entry(**entry)


def test_every_problem_of_both_files_is_told_at_once() -> None:
    said = problems(
        {"data_backend_config": "datasets.json", "lora_rnk": 8, "seed": "x", "train_batch_size": 0},
        [{"id": "a", "instance_data_dir": "gone", "video": {"num_frames": "x", "fps": 3}}, 7, {"id": "b", "instance_data_dir": "gone"}],
    )
    assert len(said) == 7
    assert str(ConfigError(said)).count("\n") == 6


def test_a_key_that_must_be_given_is_told() -> None:
    assert problems({}) == [
        'config.json data_backend_config is missing: it names the dataset list; add "data_backend_config": "datasets.json".'
    ]
    (said,) = problems(datasets=[{"id": "a"}])
    assert said.startswith("datasets.json [0].instance_data_dir is missing: The folder with the clips")


def test_two_datasets_with_one_name_are_told() -> None:
    (said,) = problems(datasets=[{"id": "a", "instance_data_dir": "clips"}] * 2)
    assert said == 'datasets.json id = "a": 2 datasets have this name; give each its own.'


@pytest.mark.parametrize("datasets", [[], [{"dataset_type": "text_embeds"}], [{"instance_data_dir": "clips", "disabled": True}]])
def test_a_list_without_clips_is_told(datasets: list[object]) -> None:
    (said,) = problems(datasets=datasets)
    assert said.startswith("datasets.json lists no clips: add an entry")


def test_a_dataset_list_that_is_not_there_is_told() -> None:
    said = of_key(data_backend_config="gone.json")
    assert said == 'config.json data_backend_config = "gone.json": there is no such file; name the JSON file that lists your datasets.'


def test_a_list_in_place_of_a_config_and_the_other_way_round_are_told() -> None:
    assert "this is a dataset list" in problems([{"id": "a"}])[0]
    assert problems(datasets={"id": "a"}) == ["datasets.json holds a group of keys: a dataset list is a list of entries; put it in [ ]."]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1,\n "b": 2,\n}', "config.json line 3, column 1: a comma stands before }; remove the comma."),
        ('{"a": 1\n "b": 2}', "config.json line 2, column 2: a comma is missing before this; add it."),
        ("{'a': 1}", "config.json line 1, column 2: text is written in single quotes; use double quotes."),
        ('{"a": True}', "config.json line 1, column 7: True is written true in JSON; use true."),
        ('{"a": 1, // why\n"b": 2}', "config.json line 1, column 10: JSON has no comments; remove it."),
        ('{"a": 1', "config.json line 1, column 8: the file ends before its last bracket is closed"),
        ('{"a": 1} {}', "config.json line 1, column 10: something follows after the end"),
        ("{a: 1}", "config.json line 1, column 2: this is not valid JSON"),
        ('{"a": NaN}', "NaN is not a number in JSON; write a number."),
        ("[" * 100_000, "config.json is nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "a number has thousands of digits"),
        ("", "config.json is empty; write JSON into it"),
        (" \n", "config.json is empty; write JSON into it"),
        ("5", "config.json holds 5: a config is a group of keys in braces; use { }."),
        ('{"data_backend_config": "datasets.json", "seed": 1e999}', "config.json seed: the number is not finite; use a finite one."),
        ('{"output_dir": "a\\u0000b"}', "config.json output_dir: the text holds a character that no file can hold"),
    ],
)
def test_a_file_that_is_not_json_is_told_with_line_and_column(text: str, said: str) -> None:
    assert said in of_text(text)


def test_a_dataset_list_that_is_not_json_is_told_beside_the_config_s_problems() -> None:
    Path("datasets.json").write_text("[\n{,}]")
    said = problems({"data_backend_config": "datasets.json", "lora_rnk": 8})
    assert len(said) == 2
    assert said[1].startswith("datasets.json line 2, column 2: ")


def test_a_file_that_is_no_text_a_folder_and_no_file_at_all_are_told(project: Path) -> None:
    (project / "config.json").write_bytes(b"\xff\xfe\x00")
    for path, said in (("config.json", "is not a text file"), ("clips", "is a folder"), ("gone.json", "there is no such file")):
        with pytest.raises(ConfigError, match=said):
            load_config(Path(path))


def test_a_part_is_checked_like_a_whole_config(project: Path) -> None:
    (project / "part.json").write_text('{"tread_confg": {}}')
    with pytest.raises(ConfigError, match="use tread_config"):
        load_part(Path("part.json"))


def test_values_from_code_name_no_file() -> None:
    with pytest.raises(ConfigError, match="config lora_rnk"):
        load_config_dict({"lora_rnk": 3}, base=Path.cwd(), datasets=[{"instance_data_dir": "clips"}])


def test_eight_steps_are_refused_where_no_weights_are_distilled() -> None:
    assert "distilled weights" in of_key(ltx2_validation_schedule="distilled")
