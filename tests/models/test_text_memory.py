"""What the text path weighs at true size, by arithmetic on shapes, and what that decides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors

from ltx2core.errors import DoesNotFit
from ltx2core.models.int8 import use_int8
from ltx2core.models.text_memory import GIB, TextBytes, TextSettings, choose_placement, measure_text

GEMMA3_12B = {  # the text_config of google/gemma-3-12b-it
    "hidden_size": 3840,
    "intermediate_size": 15360,
    "model_type": "gemma3_text",
    "num_attention_heads": 16,
    "num_hidden_layers": 48,
    "num_key_value_heads": 8,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "sliding_window": 1024,
}
V2 = {
    "video_connector_num_attention_heads": 32,
    "video_connector_num_layers": 8,
    "video_gated_attn": True,
    "audio_connector_num_attention_heads": 32,
    "audio_connector_attention_head_dim": 64,
    "audio_connector_num_layers": 8,
    "audio_gated_attn": True,
    "per_modality_projections": True,
    "proj_bias": True,
}
CONNECTORS: dict[str, dict[str, Any]] = {"2.0": {}, "2.3": V2, "2.5": V2}


def true_size(version: str, *, int8: bool = False) -> TextBytes:
    """Gemma3-12B with the connectors of a version, in bf16 or int8. (2.5's Gemma4 has the same width and depth.)"""
    from transformers import Gemma3TextConfig, Gemma3TextModel

    with torch.device("meta"):
        model = Gemma3TextModel(Gemma3TextConfig.from_dict(GEMMA3_12B)).to(torch.bfloat16)
        if int8:
            use_int8(model.layers)
        connectors = LTX2TextConnectors(**CONNECTORS[version])
    shapes = {name: tuple(tensor.shape) for name, tensor in connectors.state_dict().items()}
    return measure_text(model, shapes, itemsize=2, tokens=1024)


def test_the_language_model_weighs_what_the_released_one_does() -> None:
    need = true_size("2.0")
    assert need.largest_layer == pytest.approx(2 * 224.1e6, rel=1e-3)
    assert need.layers + need.embedding == pytest.approx(2 * 11.766e9, rel=1e-3)
    assert need.states == 49 * 1024 * 3840 * 2 == 385_351_680
    assert need.connectors == pytest.approx(2 * 1.431e9, rel=1e-3)
    assert true_size("2.3").connectors == pytest.approx(2 * 3.172e9, rel=1e-3)


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("version", CONNECTORS)
def test_streamed_the_text_path_needs_less_than_4_gib_of_the_gpu(version: str, int8: bool) -> None:
    need = true_size(version, int8=int8)
    assert need.streamed_on_device < (3.5 if version != "2.0" else 3.2) * GIB
    assert need.streamed_on_device + GIB // 2 < 4 * GIB  # with the device's own context
    assert need.on_device > 14 * GIB


def test_eight_bits_halve_what_stays_in_ram() -> None:
    exact, rounded = true_size("2.3"), true_size("2.3", int8=True)
    assert exact.layers == pytest.approx(2 * rounded.layers, rel=1e-3)
    assert exact.on_host / GIB == pytest.approx(27.8, abs=0.1)
    assert rounded.on_host / GIB == pytest.approx(17.8, abs=0.1)


@pytest.mark.parametrize("version", CONNECTORS)
def test_a_cached_caption_takes_15_8_megabytes_at_most(version: str) -> None:
    with torch.device("meta"):
        connectors = LTX2TextConnectors(**CONNECTORS[version])
    width = [connector.learnable_registers.shape[1] for connector in (connectors.video_connector, connectors.audio_connector)]
    assert 1024 * sum(width) * 2 <= 15.8e6
    assert 1024 * sum(width) * 2 == {"2.0": 15_728_640, "2.3": 12_582_912, "2.5": 12_582_912}[version]


SMALL = TextBytes(
    layers=20 * GIB,
    largest_layer=GIB // 2,
    embedding=2 * GIB,
    connectors=3 * GIB,
    largest_connector=GIB,
    states=GIB // 4,
    activations=GIB // 8,
)


AS_IT_FITS = TextSettings()


def choose(settings: TextSettings = AS_IT_FITS, *, gpu: float | None, ram: float, need: TextBytes = SMALL) -> tuple[bool, str]:
    free = None if gpu is None else int(gpu * GIB)
    placement = choose_placement(need, settings=settings, free_device_bytes=free, free_host_bytes=int(ram * GIB))
    return placement.streamed, placement.because


def test_the_text_encoder_lies_on_the_gpu_where_it_fits_and_streams_where_it_does_not() -> None:
    assert choose(gpu=40, ram=8) == (False, "the text encoder is on the GPU as a whole: 26.4 GiB of 40.0 GiB free")
    streamed, because = choose(gpu=24, ram=32)
    assert streamed
    assert "streams layer by layer from RAM, 2.2 GiB on the GPU: as a whole it needs 26.4 GiB of 24.0 GiB free" in because
    assert choose(TextSettings(streamed=True), gpu=40, ram=32)[0]
    assert choose(gpu=None, ram=32) == (False, "the text encoder runs on the CPU")


def test_too_little_memory_is_said_with_the_amounts_and_what_would_help() -> None:
    with pytest.raises(DoesNotFit, match=r"need 25\.0 GiB of RAM; 16\.0 GiB are free") as caught:
        choose(gpu=8, ram=16)
    assert "int8" in caught.value.fix
    with pytest.raises(DoesNotFit, match=r"need 25\.0 GiB of RAM") as caught:
        choose(TextSettings(int8=True), gpu=None, ram=16)
    assert "int8" not in caught.value.fix
    with pytest.raises(DoesNotFit, match=r"needs 2\.8 GiB of GPU memory even layer by layer; 2\.0 GiB are free"):
        choose(gpu=2, ram=64)
    wide = replace(SMALL, layers=GIB)
    assert not choose(gpu=8, ram=0.5, need=wide)[0]  # RAM does not matter where the GPU holds it all
