"""The LoRA file: official names, alpha folded in, and diffusers loads it to the same delta."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from ltx2core.errors import CheckpointError
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.components import load_transformer
from ltx2core.models.nano import nano_checkpoint
from ltx2core.training.adapter import AdapterSettings, add_adapter, module_names
from ltx2core.training.export import export_lora, lora_info, official_key, training_metadata

if TYPE_CHECKING:
    from pathlib import Path

RANK, ALPHA = 4, 10.0


def _trained(*, audio: bool = True, targets: tuple[str, ...] | None = None):
    """A transformer with an adapter whose values are far from its start."""
    model = load_transformer(open_checkpoint(nano_checkpoint()), dtype=torch.float32, audio=audio)
    parameters = add_adapter(model, AdapterSettings(rank=RANK, alpha=ALPHA, targets=targets), audio=audio, seed=0)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.copy_(torch.randn_like(parameter))
    return model, parameters


@pytest.mark.parametrize("targets", [None, ("attn1.to_q", "ff.net.2", "proj_in", "time_embed.linear", "audio_proj_in")])
def test_diffusers_loads_the_file_to_the_delta_that_was_trained(tmp_path: Path, targets: tuple[str, ...] | None) -> None:
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_ltx2_lora_to_diffusers

    model, parameters = _trained(targets=targets)
    export_lora(tmp_path / "lora.safetensors", parameters, rank=RANK, alpha=ALPHA, metadata={})
    fresh = load_transformer(open_checkpoint(nano_checkpoint()), dtype=torch.float32)
    fresh.load_lora_adapter(_convert_non_diffusers_ltx2_lora_to_diffusers(load_file(tmp_path / "lora.safetensors")), adapter_name="x")
    for name in module_names(parameters):
        ours, theirs = model.get_submodule(name), fresh.get_submodule(name)
        trained = ours.lora_B["default"].weight @ ours.lora_A["default"].weight * (ALPHA / RANK)
        assert theirs.scaling["x"] == 1.0
        loaded = theirs.lora_B["x"].weight.float() @ theirs.lora_A["x"].weight.float()
        error = (loaded - trained).norm() / trained.norm()
        assert error < 0.006  # bf16 keeps 8 bits: two factors, 2^-9 each, relative


def test_keys_are_the_official_ones(tmp_path: Path) -> None:
    _, parameters = _trained()
    export_lora(tmp_path / "lora.safetensors", parameters, rank=RANK, alpha=ALPHA, metadata={})
    tensors = load_file(tmp_path / "lora.safetensors")
    assert "diffusion_model.transformer_blocks.0.attn1.to_q.lora_A.weight" in tensors
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert not [key for key in tensors if "alpha" in key or "default" in key or "base_layer" in key]
    assert official_key("proj_in.lora_A.weight") == "diffusion_model.patchify_proj.lora_A.weight"
    assert official_key("audio_proj_in.lora_B.weight") == "diffusion_model.audio_patchify_proj.lora_B.weight"
    assert official_key("time_embed.linear.lora_A.weight") == "diffusion_model.adaln_single.linear.lora_A.weight"


def test_a_video_only_adapter_exports_no_audio_key(tmp_path: Path) -> None:
    _, parameters = _trained(audio=False)
    export_lora(tmp_path / "lora.safetensors", parameters, rank=RANK, alpha=ALPHA, metadata={})
    assert not [key for key in load_file(tmp_path / "lora.safetensors") if "audio" in key]
    assert not lora_info(tmp_path / "lora.safetensors").has_audio


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    _, parameters = _trained()
    metadata = training_metadata(
        base_model="nano.safetensors",
        base_version="2.0.0",
        targets=["attn1.to_q"],
        buckets=["64x64@9"],
        rates=[24.0, 25.0],
        trigger="xyz",
        steps=7,
        seed=1,
    )
    export_lora(tmp_path / "lora.safetensors", parameters, rank=RANK, alpha=ALPHA, metadata=metadata)
    info = lora_info(tmp_path / "lora.safetensors")
    assert (info.rank, info.dtype, info.tensors, info.has_audio) == (RANK, "BF16", len(parameters), True)
    assert "attn1.to_q" in info.targets
    assert info.metadata["trained_alpha"] == "10"
    assert info.metadata["alpha"] == info.metadata["rank"]  # alpha / rank is in B already: a reader that scales must scale by one
    assert info.metadata["trigger"] == "xyz"
    assert info.metadata["frame_rate"] == "24, 25"
    assert info.metadata["steps"] == "7"


def test_what_is_no_lora_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("hello")
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="does not exist"):
        lora_info(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="not a readable"):
        lora_info(tmp_path / "text.safetensors")
    with pytest.raises(CheckpointError, match="holds no LoRA"):
        lora_info(tmp_path / "model.safetensors")
