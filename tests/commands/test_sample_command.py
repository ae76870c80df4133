"""`ltx2tui sample` with a model of the hub, in a process of its own whose hub is on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from fake_hub import FakeHub
from PIL import Image

from ltx2core.models.nano import nano_checkpoint, nano_text_encoder

if TYPE_CHECKING:
    from pathlib import Path


def test_sampling_with_a_model_of_the_hub_says_how_far_its_download_is(tmp_path: Path) -> None:
    files = {"ltx-2-19b-dev.safetensors": nano_checkpoint().read_bytes()}
    files |= {f"text_encoder/{path.name}": path.read_bytes() for path in nano_text_encoder().iterdir() if path.is_file()}
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {
                "pretrained_model_name_or_path": "me/small",
                "validation_resolution": "64x64",
                "validation_num_video_frames": 9,
                "validation_num_inference_steps": 1,
            }
        )
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    with FakeHub({"me/small": {"main": files}}) as hub:
        environment |= {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.url}
        command = [sys.executable, "-m", "ltx2tui.cli", "sample", "--config", str(config), "--prompt", "a square", "--out", "out"]
        Image.new("RGB", (128, 64), (200, 30, 30)).save(tmp_path / "red.png")
        command += ["--image", "red.png"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for what in ("ltx-2-19b-dev.safetensors", "the text encoder"):
        begin = next(number for number, line in enumerate(lines) if line.startswith(f"Downloads {what}, "))
        assert "GB of me/small are here." in lines[begin + 1]
    assert lines[-1] == "out/sample.mp4"
    assert (tmp_path / "out" / "sample.mp4").is_file()
    assert any("the sides are cut off" in line for line in lines)
    assert "%|" not in done.stderr
