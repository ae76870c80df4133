"""`ltx2tui plan` answers from names and numbers, quickly, and what it prints can be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ltx2tui.cli import main

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = {"max_train_steps": 1000, "lora_rank": 16, "data_backend_config": "list.json"}
LIST = [{"id": "clips", "instance_data_dir": "clips", "resolution": 512, "video": {"num_frames": 49}, "audio": {}}]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "list.json").write_text(json.dumps(LIST))
    (tmp_path / "clips").mkdir()
    for index in range(3):
        (tmp_path / "clips" / f"{index}.mp4").write_bytes(b"")
    return tmp_path


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    main(["plan", "--json", *arguments])
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_a_plan_is_read_by_export_and_says_what_its_goal_changed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = plan(capsys, "--config", "config.json", "--card", "4090", "--goal", "longest")
    (here / "plan.json").write_text(json.dumps(document))
    assert main(["export", "plan.json", "--out", "out/config.json"]) == 0
    exported = json.loads((here / "out" / "config.json").read_text())
    clips = json.loads((here / "out" / "datasets.json").read_text())[0]
    advice = next(one for one in document["recommendations"] if one["goal"] == "longest")  # type: ignore[attr-defined]
    assert exported["lora_rank"] == 16
    assert exported["base_model_precision"] == advice["values"]["base_model_precision"]
    assert clips["video"]["num_frames"] == advice["of_datasets"]["video.num_frames"] > 49


def test_the_fastest_plan_is_written_with_its_routes_and_what_simpletuner_has_not_is_listed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--config", "config.json", "--card", "4090"]) == 0
    assert '"selection_ratio": 0.5' in capsys.readouterr().out
    (here / "plan.json").write_text(json.dumps(plan(capsys, "--config", "config.json", "--card", "4090", "--goal", "fastest")))
    assert main(["export", "plan.json", "--out", "out/config.json"]) == 0
    exported = json.loads((here / "out" / "config.json").read_text())
    assert exported["tread_config"]["routes"][0]["end_layer_idx"] == -2
    assert exported["tread_share_of_steps"] == 0.3
    capsys.readouterr()
    assert main(["export", "plan.json", "--out", "theirs/config.json", "--for", "simpletuner"]) == 0
    assert "tread_share_of_steps" in capsys.readouterr().out
    assert "tread_share_of_steps" not in json.loads((here / "theirs" / "config.json").read_text())


def test_nonsense_in_a_config_is_refused_with_the_files_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "config.json").write_text(json.dumps(CONFIG | {"lora_rank": 0}))
    (here / "list.json").write_text(json.dumps([LIST[0] | {"resolution": 63}]))
    assert main(["plan", "--config", "config.json", "--card", "4090"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert any(line.startswith("config.json lora_rank = 0: it is at least 1") for line in said)
    assert any(line.startswith("list.json [0].resolution = 63: the shorter edge has at least 64 pixels") for line in said)


def test_a_plan_counts_the_clips_that_are_here(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prediction = plan(capsys, "--config", "config.json", "--card", "4090")["prediction"]
    assert prediction["clips"] == 3  # type: ignore[index]
    assert all(phase["seconds"] is not None for phase in prediction["phases"])  # type: ignore[index]


def test_a_remembered_plan_is_forgotten_when_what_it_follows_from_changes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ("--config", "config.json", "--card", "4090")
    first = plan(capsys, *ask)
    assert plan(capsys, *ask) == first
    (here / "clips" / "4.mp4").write_bytes(b"")
    assert plan(capsys, *ask)["prediction"]["clips"] == 4  # type: ignore[index]
    (here / "list.json").write_text(json.dumps([LIST[0] | {"video": {"num_frames": 121}}]))
    assert plan(capsys, *ask)["prediction"]["clip"]["frames"] == 121  # type: ignore[index]
    assert plan(capsys, *ask, "--ram-gib", "32")["hardware"] != first["hardware"]


def test_a_plan_reads_well_at_80_columns(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["plan", "--config", "config.json", "--card", "RTX 3090"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    for word in ("Fits.", "training", "Why", "Fastest:", "Best quality:", "Longest clips:", "binds", "The next size"):
        assert word in shown


def test_what_does_not_fit_is_said_and_fails(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "list.json").write_text(json.dumps([LIST[0] | {"resolution": 1088, "video": {"num_frames": 241}}]))
    assert main(["plan", "--config", "config.json", "--gpu-memory-gib", "8"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "Does not fit." in shown
    assert "more GPU memory than" in shown
    assert "then it fits" in shown or "No single change" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--card", "Voodoo 2"], "no such card is known"),
        (["--gpu-memory-gib", "10485760"], "GiB from 4 to 1,024"),
        (["--config", "gone.json", "--card", "4090"], "there is no such file"),
    ],
)
def test_nonsense_is_refused_in_a_line(here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert main(["plan", *arguments]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("config", [[], ["--config", "config.json"]])
def test_a_plan_loads_neither_torch_nor_the_app_and_a_remembered_one_no_settings(here: Path, config: list[str]) -> None:
    code = (
        "import sys; from ltx2tui.cli import main; main(['plan', '--card', 'RTX 4060', *sys.argv[2:]]); "
        "sys.exit(len(set(sys.argv[1].split()) & set(sys.modules)))"
    )
    heavy = "torch diffusers transformers textual"
    for modules in (heavy, heavy + " pydantic av numpy"):
        call = [sys.executable, "-c", code, modules, *config]
        assert subprocess.run(call, check=False, capture_output=True, env={**os.environ}).returncode == 0
