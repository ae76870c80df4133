"""What could not be trained after hours of caching is refused before the first clip is encoded, in one clear line."""

from __future__ import annotations

import dataclasses
import json
import shutil
import struct
from typing import TYPE_CHECKING, Any

import pytest
import torch
from engine_fixtures import MakeConfig, events_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ltx2core.caching import room as disk
from ltx2core.hardware import limits, probe
from ltx2core.hardware.machine import Gpu
from ltx2core.models import room, text
from ltx2core.models.nano import nano_checkpoint, nano_text_encoder
from ltx2core.runs.events import Notice, Progress
from ltx2core.training.session import TrainingSession

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ltx2core.config.load import LoadedConfig
    from ltx2core.runs.events import RunFailed

CARD: dict[str, Any] = {
    "index": 0,
    "name": "NVIDIA L4",
    "total_bytes": 24 << 30,
    "free_bytes": 24 << 30,
    "capability": (8, 9),
    "percent": 0,
    "temperature_celsius": 30,
    "power_watts": 20.0,
}


def _refused(loaded: LoadedConfig, root: Path) -> RunFailed:
    """How a run with nothing in its cache failed. Nothing was encoded, and no traceback is what it says."""
    session = TrainingSession(loaded, root=root, name="run", resume=False)
    assert session.run() == "failed"
    assert session.failure is not None
    assert not [event for event in events_of(session) if isinstance(event, Progress) and event.phase.startswith("cache_")]
    assert not list((root / "cache").glob("*/*/*.safetensors"))
    assert session.failure.fix
    assert "\n" not in session.failure.text
    return session.failure


def _model(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> str:
    """nano with other tensors, beside its text encoder."""
    tensors = load_file(nano_checkpoint())
    change(tensors)
    with safe_open(nano_checkpoint(), framework="np") as file:
        save_file(tensors, path, metadata=file.metadata())
    return str(path)


def _encoder() -> dict[str, object]:
    return {"pretrained_gemma_model_name_or_path": str(nano_text_encoder())}


def test_missing_tensors_are_named_up_to_five(make_config: MakeConfig, tmp_path: Path) -> None:
    lost = [f"model.diffusion_model.transformer_blocks.1.attn1.{name}.weight" for name in ("to_q", "to_k", "to_v", "q_norm", "k_norm")]
    lost += ["model.diffusion_model.transformer_blocks.1.attn2.to_q.weight"]

    def remove(tensors: dict[str, torch.Tensor]) -> None:
        for name in lost:
            del tensors[name]

    model = _model(tmp_path / "model.safetensors", remove)
    failure = _refused(make_config(pretrained_model_name_or_path=model, **_encoder()), tmp_path / "root")
    assert "lacks 6 tensors of the transformer: " in failure.text
    assert failure.text.count("transformer_blocks.1.") == 5


def test_a_tensor_of_another_size_is_named(make_config: MakeConfig, tmp_path: Path) -> None:
    def shrink(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.diffusion_model.transformer_blocks.0.attn1.to_q.weight"] = torch.zeros(3, 3)

    model = _model(tmp_path / "model.safetensors", shrink)
    failure = _refused(make_config(pretrained_model_name_or_path=model, **_encoder()), tmp_path / "root")
    assert "transformer_blocks.0.attn1.to_q.weight is [3, 3], not [160, 160]" in failure.text


def test_a_header_that_counts_blocks_in_words_is_refused_in_a_line(make_config: MakeConfig, tmp_path: Path) -> None:
    data = nano_checkpoint().read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    config = json.loads(header["__metadata__"]["config"])
    config["transformer"]["num_layers"] = "many"
    header["__metadata__"]["config"] = json.dumps(config)
    written = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(written)) + written + data[8 + length :])
    failure = _refused(make_config(pretrained_model_name_or_path=str(tmp_path / "model.safetensors"), **_encoder()), tmp_path / "root")
    assert "the transformer has 'many' blocks" in failure.text


def test_a_text_encoder_of_another_model_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = shutil.copytree(nano_text_encoder(), tmp_path / "gemma")
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] += 1
    (folder / "config.json").write_text(json.dumps(config))
    failure = _refused(make_config(pretrained_gemma_model_name_or_path=str(folder)), tmp_path / "root")
    assert "do not belong together" in failure.text
    (folder / "config.json").write_bytes((nano_text_encoder() / "config.json").read_bytes())
    (folder / "tokenizer.json").unlink()
    failure = _refused(make_config(pretrained_gemma_model_name_or_path=str(folder)), tmp_path / "other")
    assert "holds no tokenizer.json" in failure.text


def test_what_should_be_known_of_the_machine_is_said_before_anything_is_loaded(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = dataclasses.replace(probe.probe_machine(tmp_path), on_battery=True, gpus=(Gpu(**CARD),), software_problem=None)
    monkeypatch.setattr(probe, "probe_machine", lambda root: machine)
    session = TrainingSession(
        make_config(pretrained_gemma_model_name_or_path=str(tmp_path)), root=tmp_path / "root", name="run", resume=False
    )
    assert session.run() == "failed"
    kinds = [event.code if isinstance(event, Notice) else event.kind for event in events_of(session)]
    assert "on_battery" in kinds[: kinds.index("phase_started")]


def test_a_disk_without_room_for_the_cache_is_told_with_both_amounts(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10_000, "total": 20_000}))
    failure = _refused(make_config(), tmp_path / "root")
    assert f"at most 1.3 MB, and {tmp_path / 'root' / 'cache'} has 10 kB free" in failure.text
    assert "--root" in failure.fix


@pytest.mark.parametrize(("module", "what"), [(room, "transformer"), (text, "text encoder")])
def test_memory_without_room_is_told_with_both_amounts(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: object, what: str
) -> None:
    assert limits.available_memory() > 2**20
    monkeypatch.setattr(module, "available_memory", lambda: 2**20)
    failure = _refused(make_config(), tmp_path / "root")
    assert what in failure.text
    assert failure.text.count("GiB") == 2


def test_layers_that_the_model_does_not_have_are_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    failure = _refused(make_config(peft_lora_target_modules=["attn1.to_query"]), tmp_path / "root")
    assert "no linear layer of the transformer is called attn1.to_query" in failure.text


def test_a_lora_to_start_from_that_does_not_fit_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    def write(name: str, layer: str, size: int) -> str:
        key = f"diffusion_model.{layer}"
        save_file({f"{key}.lora_A.weight": torch.zeros(4, size), f"{key}.lora_B.weight": torch.zeros(size, 4)}, tmp_path / name)
        return str(tmp_path / name)

    of_sound = write("sound.safetensors", "transformer_blocks.0.audio_attn1.to_q", 64)
    silent = make_config(init_lora=of_sound, dataset={"audio": None})
    failure = _refused(silent, tmp_path / "a")
    assert "layers that are not trained here: transformer_blocks.0.audio_attn1.to_q" in failure.text
    assert "Train with sound" in failure.fix
    narrow = write("narrow.safetensors", "transformer_blocks.0.attn1.to_q", 9)
    failure = _refused(make_config(init_lora=narrow), tmp_path / "b")
    assert "changes a weight of [9, 9], the model's is [160, 160]" in failure.text
    other = write("wan.safetensors", "blocks.0.self_attn.q", 8)
    failure = _refused(make_config(init_lora=other), tmp_path / "c")
    assert "it is for another architecture" in failure.text
