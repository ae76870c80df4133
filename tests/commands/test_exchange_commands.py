"""`export`, `import` and `diff` from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ltx2core.config import sources
from ltx2core.config.load import load_config
from ltx2core.config.sources import preset_files, read_source
from ltx2core.errors import ConfigError
from ltx2tui import cli

QUICKSTART = Path(__file__).parents[1] / "data" / "quickstart"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "clips").mkdir()
    return tmp_path


def _write(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def _config(here: Path, name: str = "config.json", **keys: object) -> Path:
    _write(here / "datasets.json", [{"id": "clips", "instance_data_dir": "clips"}])
    return _write(here / name, {"pretrained_model_name_or_path": "Lightricks/LTX-2", "data_backend_config": "datasets.json"} | keys)


def test_a_simpletuner_config_is_imported_shown_and_loads(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(QUICKSTART, here / "old")
    assert cli.main(["import", "old/config.json", "--out", "new/config.json"]) == 0
    told = capsys.readouterr().out
    for words in (
        "Refused",
        "Changed",
        "Kept",
        "validation_num_video_frames = 57",
        "8k + 1 frames",
        "Written: new/config.json and new/datasets.json",
    ):
        assert words in told
    (here / "datasets" / "videos").mkdir(parents=True)
    loaded = load_config(here / "new" / "config.json")
    assert loaded.datasets.videos[0].video.num_frames == 57


def test_an_import_overwrites_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = _config(here)
    before = config.read_bytes()
    assert cli.main(["import", "config.json"]) == 1
    assert "config.json exists already" in capsys.readouterr().err
    assert config.read_bytes() == before


def test_an_official_config_is_imported_with_the_clips_that_are_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "t2v.yaml").write_text("model: {model_path: Lightricks/LTX-2}\nlora: {rank: 16}\ndata: {preprocessed_data_root: /x}\n")
    assert cli.main(["import", "t2v.yaml", "--clips", "clips", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == ["config.json", "datasets.json"]
    assert {row["source"]: row["verdict"] for row in told["keys"]}["lora.rank = 16"] == "kept"
    assert load_config(here / "config.json").config.lora_rank == 16


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "seed: 1\n", "no config of the LTX-2 trainer"),
        ("a.json", "[]", "name the config.json"),
        ("a.json", "{", "line 1"),
        ("a.json", '{"seed": 99999999999999999999999}', "too large"),
    ],
)
def test_a_file_that_is_no_config_is_refused_in_a_line(
    here: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, said: str
) -> None:
    (here / name).write_text(text)
    assert cli.main(["import", name, "--out", "new.json"]) == 1
    assert said in capsys.readouterr().err
    assert not (here / "new.json").exists()


def test_a_run_is_exported_for_simpletuner_with_its_list_named_from_here(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _config(here / "runs" / "kite", lora_rank=24, audio_loss_weight=0.5)
    (here / "runs" / "kite" / "clips").mkdir()
    assert cli.main(["export", "kite", "--for", "simpletuner", "--out", "config/config.json"]) == 0
    told = capsys.readouterr().out
    assert "Written from the run kite" in told
    assert "audio_loss_weight = 0.5" in told
    written = json.loads((here / "config" / "config.json").read_text())
    assert written["lora_rank"] == 24
    assert written["data_backend_config"] == "config/multidatabackend.json"
    assert json.loads((here / "config" / "multidatabackend.json").read_text())[-1]["dataset_type"] == "text_embeds"


def test_a_plan_is_exported_for_this_program(here: Path) -> None:
    plan = {"config": {"lora_rank": 8}, "datasets": [{"id": "clips", "instance_data_dir": "clips"}], "prediction": {"x": 1}}
    _write(here / "plan.json", plan)
    assert cli.main(["export", "plan.json", "--out", "out/config.json"]) == 0
    loaded = load_config(here / "out" / "config.json")
    assert (loaded.config.lora_rank, loaded.datasets.videos[0].instance_data_dir) == (8, here / "clips")


def test_a_preset_is_found_by_its_name_and_a_wrong_name_gets_the_nearest(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(here / "presets" / "24gb-style.json", {"config": {"lora_rank": 16}, "because": {"lora_rank": "Enough for a style."}})
    monkeypatch.setattr(sources, "presets_folder", lambda: here / "presets")
    assert read_source("24gb-style", root=here).loaded.config.lora_rank == 16
    with pytest.raises(ConfigError, match="use 24gb-style"):
        read_source("24gb-styl", root=here)


@pytest.mark.parametrize("name", sorted(preset_files()))
def test_every_preset_that_is_shipped_loads(name: str, here: Path) -> None:
    assert read_source(name, root=here).kind == "preset"


def test_what_differs_between_a_run_and_a_config_is_told_with_its_meaning(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _config(here / "runs" / "kite", lora_rank=24, validation_num_video_frames=61)
    _config(here, lora_rank=32, validation_num_video_frames=57)
    assert cli.main(["diff", "kite", "config.json", "--json"]) == 0
    (found,) = [one for one in json.loads(capsys.readouterr().out) if not one["key"].startswith("dataset")]
    assert (found["key"], found["first"], found["second"], found["title"]) == ("lora_rank", "24", "32", "Rank")
    assert "Twice the rank is twice the file" in found["meaning"]


@pytest.mark.parametrize(("width", "meaning"), [(80, False), (140, True)])
def test_differences_stay_whole_words_in_a_narrow_terminal(
    width: int, meaning: bool, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert cli.main(["diff", "8gb-audio-video", "10gb-audio-video"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    head = next(line for line in lines if line.split()[:1] == ["key"])
    assert head.split()[:3] == ["key", "8gb-audio-video", "10gb-audio-video"]
    assert any(line.split()[:3] == ["validation_resolution", '"320x480"', '"512x768"'] for line in lines)
    assert ("what it does" in head) == meaning
    assert any("explain KEY" in line for line in lines) != meaning


def test_datasets_are_compared_by_their_names(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = {"config": {}, "datasets": [{"id": "a", "instance_data_dir": "clips", "repeats": 2}, {"id": "b", "instance_data_dir": "clips"}]}
    other = {"config": {}, "datasets": [{"id": "a", "instance_data_dir": "clips", "video": {"num_frames": 33}}]}
    assert cli.main(["diff", str(_write(here / "one.json", one)), str(_write(here / "other.json", other)), "--json"]) == 0
    keys = {found["key"]: (found["first"], found["second"]) for found in json.loads(capsys.readouterr().out)}
    assert keys == {"dataset a: repeats": ("2", "0"), "dataset a: video.num_frames": ("49", "33"), "dataset b": ("there", "—")}


def test_the_same_settings_have_no_difference(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = _config(here)
    assert cli.main(["diff", str(config), "config.json"]) == 0
    assert "come to the same settings" in capsys.readouterr().out
