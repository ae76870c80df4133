"""`ltx2tui probe` from the command line."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from typing import TYPE_CHECKING

import pytest

from ltx2core.hardware import bench
from ltx2core.hardware.machine import from_json
from ltx2core.hardware.probe import probe_machine
from ltx2tui import cli

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_the_json_of_a_probe_reads_back_as_this_machine(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["probe", "--json"]) == 0
    machine = from_json(json.loads(capsys.readouterr().out))
    assert (machine.disk_path, machine.cores) == (str(here), probe_machine(here).cores)
    assert machine.disk_speed is not None
    assert list(here.iterdir()) == []


def test_a_measured_speed_is_told_and_remembered(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataclasses.replace(bench.CPU_SIZES, product=64, copy_bytes=1 << 16, video_tokens=8, video_width=64, audio_width=32, heads=4)
    monkeypatch.setattr(bench, "measure", partial(bench.measure, sizes=small, seconds=0.001))
    assert cli.main(["probe"]) == 0
    assert "Not measured yet" in capsys.readouterr().out
    assert cli.main(["probe", "--measure"]) == 0
    assert "TFLOP/s" in capsys.readouterr().out
    assert cli.main(["probe", "--json"]) == 0
    rates = from_json(json.loads(capsys.readouterr().out)).rates
    assert rates is not None
    assert rates.block is not None
    assert rates.block.video_width == 64
