"""`ltx2tui lora verify` and `lora convert` on a file that a run exported, and on files that do not fit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.nano import nano_checkpoint
from ltx2tui import cli

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from engine_fixtures import MakeConfig, OpenRun


def test_a_run_s_lora_is_verified_converted_and_verified_again(
    make_config: MakeConfig, open_run: OpenRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = open_run(make_config(max_train_steps=2, lora_alpha=8))
    assert session.run() == "finished", session.failure
    file = session.folder.lora
    assert cli.main(["lora", "verify", str(file), "--base", "nano", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["usable"]
    assert report["problems"] == []
    assert not [text for text in report["warnings"] if "hash" in text or "alpha" in text]
    assert report["kinds"]["attn1.to_q"]["delta_norm"] > 0
    assert load_metadata(file)["base_model_hash"] == open_checkpoint(nano_checkpoint()).fingerprint("transformer")
    for layout in ("diffusers", "kohya"):
        out = tmp_path / f"{layout}.safetensors"
        assert cli.main(["lora", "convert", str(file), "--to", layout, "--out", str(out)]) == 0
        assert cli.main(["lora", "info", str(out), "--json"]) == 0
        assert cli.main(["lora", "verify", str(out), "--base", "nano"]) == 0
        assert capsys.readouterr().out.rstrip().endswith("It fits.")
        back = tmp_path / "back.safetensors"
        assert cli.main(["lora", "convert", str(out), "--to", "comfyui", "--out", str(back)]) == 0
        first, again = load_file(file), load_file(back)
        assert first.keys() == again.keys()
        assert all(torch.equal(first[key], again[key]) for key in first)
        capsys.readouterr()


def test_what_does_not_fit_is_named_and_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wan = tmp_path / "wan.safetensors"
    name = "diffusion_model.blocks.0.self_attn.q"
    save_file({f"{name}.lora_A.weight": torch.zeros(4, 8), f"{name}.lora_B.weight": torch.zeros(8, 4)}, wan)
    assert cli.main(["lora", "convert", str(wan), "--to", "official", "--out", str(tmp_path / "x.safetensors")]) == 1
    assert f"another architecture: LTX-2 has no layer for {name}.lora_A.weight" in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()
    assert cli.main(["lora", "info", str(wan)]) == 0
    assert "not LTX-2" in capsys.readouterr().out
    odd = tmp_path / "odd.safetensors"
    place = "diffusion_model.transformer_blocks.{}.attn1.to_q"
    tensors = {}
    for block in (0, 99):
        tensors[f"{place.format(block)}.lora_A.weight"] = torch.full((4, 7), float("nan"))
        tensors[f"{place.format(block)}.lora_B.weight"] = torch.zeros(8, 4)
        tensors[f"{place.format(block)}.alpha"] = torch.tensor(8.0)
    save_file(tensors, odd)
    assert cli.main(["lora", "verify", str(odd), "--base", "nano"]) == 1
    said = capsys.readouterr().out
    for words in (
        "NaN",
        "has no layer for 1 of 2",
        "changes a weight of [8, 7]",
        "every B matrix is zero",
        "stores an alpha",
        "does not say",
    ):
        assert words in said, words


def load_metadata(path: Path) -> dict[str, str]:
    from ltx2core.caching.tensors import read_metadata

    return read_metadata(path) or {}
