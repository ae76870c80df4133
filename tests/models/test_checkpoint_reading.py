from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ltx2core.errors import CheckpointError
from ltx2core.models import components
from ltx2core.models.checkpoint import find_checkpoint, open_checkpoint
from ltx2core.models.names import COMPONENTS, component_of, to_diffusers, to_official
from ltx2core.models.text import load_text_encoder, text_encoder_fingerprint
from ltx2core.validation.sampling import inference_sigmas

TINY = Path(__file__).parent.parent / "data" / "reference" / "ltx-2.0-tiny.safetensors"


def rewritten(path: Path, *, drop: str | None = None, version: str = "2.0.0", change: str | None = None) -> Path:
    """The tiny checkpoint with a change, at `path`."""
    tensors = {key: value for key, value in load_file(TINY).items() if key != drop}
    if change:
        tensors[change] = tensors[change] + 1
    save_file(tensors, path, metadata={"config": json.dumps(open_checkpoint(TINY).config), "model_version": version})
    return path


@pytest.mark.parametrize("version", ["2.0", "2.3", "2.5"])
def test_every_official_name_survives_the_way_there_and_back(version: str) -> None:
    checkpoint = open_checkpoint(TINY.with_name(f"ltx-{version}-tiny.safetensors"))
    blocks = len(checkpoint.config["vae"]["encoder_blocks"])
    for component in COMPONENTS:
        for key in checkpoint.keys(component):
            name = to_diffusers(key, component, num_encoder_blocks=blocks)
            assert name is None or to_official(name, component, num_encoder_blocks=blocks) == key


@pytest.mark.parametrize("version", ["2.0", "2.3", "2.5"])
def test_a_version_that_the_header_does_not_tell_is_told_by_the_tensors(version: str) -> None:
    checkpoint = open_checkpoint(TINY.with_name(f"ltx-{version}-tiny.safetensors"))
    assert checkpoint.version == f"{version}.0"
    assert replace(checkpoint, metadata={}).version == f"{version}.0"


def test_every_tensor_belongs_to_one_component() -> None:
    checkpoint = open_checkpoint(TINY)
    assert sum(len(checkpoint.keys(component)) for component in COMPONENTS) == len(checkpoint.entries)
    assert component_of("duration_head.mlp_out.bias") is None


@pytest.mark.parametrize("content", [b"", b"hello, I am a text file", struct.pack("<Q", 1 << 60), struct.pack("<Q", 10) + b"not json!!"])
def test_a_file_of_another_kind_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert "\n" not in caught.value.text
    assert str(path) in caught.value.text
    assert caught.value.fix


def test_a_file_cut_short_says_by_how_much(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(TINY.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="cut short"):
        open_checkpoint(path)


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    key = "model.diffusion_model.transformer_blocks.1.attn1.to_q.weight"
    checkpoint = open_checkpoint(rewritten(tmp_path / "m.safetensors", drop=key))
    with pytest.raises(CheckpointError, match=r"transformer_blocks\.1\.attn1\.to_q\.weight"):
        components.load_transformer(checkpoint, dtype=torch.float32)


def test_a_plain_lora_and_another_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    save_file({"diffusion_model.transformer_blocks.0.attn1.to_q.lora_A.weight": torch.zeros(4, 4)}, path)
    with pytest.raises(CheckpointError, match="not a combined LTX-2 checkpoint"):
        open_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"3\.0\.0"):
        open_checkpoint(rewritten(tmp_path / "new.safetensors", version="3.0.0"))


def test_a_fingerprint_follows_its_component_alone(tmp_path: Path) -> None:
    before = open_checkpoint(TINY)
    after = open_checkpoint(rewritten(tmp_path / "m.safetensors", change="vae.encoder.conv_in.conv.weight"))
    assert before.fingerprint("video_vae") != after.fingerprint("video_vae")
    assert before.fingerprint("transformer") == after.fingerprint("transformer")


def test_a_folder_is_searched_for_the_file_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "other.safetensors").write_bytes(TINY.read_bytes())
    assert find_checkpoint(".", filename="other.safetensors", base=tmp_path).name == "other.safetensors"
    with pytest.raises(CheckpointError, match=r"ltx-2-19b-dev\.safetensors") as caught:
        find_checkpoint(str(tmp_path), filename=None, base=tmp_path)
    assert "other.safetensors" in caught.value.fix
    with pytest.raises(CheckpointError, match="no file or folder"):
        find_checkpoint("Lightricks/LTX-2", filename=None, base=tmp_path)


def test_a_hub_name_means_the_file_that_was_downloaded_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--Lightricks--LTX-2"
    file = repository / "snapshots" / "abc" / "ltx-2-19b-dev.safetensors"
    file.parent.mkdir(parents=True)
    file.touch()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    assert find_checkpoint("Lightricks/LTX-2", filename=None, base=tmp_path / "elsewhere") == file
    for name in ("Lightricks/LTX-3", "no such/name/at all", ""):
        with pytest.raises(CheckpointError):
            find_checkpoint(name, filename=None, base=tmp_path / "elsewhere")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model"])
def test_a_text_encoder_s_fingerprint_follows_its_tokenizer_and_the_length_that_it_allows(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gemma3_text"}')
    before = text_encoder_fingerprint(tmp_path)
    (tmp_path / name).write_text('{"model_max_length": 256}')
    assert text_encoder_fingerprint(tmp_path) != before


def test_a_folder_without_a_text_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="text encoder"):
        load_text_encoder(tmp_path, dtype=torch.float32)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="llama"):
        load_text_encoder(tmp_path, dtype=torch.float32)


@pytest.mark.parametrize("steps", [1, 2, 8, 30])
def test_noise_levels_are_those_of_diffusers_scheduler_with_the_official_settings(steps: int) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    found = inference_sigmas(steps)
    assert found[0] == 1
    assert found[-1] == 0
    if steps == 1:
        return
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.1, time_shift_type="exponential")
    scheduler.set_timesteps(sigmas=[1 - index / steps for index in range(steps)], mu=2.05)
    assert found == pytest.approx(scheduler.sigmas.tolist(), abs=1e-6)
