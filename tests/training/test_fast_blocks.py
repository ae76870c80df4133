"""Blocks of a 2.3 transformer in the engine: its gates, prompt modulation and skips for guidance, and holding them in another way."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import LTX2VideoTransformer3DModel
from step_engine import CPU, F32, difference, draw_batch, fast_nano, fast_step, gradients_of, make_batch, reference_step, same

from ltx2core.models import header
from ltx2core.models.forward import follow_official_code
from ltx2core.models.released import released_config
from ltx2core.planning.step_plan import StepPlan
from ltx2core.training.adapter import AdapterSettings, add_adapter, load_adapter, target_modules
from ltx2core.training.conditions import GivenPart
from ltx2core.training.fast_model import FastModel, FastSettings, build_fast, fill
from ltx2core.training.step import Model, losses_of

if TYPE_CHECKING:
    from torch import Tensor, nn

EAGER = FastSettings(compile=False)
LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "net.2")
FIRST_FRAME = GivenPart(kind="first_frame", probability=0.5)


def tiny(version: str, *, layers: int = 3) -> LTX2VideoTransformer3DModel:
    """A transformer of that release with random weights, 64 wide."""
    config = released_config(version)
    config["transformer"] |= {
        **{"num_layers": layers, "num_attention_heads": 4, "attention_head_dim": 16, "cross_attention_dim": 64, "in_channels": 32},
        **{"out_channels": 32, "audio_in_channels": 32, "audio_out_channels": 32, "audio_num_attention_heads": 4},
        **{"audio_attention_head_dim": 8, "audio_cross_attention_dim": 32, "caption_channels": 64},
    }
    generator = torch.Generator().manual_seed(11)
    model = LTX2VideoTransformer3DModel(**header.transformer_arguments(config))
    for name, parameter in model.named_parameters():
        value = torch.randn(parameter.shape, generator=generator)
        parameter.data = 1 + 0.1 * value if "norm" in name else value * (parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.1)
    return model.eval().requires_grad_(False)


def both(version: str, settings: FastSettings = EAGER) -> tuple[tuple[Model, dict[str, nn.Parameter]], tuple[Model, FastModel]]:
    """The same transformer and adapter with PEFT and in the engine."""
    reference, outside, shapes = tiny(version), tiny(version), tiny(version)
    tensors = dict(shapes.state_dict())
    outside.transformer_blocks = torch.nn.ModuleList()
    for model in (reference, outside):
        follow_official_code(model)
    adapter = AdapterSettings(rank=2, alpha=4.0, targets=LAYERS if version == "2.0.0" else (*LAYERS, "to_gate_logits"))
    targets = target_modules(shapes, audio=True, wanted=adapter.targets)
    fast = build_fast(outside, shapes, targets=targets, settings=settings, adapter=adapter, seed=0, dtype=F32, device=CPU)
    fill(fast, tensors.items())
    parameters = add_adapter(reference, adapter, audio=True, seed=0)
    generator = torch.Generator().manual_seed(12)
    values = {name: torch.randn(parameter.shape, generator=generator) * 0.2 for name, parameter in parameters.items()}
    for each in (parameters, fast.adapter.parameters):
        load_adapter(each, values)
    fast.adapter.refresh()
    return (Model(transformer=reference, device=CPU, dtype=F32), parameters), (
        Model(transformer=outside, device=CPU, dtype=F32, mixed=False),
        fast,
    )


def text_of(version: str) -> dict[str, Any]:
    """2.3 and later take the text as wide as each stream."""
    from ltx2core.models.text import TextEmbedding

    generator = torch.Generator().manual_seed(13)
    widths = (64, 64) if version == "2.0.0" else (64, 32)
    return {"text": TextEmbedding(*(torch.randn(2, 8, width, generator=generator) for width in widths))}


@pytest.mark.parametrize("settings", [EAGER, replace(EAGER, streamed=2, slots=1, kept=1)], ids=["resident", "streamed"])
@pytest.mark.parametrize("version", ["2.0.0", "2.3.0", "2.5.0"])
def test_every_version_s_loss_and_gradients_are_those_of_peft(version: str, settings: FastSettings) -> None:
    drawn = draw_batch(replace(make_batch(count=2), **text_of(version)), parts=[FIRST_FRAME], seed=6)
    assert drawn.video is not None
    assert drawn.video.timesteps.shape[1] > 1
    (model, parameters), (fast_model, fast) = both(version, settings)
    expected = reference_step(model, parameters, drawn)
    found = fast_step(fast_model, fast, drawn)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=0)
    assert difference(found[1], expected[1]) < 1e-4
    if version != "2.0.0":
        assert float(found[1]["transformer_blocks.1.attn1.to_gate_logits.lora_B.weight"].norm()) > 0


@pytest.mark.parametrize("mask", [None, torch.zeros(2)], ids=["by default", "by a mask of all"])
def test_a_skip_of_self_attention_for_guidance_is_diffusers(mask: Tensor | None) -> None:
    answers = []
    for model, _ in both("2.3.0"):
        text = text_of("2.3.0")["text"]
        with torch.no_grad():
            answers.append(
                model.transformer(
                    hidden_states=torch.ones(2, 6, 32),
                    audio_hidden_states=torch.ones(2, 4, 32),
                    encoder_hidden_states=text.video,
                    audio_encoder_hidden_states=text.audio,
                    **{name: torch.full((2, 1), 500.0) for name in ("timestep", "audio_timestep")},
                    **{name: torch.full((2,), 500.0) for name in ("sigma", "audio_sigma")},
                    **{"num_frames": 1, "height": 2, "width": 3, "fps": 25.0, "audio_num_frames": 4},
                    use_cross_timestep=True,
                    spatio_temporal_guidance_blocks=[1],
                    perturbation_mask=mask,
                    return_dict=False,
                )
            )
    for found, expected in zip(*answers, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def plan(*, streamed: int, slots: int = 2, kept: int = 0, inputs_to_host: bool = False) -> StepPlan:
    return StepPlan(storage="bf16", precision="dequant", streamed=streamed, slots=slots, kept=kept, inputs_to_host=inputs_to_host)


def test_another_plan_in_the_middle_of_training_changes_no_bit() -> None:
    """Down a ladder of plans, as after running out of memory, each with the loads that it should have."""
    drawn = draw_batch(make_batch())
    expected = fast_step(*fast_nano(), drawn)
    model, fast = fast_nano(replace(EAGER, kept=5))
    ladder = [
        plan(streamed=0, kept=2),
        plan(streamed=0, inputs_to_host=True),
        plan(streamed=2, inputs_to_host=True),
        plan(streamed=4, inputs_to_host=True),
        plan(streamed=5, kept=5),
        plan(streamed=5, slots=1, inputs_to_host=True),
    ]
    for step in ladder:
        fast.apply(step)
        ring = fast.blocks.ring
        for _ in range(2):
            before = 0 if ring is None else ring.loads
            loss, gradients = fast_step(model, fast, drawn)
            assert torch.equal(loss, expected[0])
            assert same(gradients, expected[1])
            if ring is not None:
                assert ring.streamed == step.streamed
                assert ring.loads - before == 2 * (step.streamed - step.slots)
    assert len(fast.masters.found) == 5


def test_weights_that_begin_to_travel_and_slots_that_are_not_needed_any_more_give_their_memory_back() -> None:
    model, fast = fast_nano(replace(EAGER, streamed=2, slots=2))
    drawn = draw_batch(make_batch())
    fast_step(model, fast, drawn)
    ring = fast.blocks.ring
    assert ring is not None
    resident = next(index for index in range(5) if not fast.blocks.streamed(index))
    gone = [weakref.ref(storage) for storage in (ring.slot_of(0).untyped_storage(), ring.slot_of(1).untyped_storage())]
    gone.append(weakref.ref(fast.blocks.weights[resident].matrices.untyped_storage()))
    del ring
    assert None not in [reference() for reference in gone]
    fast.apply(plan(streamed=5, slots=1))
    gc.collect()
    assert [reference() for reference in gone] == [None] * 3


def test_a_plan_with_fewer_travelling_blocks_brings_none_back() -> None:
    model, fast = fast_nano(replace(EAGER, streamed=4, slots=2))
    fast.apply(plan(streamed=1, slots=1))
    assert sum(fast.blocks.streamed(index) for index in range(5)) == 4
    drawn = draw_batch(make_batch())
    assert torch.equal(fast_step(model, fast, drawn)[0], fast_step(*fast_nano(), drawn)[0])


def test_a_streamed_block_is_computed_again_whatever_it_is_told_to_keep() -> None:
    drawn = draw_batch(make_batch())
    model, fast = fast_nano(replace(EAGER, streamed=2, slots=1))
    fast.blocks.keep = ["all"] * 5
    found = fast_step(model, fast, drawn)[1]
    assert same(found, fast_step(*fast_nano(), drawn)[1])
    assert fast.blocks.runs == 3 + 2 * 2


def test_nothing_of_a_forward_without_gradients_is_kept() -> None:
    model, fast = fast_nano(replace(EAGER, kept=5))
    with torch.no_grad():
        losses = losses_of(model, draw_batch(make_batch()), audio_weight=1.0)
    assert not losses.total.requires_grad
    assert fast.blocks.runs == 5
    assert all(float(value.norm()) == 0 for value in gradients_of(fast).values())
