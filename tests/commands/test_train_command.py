"""`ltx2tui train`: which root and which run it means. What a run does is tested with the engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ltx2core.errors import ConfigError, RunError
from ltx2core.runs.folder import RunFolder
from ltx2core.runs.journal import Journal
from ltx2tui import cli
from ltx2tui.commands import train

if TYPE_CHECKING:
    from argparse import Namespace


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a config whose output_dir is `out`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LTX2TUI_HOME", raising=False)
    (tmp_path / "clips").mkdir()
    (tmp_path / "datasets.json").write_text(json.dumps([{"id": "clips", "instance_data_dir": "clips"}]))
    _write_config(tmp_path, output_dir="out")
    return tmp_path


def _write_config(here: Path, **keys: object) -> None:
    (here / "config.json").write_text(json.dumps({"data_backend_config": "datasets.json"} | keys))


def _asked(monkeypatch: pytest.MonkeyPatch, *words: str) -> Namespace:
    """The arguments that `train` gets from the command line."""
    got: list[Namespace] = []
    monkeypatch.setattr(train, "run", lambda arguments: got.append(arguments) or 0)
    assert cli.main(["train", *words]) == 0
    return got[0]


def test_the_root_is_asked_for_then_of_the_environment_then_of_the_config_then_here(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ("--config", "config.json", "--headless")
    assert train.launch_for(_asked(monkeypatch, *config)).root == here / "out"
    monkeypatch.setenv("LTX2TUI_HOME", str(here / "home"))
    assert train.launch_for(_asked(monkeypatch, *config)).root == here / "home"
    assert train.launch_for(_asked(monkeypatch, *config, "--root", "named")).root == Path("named")
    monkeypatch.delenv("LTX2TUI_HOME")
    _write_config(here)
    assert train.launch_for(_asked(monkeypatch, *config)).root == Path()


def test_a_run_below_the_config_s_output_folder_is_found_to_be_resumed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="no run to resume"):
        train.launch_for(_asked(monkeypatch, "--config", "config.json", "--resume"))
    folder = RunFolder(here / "out" / "runs" / "first")
    folder.create()
    Journal(folder.journal).close()
    launch = train.launch_for(_asked(monkeypatch, "--config", "config.json", "--resume"))
    assert (launch.root, launch.name, launch.resume) == (here / "out", "first", True)


def test_a_call_that_names_no_config_says_what_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--headless"]) == 2
    assert "--config FILE" in capsys.readouterr().err
    assert cli.main(["train", "--headless", "--resume", "--run", "other"]) == 1
    assert "'other'" in capsys.readouterr().err


def test_a_config_that_cannot_be_used_is_told_before_anything_is_written(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_config(here, lora_rnak=3)
    with pytest.raises(ConfigError, match="lora_rank"):
        train.launch_for(_asked(monkeypatch, "--config", "config.json"))
    assert {path.name for path in here.iterdir()} == {"clips", "datasets.json", "config.json"}


def test_an_output_folder_in_the_home_is_there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    _write_config(here, output_dir="~/runs-of-mine")
    assert train.launch_for(_asked(monkeypatch, "--config", "config.json")).root == here / "runs-of-mine"
