"""`ltx2tui config check` from the command line: what works ends with 0, what does not with 1 and lines that say why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ltx2tui import cli

QUICKSTART = Path(__file__).parents[1] / "data" / "quickstart"
FILES = ("config.json", "multidatabackend.json", "group_offload.json", "tread.json")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("file", FILES)
def test_a_quickstart_file_works_unchanged_wherever_it_is_checked(file: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "check", str(QUICKSTART / file)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert f"{file} can be used." in told.out
    shutil.copytree(QUICKSTART, here / "config")
    (here / "datasets" / "videos").mkdir(parents=True)
    assert cli.main(["config", "check", f"config/{file}"]) == 0
    assert "no_clips_folder" not in capsys.readouterr().out


def test_each_key_and_each_notice_of_the_quickstart_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "check", str(QUICKSTART / "config.json")]) == 0
    said = capsys.readouterr().out
    for key in json.loads((QUICKSTART / "config.json").read_text()):
        assert f"{key} = " in said, key
    for code in ("frames_snapped", "dataset_list_beside", "no_clips_folder"):
        assert f"[{code}]" in said
    assert "8k + 1 frames" in said
    assert cli.main(["config", "check", str(QUICKSTART / "config.json"), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["ok"]
    assert {notice["code"] for notice in value["notices"]} >= {"frames_snapped", "dataset_list_beside"}
    assert any(line.startswith("validation_guidance = 5") for line in value["keys"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"lora_rnak": 8}', ["bad.json lora_rnak = 8: there is no such key; use lora_rank."]),
        ('{"lora_rank": "wide"}', ['bad.json lora_rank = "wide": ']),
        ('{"lora_rank": 0, "seed": "x"}', ["bad.json lora_rank = 0: ", 'bad.json seed = "x": ']),
        ('{\n  "seed": 1,\n  "lora_rank": 8,,\n}', ["bad.json line 3, column 18: "]),
        ('{"seed": 1', ["bad.json line 1, column 11: "]),
        ("", ["bad.json is empty"]),
        ('[{"id": "a"}]', ["bad.json [0].instance_data_dir is missing: "]),
    ],
)
def test_a_bad_file_ends_with_1_and_a_line_for_each_thing_that_is_wrong(
    text: str, expected: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "bad.json").write_text(text)
    assert cli.main(["config", "check", "bad.json"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    lines = told.err.splitlines()
    assert len(lines) == len(expected)
    assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True)), lines
    assert cli.main(["config", "check", "bad.json", "--json"]) == 1
    value = json.loads(capsys.readouterr().out)
    assert not value["ok"]
    assert value["problems"] == lines


def test_a_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "check", "none.json"]) == 1
    assert "none.json: there is no such file" in capsys.readouterr().err
