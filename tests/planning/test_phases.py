"""What phases take follows the runs that were measured (docs/BENCHMARKS.md), and grows with what it grows with."""

from __future__ import annotations

import pytest

from ltx2core.hardware.cards import find_card, rates_of
from ltx2core.hardware.device_memory import CONTEXT_BYTES
from ltx2core.models.text_memory import TextSettings
from ltx2core.models.vae_levers import VaeLevers
from ltx2core.planning.clips import ClipShape
from ltx2core.planning.phases import encode_phase, text_bytes, text_phase

GIB = 2**30
H100 = rates_of(find_card("H100"))  # type: ignore[arg-type]
SMALL = ClipShape(width=768, height=512, frames=49)


def test_a_shorter_clip_was_measured_too() -> None:
    phase = encode_phase("2.0", SMALL, VaeLevers(), together=1, audio=True, clips=16, ram_bytes=64 * GIB, cores=16, rates=H100)
    assert (phase.vram_bytes - CONTEXT_BYTES) / GIB == pytest.approx(3.78, rel=0.06)  # held by the allocator in the run of 16 clips
    assert phase.seconds == pytest.approx(4.5 + 1.6, rel=0.4)
    own = phase.ram_bytes - phase.ram["decoders"]  # whose processes were not looked at then
    assert own / GIB == pytest.approx(2.45, rel=0.1)


def test_the_text_encoder_needs_what_was_measured_as_a_whole_and_streamed() -> None:
    whole, why = text_phase("2.0", TextSettings(), free_bytes=79 * GIB, ram_bytes=120 * GIB, captions=16, rates=H100)
    assert whole.vram_bytes / GIB == pytest.approx(27.16 + 0.6, rel=0.02)
    assert whole.seconds == pytest.approx(14.0, rel=0.25)
    assert "on the GPU as a whole" in why
    streamed, why = text_phase("2.0", TextSettings(streamed=True), free_bytes=79 * GIB, ram_bytes=120 * GIB, captions=16, rates=H100)
    assert streamed.ram_bytes / GIB == pytest.approx(26.95, rel=0.05)
    assert 2.39 < (streamed.vram_bytes - CONTEXT_BYTES) / GIB < 4.0
    assert "streams layer by layer" in why


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("version", ["2.0", "2.3", "2.5"])
def test_the_text_paths_weights_are_those_of_the_modules(version: str, int8: bool) -> None:
    import torch
    from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
    from transformers import Gemma3TextConfig, Gemma3TextModel

    from ltx2core.models import header
    from ltx2core.models.int8 import use_int8
    from ltx2core.models.released import released_config
    from ltx2core.models.text_memory import measure_text

    gemma = {"hidden_size": 3840, "intermediate_size": 15360, "num_attention_heads": 16, "num_hidden_layers": 48, "num_key_value_heads": 8}
    with torch.device("meta"):
        model = Gemma3TextModel(Gemma3TextConfig(**gemma)).to(torch.bfloat16)
        if int8:
            use_int8(model.layers)
        connectors = LTX2TextConnectors(**header.connector_arguments(released_config(f"{version}.0"), num_states=49))
    shapes = {name: tuple(tensor.shape) for name, tensor in connectors.state_dict().items()}
    assert text_bytes(version, int8=int8) == measure_text(model, shapes, itemsize=2, tokens=1024)  # type: ignore[arg-type]
