"""diffusers' LTX2Pipeline loads both layouts of the file, and its transformer then answers as the one with our adapter does.

float32 on a CPU, the file in float32: tolerance 1e-5 of the largest value, for B times alpha / rank is rounded once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LTX2Pipeline
from lora_fixtures import VERSIONS, answer_of, linear_layers, tiny_transformer, trained_adapter

from ltx2core.lora.convert import convert_lora
from ltx2core.training.adapter import AdapterSettings
from ltx2core.training.export import ExportSettings, export_lora

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import LTX2VideoTransformer3DModel


def _loaded_by_diffusers(transformer: LTX2VideoTransformer3DModel, path: Path) -> LTX2VideoTransformer3DModel:
    pipeline = LTX2Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=None,
        audio_vae=None,
        text_encoder=None,
        tokenizer=None,
        connectors=None,
        vocoder=None,
    )
    pipeline.load_lora_weights(str(path), adapter_name="x")
    return pipeline.transformer


def _assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize("layout", ["official", "diffusers"])
@pytest.mark.parametrize("version", VERSIONS)
def test_diffusers_pipeline_answers_with_the_file_as_we_do_with_the_adapter(tmp_path: Path, version: str, layout) -> None:
    ours = tiny_transformer(version)
    base = answer_of(ours)
    parameters = trained_adapter(ours, rank=4, alpha=10.0, targets=tuple(linear_layers(ours)))  # layers outside the blocks as well
    path = tmp_path / "lora.safetensors"
    export_lora(
        path,
        parameters,
        ExportSettings(adapter=AdapterSettings(rank=4, alpha=10.0), layout=layout, dtype=torch.float32),
        metadata={"trigger": "x"},
    )
    expected = answer_of(ours)
    assert float((expected - base).abs().max() / expected.abs().max()) > 0.05  # the LoRA is there
    _assert_same(answer_of(_loaded_by_diffusers(tiny_transformer(version), path)), expected)


@pytest.mark.parametrize("layout", ["official", "diffusers", "kohya"])
def test_a_converted_file_does_what_the_first_did(tmp_path: Path, layout) -> None:
    ours = tiny_transformer("2.3")
    parameters = trained_adapter(ours, targets=tuple(linear_layers(ours)))
    export_lora(
        tmp_path / "a.safetensors",
        parameters,
        ExportSettings(adapter=AdapterSettings(rank=4, alpha=10.0), dtype=torch.float32),
        metadata={},
    )
    convert_lora(tmp_path / "a.safetensors", tmp_path / "b.safetensors", layout=layout)
    convert_lora(tmp_path / "b.safetensors", tmp_path / "c.safetensors", layout="official")
    _assert_same(answer_of(_loaded_by_diffusers(tiny_transformer("2.3"), tmp_path / "c.safetensors")), answer_of(ours))
