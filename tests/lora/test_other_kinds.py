"""DoRA and LoKr: from nothing at first, and files that give the trained weights by the formulas of those who read them.

The readers' formulas are written out here (ComfyUI's weight_decompose and LoKr, PEFT's DoRA); float32, 1e-5 of the answer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import torch
from lora_fixtures import answer_of, tiny_transformer
from safetensors.torch import load_file

from ltx2core.config.lycoris import LokrSettings, read_lycoris
from ltx2core.errors import CheckpointError, ConfigError
from ltx2core.lora.read import read_lora
from ltx2core.training.adapter import AdapterSettings, add_adapter, layer_of, module_names
from ltx2core.training.export import ExportSettings, export_lora

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from ltx2core.lora.write import Written

KINDS = {
    "dora": AdapterSettings(rank=4, alpha=10.0, dora=True),
    "lokr": AdapterSettings(lokr=LokrSettings(rank=2, alpha=3.0, factor=4)),
    "lokr both": AdapterSettings(lokr=LokrSettings(rank=1, alpha=3.0, factor=4, decompose_both=True)),
    "lokr whole": AdapterSettings(lokr=LokrSettings(factor=4)),
}


def _trained(transformer: nn.Module, settings: AdapterSettings) -> dict[str, nn.Parameter]:
    parameters = add_adapter(transformer, settings, audio=True, seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in parameters.items():
            noise = torch.randn_like(parameter) / 4
            parameter.copy_(parameter * (1 + noise) if "magnitude" in name else parameter + noise)
    return parameters


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_start_the_model_is_the_base_and_the_seed_decides_the_rest(kind: str) -> None:
    base, other = tiny_transformer(), tiny_transformer()
    expected = answer_of(base)
    parameters = add_adapter(base, KINDS[kind], audio=True, seed=3)
    torch.testing.assert_close(answer_of(base), expected, rtol=1e-5, atol=1e-5)
    again = add_adapter(other, KINDS[kind], audio=True, seed=3)
    assert all(torch.equal(value, again[name]) for name, value in parameters.items())
    assert {layer_of(name) for name in parameters} == set(module_names(parameters))


def _comfyui(weight: Tensor, tensors: dict[str, Tensor], stem: str) -> Tensor:
    """What ComfyUI makes of a weight."""
    if f"{stem}.dora_scale" in tensors:
        moved = weight + tensors[f"{stem}.lora_B.weight"] @ tensors[f"{stem}.lora_A.weight"]
        return moved * (tensors[f"{stem}.dora_scale"] / (weight.norm(dim=1, keepdim=True) + torch.finfo(torch.float32).eps))
    part = {name: tensors.get(f"{stem}.lokr_{name}") for name in ("w1", "w2", "w1_a", "w1_b", "w2_a", "w2_b")}
    rank = next((part[name].shape[0] for name in ("w1_b", "w2_b") if part[name] is not None), None)  # type: ignore[union-attr]
    alpha = tensors.get(f"{stem}.alpha")
    scale = float(alpha) / rank if alpha is not None and rank is not None else 1.0
    first = part["w1"] if part["w1"] is not None else part["w1_a"] @ part["w1_b"]  # type: ignore[operator]
    second = part["w2"] if part["w2"] is not None else part["w2_a"] @ part["w2_b"]  # type: ignore[operator]
    return weight + scale * torch.kron(first, second).reshape(weight.shape)


@pytest.mark.parametrize("kind", KINDS)
def test_comfyui_s_formula_on_the_file_gives_what_was_trained(kind: str, tmp_path: Path) -> None:
    trained, plain = tiny_transformer(), tiny_transformer()
    parameters = _trained(trained, KINDS[kind])
    path = tmp_path / "other.safetensors"
    export_lora(path, parameters, ExportSettings(adapter=KINDS[kind], dtype=torch.float32), metadata={"steps": "1"}, transformer=trained)
    tensors = load_file(path)
    assert {key.split(".")[0] for key in tensors} == {"diffusion_model"}
    before = answer_of(plain)
    with torch.no_grad():
        for layer in module_names(parameters):
            weight = plain.get_submodule(layer).weight
            weight.copy_(_comfyui(weight, tensors, f"diffusion_model.{layer}"))
    assert float((answer_of(trained) - before).abs().max()) > 0.01
    torch.testing.assert_close(answer_of(plain), answer_of(trained), rtol=1e-4, atol=1e-5)
    used = {key for key in tensors if not key.endswith(".alpha")}
    stems = "|".join(re.escape(f"diffusion_model.{layer}") for layer in module_names(parameters))
    assert all(re.match(rf"({stems})\.", key) for key in used)


def test_a_dora_for_diffusers_holds_the_lengths_themselves(tmp_path: Path) -> None:
    trained = tiny_transformer()
    parameters = _trained(trained, KINDS["dora"])
    layout: Written = "diffusers"
    settings = ExportSettings(adapter=KINDS["dora"], layout=layout, dtype=torch.float32)
    export_lora(tmp_path / "dora.safetensors", parameters, settings, metadata={}, transformer=trained)
    tensors = load_file(tmp_path / "dora.safetensors")
    layer = "transformer_blocks.0.attn1.to_q"
    assert torch.equal(tensors[f"transformer.{layer}.lora_magnitude_vector"], parameters[f"{layer}.lora_magnitude_vector.weight"])


def test_our_own_readers_name_what_such_a_file_is(tmp_path: Path) -> None:
    trained = tiny_transformer()
    path = tmp_path / "lokr.safetensors"
    export_lora(path, _trained(trained, KINDS["lokr"]), ExportSettings(adapter=KINDS["lokr"]), metadata={}, transformer=trained)
    with pytest.raises(CheckpointError, match="LyCORIS"):
        read_lora(path)


def test_settings_of_lycoris_are_read_and_what_is_not_built_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lycoris.json"
    preset = '"apply_preset": {"target_module": ["Attention", "FeedForward"]}'
    path.write_text(f'{{"algo": "lokr", "linear_dim": 8, "linear_alpha": 4, "factor": -1, {preset}}}')
    assert read_lycoris(path) == LokrSettings(rank=8, alpha=4.0, factor=-1, feed_forward=True)
    path.write_text('{"algo": "loha", "factor": true, "bypass_mode": true, "apply_preset": {"module_algo_map": {}}}')
    with pytest.raises(ConfigError) as error:
        read_lycoris(path)
    assert [word in " ".join(error.value.problems) for word in ("loha", "factor", "bypass_mode", "module_algo_map")] == [True] * 4
