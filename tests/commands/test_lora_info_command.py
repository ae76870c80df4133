"""`ltx2tui lora info` on a file that a run exported, and on files that are none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ltx2core.models.nano import nano_checkpoint
from ltx2tui import cli

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from engine_fixtures import MakeConfig, OpenRun


def test_a_run_s_lora_says_what_it_was_trained_on(make_config: MakeConfig, open_run: OpenRun, capsys: pytest.CaptureFixture[str]) -> None:
    session = open_run(make_config(max_train_steps=1, lora_alpha=8, seed=3, dataset={"instance_prompt": "a square"}))
    assert session.run() == "finished"
    file = session.folder.lora
    assert cli.main(["lora", "info", str(file)]) == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert said["file"].startswith(str(file))
    assert said["rank"].startswith("4, ")
    assert said["sound"] == "trained too"
    assert "attn1.to_q" in said["layers"]

    assert cli.main(["lora", "info", str(file), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["path"], info["rank"], info["dtype"], info["has_audio"]) == (str(file), 4, "BF16", True)
    assert info["file_bytes"] == file.stat().st_size
    assert info["tensors"] % 2 == 0
    assert {"attn1.to_q", "audio_attn1.to_q", "attn2.to_out.0"} <= set(info["targets"])
    metadata = info["metadata"]
    assert (metadata["steps"], metadata["seed"], metadata["trained_alpha"], metadata["trigger"]) == ("1", "3", "8", "a square")
    assert json.loads(metadata["buckets"]) == ["64x64@9"]
    assert metadata["base_model"] == nano_checkpoint().name


def test_a_file_that_is_no_lora_is_refused_with_what_would_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.safetensors").write_text("hello")
    for file, said in (
        (tmp_path / "none.safetensors", "does not exist"),
        (tmp_path / "text.safetensors", "is not a safetensors file"),
        (nano_checkpoint(), "holds no LoRA"),
    ):
        assert cli.main(["lora", "info", str(file), "--json"]) == 1
        told = capsys.readouterr()
        assert told.out == ""
        assert said in told.err
        assert len(told.err.splitlines()) == 2
