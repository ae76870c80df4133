"""Measuring from the app, in a process of its own."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from ltx2core.hardware.machine import as_json
from ltx2tui.machine_lines import machine_sections
from ltx2tui.measuring import MeasuringError, measured_machine
from tests.app.scenes import CPU_ONLY, gpu_machine, page_scene, shown_text, until

if TYPE_CHECKING:
    from pathlib import Path


def _program(tmp_path: Path, code: str) -> tuple[str, str]:
    program = tmp_path / "program.py"
    program.write_text(code)
    return sys.executable, str(program)


def test_the_machine_that_a_process_measured_is_read(tmp_path: Path) -> None:
    code = f"import sys\nassert sys.argv[1:4] == ['probe', '--measure', '--json']\nprint({json.dumps(as_json(gpu_machine()))!r})"
    machine = measured_machine(tmp_path, command=_program(tmp_path, code))
    assert machine == gpu_machine()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; sys.exit('CUDA error: out of memory')", "CUDA error: out of memory"),
        ("import sys; sys.exit(3)", "exit code 3"),
        ("print('no JSON')", "could not be measured"),
        ("print('{}')", "could not be measured"),
    ],
)
def test_a_measurement_that_fails_says_the_last_thing_that_was_said(tmp_path: Path, code: str, said: str) -> None:
    with pytest.raises(MeasuringError, match=said):
        measured_machine(tmp_path, command=_program(tmp_path, code))


async def test_m_on_the_hardware_page_measures_and_shows_the_speed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ltx2tui.measuring.measured_machine", lambda root: gpu_machine())
    scene = page_scene("hardware", tmp_path)
    async with scene.app.run_test(size=(100, 40)) as pilot:
        await scene.complete(pilot)
        assert "Not measured yet" in shown_text(scene.app)
        await pilot.press("m")
        await until(pilot, lambda: "fp8 218 TFLOP/s" in shown_text(scene.app))


def test_everything_that_is_known_of_a_machine_is_told_in_words() -> None:
    text = "\n".join("\n".join((part.title, part.text, *part.more, *part.wrong)) for part in machine_sections(gpu_machine()))
    told = (
        "Xorg",
        "22 of 300 W",
        "ECC off",
        "PCIe 1 x8 now, 4 x16 at best",
        "Slowed down by: power limit",
        "swap 8.0 GiB",
        "/dev/shm 16.0 GiB",
    )
    for words in (
        *told,
        "container",
        "Writes 1.9 GB/s, reads 3.1 GB/s",
        "in tmux over SSH",
        "CUDA 13.0",
        "PyTorch 2.13.0+cu130",
        "18.4 ms",
    ):
        assert words in text, words


def test_a_hidden_card_and_software_that_does_not_fit_are_told_as_what_is_wrong() -> None:
    import dataclasses

    machine = gpu_machine()
    hidden = dataclasses.replace(
        machine,
        gpus=(dataclasses.replace(machine.gpus[0], visible=False),),
        no_gpu_because="CUDA_VISIBLE_DEVICES= hides every card.",
        software_problem="The driver is too old.",
    )
    wrong = [line for part in machine_sections(hidden) for line in part.wrong]
    assert "CUDA_VISIBLE_DEVICES= hides every card." in wrong
    assert "The driver is too old." in wrong
    assert machine_sections(CPU_ONLY)[0].text.startswith("No NVIDIA GPU")


async def test_the_review_says_what_should_be_known_of_the_machine_before_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scene = page_scene("review", tmp_path, flat=True)
    scene.app._machine = gpu_machine()  # type: ignore[attr-defined]
    async with scene.app.run_test(size=(160, 48)) as pilot:
        await scene.complete(pilot)
        text = " ".join(shown_text(scene.app).split())
        assert "Other processes (Xorg 900, python3 4711) hold 1.7 GiB" in text
        assert "may draw 300 W of its usual 450 W" in text
