"""Explaining keys: every key has words, the page of all keys is up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltx2core.config.explain import all_keys, explain_config, explain_key, main, markdown_table
from ltx2core.config.keys import facts_of
from ltx2core.config.load import load_config, load_config_dict
from ltx2core.config.train import TrainConfig
from ltx2core.errors import ConfigError

ROOT = Path(__file__).parents[2]


def test_every_key_has_a_title_and_a_sentence() -> None:
    for key in all_keys():
        assert key.field.title, key.name
        assert key.field.description, key.name
        assert key.field.description.endswith("."), key.name
        assert key.group, key.name


def test_no_name_means_two_keys() -> None:
    names = [name for key, field in TrainConfig.model_fields.items() for name in (key, *facts_of(field).aliases)]
    assert len(names) == len(set(names))
    assert [key.name for key in all_keys() if not key.of_dataset and "[]" not in key.name] == list(TrainConfig.model_fields)


def test_every_switch_is_a_key_of_the_same_feature() -> None:
    for key in all_keys():
        later = facts_of(key.field).later
        if later is not None and later.switch:
            assert facts_of(TrainConfig.model_fields[later.switch]).later in (None, later)  # or what it turns on is built


def test_the_page_of_all_keys_is_up_to_date() -> None:
    page = ROOT / "docs" / "CONFIG.md"
    assert page.read_text(encoding="utf-8") == markdown_table(), "run: python -m ltx2core.config.explain --markdown > docs/CONFIG.md"


def test_the_quickstart_is_explained_key_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "datasets" / "videos").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    lines = explain_config(load_config(ROOT / "tests" / "data" / "quickstart" / "config.json"))
    assert any(line.startswith("train_batch_size = 1: Clips looked at together.") for line in lines)
    assert any(line.startswith("crepa_lambda = 0.5:") and "No effect" not in line for line in lines)
    assert any(line.startswith("  video.num_frames = 57:") for line in lines)
    assert not any("Not built yet" in line for line in lines)  # what it asks for, whole blocks and RAM, is what there is
    assert not any(line.startswith("lora_rank") for line in lines)  # not in the file


def test_a_key_that_is_not_built_says_what_happens_instead(tmp_path: Path) -> None:
    loaded = load_config_dict({"lora_init_type": "pissa"}, base=tmp_path, datasets=[{"instance_data_dir": str(tmp_path)}])
    assert any(line.startswith('lora_init_type = "pissa":') and "Not built yet: a standard LoRA" in line for line in explain_config(loaded))


@pytest.mark.parametrize(
    ("name", "value", "switch"),
    [
        ("crepa_lambda", 0.1, "crepa_enabled"),
        ("group_offload_use_stream", True, "enable_group_offload"),
        ("group_offload_blocks_per_group", 4, "enable_group_offload"),
        ("group_offload_type", "leaf_level", "enable_group_offload"),
        ("ramtorch_transformer_percent", 50, "ramtorch"),
    ],
)
def test_a_key_of_a_feature_that_is_off_is_said_to_have_no_effect(tmp_path: Path, name: str, value: object, switch: str) -> None:
    loaded = load_config_dict({name: value}, base=tmp_path, datasets=[{"instance_data_dir": str(tmp_path)}])
    assert any(line.startswith(f"{name} = ") and line.endswith(f"No effect: {switch} is off.") for line in explain_config(loaded))


@pytest.mark.parametrize("name", ["lora_rank", "--lora-rank", "checkpointing_steps", "num_frames", "video.num_frames", "caption_strategy"])
def test_a_key_is_explained_under_any_of_its_names(name: str) -> None:
    assert "Takes: " in explain_key(name)


def test_an_unknown_key_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="use lora_rank"):
        explain_key("lora_rnk")


def test_the_module_prints_a_key_or_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lora_rank"]) == 0
    assert "whole number, 1 to 1024" in capsys.readouterr().out
    assert main(["--markdown"]) == 0
    assert capsys.readouterr().out == markdown_table()
    assert main(["lora_rnk"]) == 1
