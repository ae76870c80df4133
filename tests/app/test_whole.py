"""The whole product on a real terminal: clips to LoRA on nano, by keys alone, with the terminal lost and found on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ltx2core.runs.folder import RunFolder
from tests.app.scenes import CAPTION, write_clip
from tests.app.terminals import Screen

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = (sys.executable, "-m", "ltx2tui.cli")


def _dataset(folder: Path) -> None:
    for number in range(2):
        write_clip(folder / f"kite-{number}.mp4")
        (folder / f"kite-{number}.txt").write_text(CAPTION)


def _draft(settings: Path, steps: int) -> None:
    values = {
        "max_train_steps": steps,
        "validation_step_interval": 0,
        "validation_num_inference_steps": 2,
        "dataset.resolution": 64,
        "dataset.video.num_frames": 9,
        "validation_resolution": "64x64",
        "validation_num_video_frames": 9,
        "checkpoint_step_interval": 1000,
        "eval_steps_interval": 0,
    }
    (settings / "ltx2tui").mkdir(parents=True)
    (settings / "ltx2tui" / "draft.json").write_text(json.dumps({"folder": "clips", "set": values}))


@pytest.mark.slow
def test_clips_become_a_lora_by_keys_alone_though_the_terminal_is_lost_on_the_way(tmp_path: Path) -> None:
    _dataset(tmp_path / "clips")
    _draft(tmp_path / "settings", steps=400)
    env = {"XDG_CONFIG_HOME": str(tmp_path / "settings"), "OMP_NUM_THREADS": "1"}
    screen = Screen(*COMMAND, cwd=tmp_path, env=env)
    screen.wait_for("New run", "No runs yet")
    screen.type("n")
    screen.wait_for("Processor", "Disk")
    screen.type("\x0e")  # ctrl+n
    screen.wait_for("2 clips, 2 usable", "kite-0.mp4")
    screen.type("\x0e")
    screen.wait_for("Learning rate", "nano")
    screen.type("\x0e")
    screen.wait_for("What will be done", "Clips                clips", "Writes into")  # the table: keys work once it is there
    screen.type("s")
    screen.wait_for("Training", "s/step", seconds=120)
    (folder,) = (RunFolder(path) for path in (tmp_path / "runs").iterdir())
    screen.hang_up()

    viewer = Screen(*COMMAND, "attach", cwd=tmp_path, env=env)
    viewer.wait_for("Training", f"process {screen.pid}", seconds=60)
    assert folder.is_alive()
    stop = subprocess.run([*COMMAND, "stop", folder.name], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "Stopped." in stop.stdout
    viewer.wait_for("Stopped", seconds=60)
    viewer.type("q")
    assert viewer.end() == 0
    assert screen.end() == 130
    (checkpoint,) = folder.checkpoints.iterdir()
    assert (checkpoint / "state.json").exists()
    assert folder.lora.exists()


def test_the_app_and_the_commands_paint_before_torch_is_imported() -> None:
    """In a fresh interpreter: everything that the first screens need, and not one heavy module."""
    program = """
import asyncio, sys
from pathlib import Path
import ltx2tui.cli, ltx2tui.commands.app, ltx2tui.commands.train, ltx2tui.commands.demo
from ltx2tui.app import Ltx2App
async def main():
    app = Ltx2App(root=Path("."))
    async with app.run_test() as pilot:
        await pilot.pause()
        assert "New run" in str(app.export_screenshot()).replace("&#160;", " ")
asyncio.run(main())
heavy = {"torch", "diffusers", "transformers", "numpy", "av", "pydantic", "peft"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    from ltx2tui.cli import COMMANDS, main

    for command in COMMANDS:
        with pytest.raises(SystemExit) as left:
            main([*command.words.split(), "--help"])
        assert left.value.code == 0
        said = " ".join(capsys.readouterr().out.split())
        assert f"example: {command.example}" in said


def test_a_wrong_call_exits_2_and_an_error_is_two_clear_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from ltx2tui.cli import main

    with pytest.raises(SystemExit) as left:
        main(["nonsense"])
    assert left.value.code == 2
    capsys.readouterr()
    assert main(["--root", str(tmp_path), "stop", "nobody"]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 2
    assert main(["--root", str(tmp_path), "train"]) == 2
    assert main(["--root", str(tmp_path), "train", "--resume"]) == 1
    assert main(["--root", str(tmp_path), "attach"]) == 1


def test_runs_are_listed_with_what_they_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from ltx2tui.cli import main
    from tests.app.scenes import RUNS, write_run

    for name in ("finished", "stopped", "failed", "training"):
        write_run(tmp_path, name, RUNS[name]())
    assert main(["runs", "--json", "--root", str(tmp_path)]) == 0
    listed = {run["name"]: (run["status"], run["step"]) for run in json.loads(capsys.readouterr().out)}
    assert listed == {
        "finished": ("finished", 400),
        "stopped": ("stopped", 230),
        "failed": ("failed", 150),
        "training": ("interrupted", 412),
    }
    assert main(["runs", "--root", str(tmp_path)]) == 0
    assert "interrupted" in capsys.readouterr().out


def test_probe_and_explain_print_for_people_and_scripts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from ltx2tui.cli import main

    assert main(["probe", "--json", "--root", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["cores"] >= 1
    assert main(["probe", "--root", str(tmp_path)]) == 0
    assert "Processor" in capsys.readouterr().out
    assert main(["explain", "lora_rank"]) == 0
    assert "Rank" in capsys.readouterr().out
    assert main(["explain", "lora_rnk"]) == 1
    assert "lora_rank" in capsys.readouterr().err
