from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ltx2core.errors import CheckpointError
from ltx2core.models import components
from ltx2core.models.checkpoint import Checkpoint, open_checkpoint
from ltx2core.models.fp8 import dequantise

TINY = Path(__file__).parent.parent / "data" / "reference" / "ltx-2.0-tiny.safetensors"
WEIGHT = "model.diffusion_model.transformer_blocks.1.attn1.to_q.weight"
LAYER = WEIGHT.removesuffix(".weight")


def changed(path: Path, *, drop: str = "", **tensors: torch.Tensor) -> Path:
    """The tiny checkpoint with other tensors for to_q of block 1: weight, weight_scale, …"""
    found = {key: value for key, value in load_file(TINY).items() if key != drop}
    found |= {f"{LAYER}.{name}": value.contiguous() for name, value in tensors.items()}
    save_file(found, path, metadata={"config": json.dumps(open_checkpoint(TINY).config), "model_version": "2.0.0"})
    return path


def weight_of(checkpoint: Checkpoint) -> torch.Tensor:
    name = "transformer_blocks.1.attn1.to_q.weight"
    return dict(checkpoint.tensors("transformer", wanted=lambda found: found == name))[name]


def quantised(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (weight.float() / scale).to(torch.float8_e4m3fn)


@pytest.mark.parametrize("names", [("weight_scale", "input_scale"), ("scale_weight", "scale_input")])
@pytest.mark.parametrize("shape", ["()", "(1,)", "(rows,)", "(rows, 1)"])
def test_fp8_weights_are_multiplied_by_their_scales(tmp_path: Path, shape: str, names: tuple[str, str]) -> None:
    original = load_file(TINY)[WEIGHT]
    largest = original.float().abs().amax(1, keepdim=True) if "rows" in shape else original.float().abs().max()
    scale = largest / torch.finfo(torch.float8_e4m3fn).max
    small = quantised(original, scale)
    stored = scale.reshape(eval(shape, {"rows": len(original)}))
    path = changed(tmp_path / "m.safetensors", weight=small, **{names[0]: stored, names[1]: torch.tensor(0.5)})
    checkpoint = open_checkpoint(path)
    found = weight_of(checkpoint)
    assert found.dtype == torch.float32
    assert torch.equal(found, small.float() * scale)
    assert (found - original.float()).abs().max() <= original.float().abs().max() / 16  # half a step of 3 mantissa bits, doubled
    assert set(checkpoint.keys("transformer")) == set(open_checkpoint(TINY).keys("transformer"))  # scales are no tensors of the model


def test_a_transformer_is_built_from_an_fp8_file(tmp_path: Path) -> None:
    original = load_file(TINY)[WEIGHT]
    scale = original.float().abs().max() / 448
    path = changed(tmp_path / "m.safetensors", weight=quantised(original, scale), weight_scale=scale, input_scale=torch.tensor(1.0))
    model = components.load_transformer(open_checkpoint(path), dtype=torch.bfloat16)
    found = model.transformer_blocks[1].attn1.to_q.weight
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, (quantised(original, scale).float() * scale).bfloat16())


def test_fp8_without_a_scale_is_a_plain_cast(tmp_path: Path) -> None:
    small = load_file(TINY)[WEIGHT].to(torch.float8_e5m2)
    assert torch.equal(weight_of(open_checkpoint(changed(tmp_path / "m.safetensors", weight=small))), small.float())


def test_another_scale_is_another_fingerprint(tmp_path: Path) -> None:
    small = load_file(TINY)[WEIGHT].to(torch.float8_e4m3fn)
    one, two = (
        open_checkpoint(changed(tmp_path / f"{scale}.safetensors", weight=small, weight_scale=torch.tensor(scale))).fingerprint(
            "transformer"
        )
        for scale in (1.0, 2.0)
    )
    assert one != two


@pytest.mark.parametrize(
    ("tensors", "what"),
    [
        # nvfp4: two numbers a byte, an fp8 scale for 16 of them, a second scale for all
        (
            {
                "weight": torch.zeros(64, 32, dtype=torch.uint8),
                "weight_scale": torch.zeros(64, 4, dtype=torch.float8_e4m3fn),
                "weight_scale_2": torch.ones(()),
            },
            "4-bit",
        ),
        ({"weight": torch.zeros(64, 64, dtype=torch.int8), "weight_scale": torch.ones(64)}, "int8"),
        ({"weight": torch.zeros(64, 64, dtype=torch.float8_e4m3fn), "weight_scale": torch.ones(2, 2)}, "scales for blocks"),
    ],
)
def test_weights_that_cannot_be_trained_on_are_refused_in_one_line(tmp_path: Path, tensors: dict[str, torch.Tensor], what: str) -> None:
    path = changed(tmp_path / "ltx-2-19b-dev-fp4.safetensors", **tensors)
    with pytest.raises(CheckpointError, match=what) as caught:
        open_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert "bf16" in caught.value.fix


def test_a_scale_that_fits_no_weight_is_an_error() -> None:
    with pytest.raises(ValueError, match="scale of"):
        dequantise(torch.zeros(4, 4).to(torch.float8_e4m3fn), torch.ones(3))
