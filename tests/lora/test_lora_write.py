"""The written file: official names, alpha folded in, compared with the adapter in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from lora_fixtures import tiny_transformer, trained_adapter
from safetensors.torch import load_file

import ltx2core.lora.write as write_module
from ltx2core.caching.tensors import write_tensors
from ltx2core.errors import CheckpointError, StorageError
from ltx2core.lora.keys import official_key
from ltx2core.lora.read import read_lora
from ltx2core.lora.write import pairs_of
from ltx2core.training.adapter import AdapterSettings, add_adapter, module_names
from ltx2core.training.export import ExportSettings, average_path, export_lora

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

RANK, ALPHA = 4, 10.0


def _export(path: Path, parameters: dict[str, nn.Parameter], **settings) -> dict[str, torch.Tensor]:
    export_lora(
        path, parameters, ExportSettings(**{"adapter": AdapterSettings(rank=RANK, alpha=ALPHA), **settings}), metadata={"steps": "7"}
    )
    return load_file(path)


def test_a_reader_that_knows_no_alpha_gets_the_delta_that_was_trained(tmp_path: Path) -> None:
    model = tiny_transformer()
    parameters = trained_adapter(model, rank=RANK, alpha=ALPHA, targets=("to_q", "ff.net.2", "proj_in", "time_embed.linear"))
    for dtype, tolerance in ((torch.bfloat16, 0.006), (torch.float32, 1e-6)):  # bf16 keeps 8 bits: two factors, 2^-9 each, relative
        tensors = _export(tmp_path / "lora.safetensors", parameters, dtype=dtype)
        for layer in module_names(parameters):
            module = model.get_submodule(layer)
            trained = module.get_delta_weight("default").detach()
            plain = tensors[official_key(f"{layer}.lora_B.weight")].float() @ tensors[official_key(f"{layer}.lora_A.weight")].float()
            assert float((plain - trained).norm() / trained.norm()) < tolerance, layer
            torch.testing.assert_close(
                trained, (module.lora_B["default"].weight @ module.lora_A["default"].weight).detach() * (ALPHA / RANK)
            )


def test_keys_are_the_official_ones_and_nothing_but_the_two_matrices_is_written(tmp_path: Path) -> None:
    parameters = trained_adapter(tiny_transformer(), targets=("attn1.to_q", "proj_in", "audio_proj_in"))
    tensors = _export(tmp_path / "lora.safetensors", parameters)
    assert {key.removesuffix(".lora_A.weight").removesuffix(".lora_B.weight") for key in tensors} == {
        "diffusion_model.transformer_blocks.0.attn1.to_q",
        "diffusion_model.transformer_blocks.1.attn1.to_q",
        "diffusion_model.patchify_proj",
        "diffusion_model.audio_patchify_proj",
    }
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


def test_the_header_tells_a_reader_that_scales_to_scale_by_one(tmp_path: Path) -> None:
    _export(tmp_path / "lora.safetensors", trained_adapter(tiny_transformer()))
    metadata = read_lora(tmp_path / "lora.safetensors").metadata
    assert metadata["alpha"] == metadata["rank"] == "4"
    assert metadata["trained_alpha"] == "10"
    assert metadata["steps"] == "7"


def test_a_video_only_adapter_exports_no_audio_key(tmp_path: Path) -> None:
    parameters = add_adapter(tiny_transformer(), AdapterSettings(rank=RANK, alpha=ALPHA), audio=False, seed=0)
    assert not [key for key in _export(tmp_path / "lora.safetensors", parameters) if "audio" in key or "av_ca" in key]


@pytest.mark.parametrize("damage", ["value", "missing", "scaled", "renamed", "swapped"])
def test_a_file_that_is_not_the_adapter_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    """The comparison is with the adapter, through the reader: a mistake in names or in the fold would be found as well."""

    def damaged(path: Path, tensors: dict[str, torch.Tensor], *, metadata: dict[str, str]) -> None:
        tensors = dict(tensors)
        first, second = sorted(key for key in tensors if key.endswith("lora_B.weight"))[:2]
        if damage == "value":
            tensors[first].view(-1)[5] *= 1.02
        elif damage == "missing":
            del tensors[first]
        elif damage == "scaled":
            tensors = {key: tensor * 0.4 if "lora_B" in key else tensor for key, tensor in tensors.items()}
        elif damage == "renamed":
            tensors = {key.replace("attn1", "attn2"): tensor for key, tensor in tensors.items()}
        else:
            tensors[first], tensors[second] = tensors[second], tensors[first]
        write_tensors(path, tensors, metadata=metadata)

    monkeypatch.setattr(write_module, "write_tensors", damaged)
    with pytest.raises(StorageError, match="does not read back"):
        _export(tmp_path / "lora.safetensors", trained_adapter(tiny_transformer(), targets=("attn1.to_q",)))


def test_an_adapter_with_a_nan_is_refused_by_its_layer(tmp_path: Path) -> None:
    parameters = trained_adapter(tiny_transformer())
    with torch.no_grad():
        parameters["transformer_blocks.1.attn2.to_v.lora_B.weight"][0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=r"transformer_blocks\.1\.attn2\.to_v"):
        _export(tmp_path / "lora.safetensors", parameters)
    assert not (tmp_path / "lora.safetensors").exists()


def test_very_small_numbers_pass_the_comparison(tmp_path: Path) -> None:
    parameters = trained_adapter(tiny_transformer(), targets=("attn1.to_q",))
    with torch.no_grad():
        for exponent, parameter in zip((-20, -38, -40, -45), parameters.values(), strict=False):
            parameter.mul_(10.0**exponent)
    for dtype in (torch.bfloat16, torch.float32):
        _export(tmp_path / "lora.safetensors", parameters, dtype=dtype)
        assert list(read_lora(tmp_path / "lora.safetensors").pairs) == module_names(parameters)


def test_the_average_lies_beside_the_lora(tmp_path: Path) -> None:
    assert average_path(tmp_path / "a.b.safetensors") == tmp_path / "a.b-ema.safetensors"


def test_pairs_are_the_adapter_s_layers() -> None:
    parameters = trained_adapter(tiny_transformer())
    pairs = pairs_of(parameters, scale=2.5)
    assert list(pairs) == module_names(parameters)
    assert {pair.scale for pair in pairs.values()} == {2.5}


def test_a_checkout_that_is_not_installed_writes_a_header_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    from ltx2core.training import export

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    assert export._version() == metadata.version("ltx2tui")
    monkeypatch.setattr(metadata, "version", missing)
    assert export._version() == "from source"
