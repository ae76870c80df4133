"""Presets are what the planner makes of today's model, whole, explained, and fit for every card of their size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ltx2core.config.keys import facts_of
from ltx2core.config.load import look_at
from ltx2core.config.sources import preset_files, read_source
from ltx2core.config.train import TrainConfig
from ltx2core.planning.make_presets import RAM_GIB, SEVERAL_RAM_GIB, as_text, make_presets, smallest_of
from ltx2core.planning.predict import predict
from ltx2tui.cli import main

PRESETS = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in preset_files().items()}


def test_presets_are_those_that_the_planner_makes() -> None:
    made = make_presets()
    assert made.keys() == PRESETS.keys(), "run python -m ltx2core.planning.make_presets"
    stale = [name for name, preset in made.items() if as_text(preset) != preset_files()[name].read_text(encoding="utf-8")]
    assert not stale, "run python -m ltx2core.planning.make_presets"


def test_every_size_has_every_goal() -> None:
    assert {8, 10, 12, 16, 24, 32, 40, 48, 80, 96, 141} == set(RAM_GIB)
    goals = {"style", "character", "motion", "audio-video"}
    assert {(2, 24), (4, 24), (2, 48), (4, 80), (8, 80)} == set(SEVERAL_RAM_GIB)
    forms = [f"{size}gb" for size in RAM_GIB] + [f"{gpus}x{size}gb" for gpus, size in SEVERAL_RAM_GIB]
    assert {f"{form}-{goal}" for form in forms for goal in goals} | {"quickstart"} == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_loads_says_why_for_each_key_and_asks_for_nothing_that_is_not_built(name: str) -> None:
    preset = PRESETS[name]
    source = read_source(name, root=Path())
    assert source.kind == "preset"
    assert not [notice.text for notice in source.loaded.notices if notice.code != "no_clips_folder" and notice.level != "info"]
    asked = {
        key
        for key, value in preset["config"].items()
        if (facts := facts_of(TrainConfig.model_fields[key])).later and value not in facts.built
    }
    assert not asked
    why: dict[str, str] = preset["why"]
    assert preset["config"].keys() == {key for key in why if not key.startswith("datasets.")}
    assert all(text.endswith(".") and len(text) > 10 for text in why.values())
    assert {"datasets.resolution", "datasets.video.num_frames", "datasets.audio", "datasets.instance_data_dir"} <= why.keys()


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "quickstart"])
def test_a_preset_fits_the_smallest_card_of_its_size(name: str) -> None:
    preset: dict[str, Any] = PRESETS[name]
    loaded = look_at(preset["config"], base=Path(), datasets=preset["datasets"])
    hardware = smallest_of(preset["for"]["gpu_memory_gb"], preset["for"]["gpus"])
    found = predict(loaded.config, hardware, datasets=loaded.datasets, clips=30)
    assert found.fits, found.misfit
    assert found.vram_bytes <= hardware.free_bytes
    assert loaded.config.base_model_precision in ("no_change", "int8-torchao")  # any card can


def test_goals_differ_in_what_they_are_about() -> None:
    for size in RAM_GIB:
        shapes = {goal: PRESETS[f"{size}gb-{goal}"]["datasets"][0] for goal in ("style", "motion", "audio-video")}
        assert shapes["motion"]["video"]["num_frames"] >= shapes["style"]["video"]["num_frames"]
        assert shapes["motion"]["resolution"] <= shapes["style"]["resolution"]
        assert "audio" in shapes["audio-video"]
        assert "audio" not in shapes["style"]


def test_several_gpus_take_fewer_steps_at_a_higher_rate_and_see_no_fewer_clips() -> None:
    for gpus, size in SEVERAL_RAM_GIB:
        one, several = PRESETS[f"{size}gb-style"]["config"], PRESETS[f"{gpus}x{size}gb-style"]["config"]
        assert several["num_processes"] == gpus
        assert several["learning_rate"] == pytest.approx(one["learning_rate"] * gpus**0.5, rel=0.02)
        assert one["max_train_steps"] <= gpus * several["max_train_steps"] <= 1.5 * one["max_train_steps"]
        assert several["lr_warmup_steps"] < several["max_train_steps"] / 4
        assert several["validation_step_interval"] <= several["max_train_steps"] / 5


def test_the_quickstart_differs_where_the_model_needs_it_and_says_so() -> None:
    config, why = PRESETS["quickstart"]["config"], PRESETS["quickstart"]["why"]
    assert config["enable_group_offload"] is True
    assert config["group_offload_use_stream"] is True
    assert config["musubi_blocks_to_swap"] == 0
    assert "all 48 travel" in why["musubi_blocks_to_swap"]
    assert config["validation_num_video_frames"] % 8 == 1


def test_presets_are_listed_for_a_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--gpu-memory-gb", "28"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["24gb-audio-video", "24gb-character", "24gb-motion", "24gb-style"]
    assert max(map(len, lines[:4])) <= 80
    assert lines[4].split()[0] == "2x24gb-audio-video"
    assert main(["presets", "--gpus", "8"]) == 0
    assert {line.split()[0].split("-")[0] for line in capsys.readouterr().out.splitlines()[:4]} == {"8x80gb"}
    assert main(["presets", "--gpus", "3"]) == 1
    assert main(["presets", "--gpu-memory-gb", "2"]) == 1
    assert main(["presets", "--json"]) == 0
