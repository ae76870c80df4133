"""Samples that are drawn by the step engine: those of the reference path, however a step's predictions go through the blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from step_engine import fast_nano, make_batch, reference_nano

from ltx2core.caching.passes import References
from ltx2core.models.block_parts import BlockInParts, Computed
from ltx2core.training.fast_model import FastSettings
from ltx2core.training.reference import Reference
from ltx2core.validation.guidance import Guidance
from ltx2core.validation.sampling import Inputs, sample_latents

if TYPE_CHECKING:
    from torch import Tensor

EAGER = FastSettings(compile=False)


def test_samples_are_those_of_the_reference() -> None:
    batch = make_batch()
    expected, found = (
        sample_latents(
            transformer, text=batch.text, negative_text=batch.text, grid=(2, 2, 2), audio_steps=9, fps=25, steps=2, guidance=1.0, seed=0
        )
        for transformer in (reference_nano()[0].transformer, fast_nano(replace(EAGER, streamed=3))[1].transformer)
    )
    torch.testing.assert_close(found.video, expected.video, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("given", ["text", "picture", "reference", "adapter"])
def test_a_long_sample_s_predictions_go_through_a_block_in_turn_and_are_the_same(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch()
    _, fast = fast_nano(replace(EAGER, streamed=3))
    channels = fast.transformer.config.in_channels
    tokens = torch.linspace(-1, 1, 8 * channels).view(1, 8, -1)
    seen = Reference(tokens=tokens, grid=(2, 2, 2), seen=References(smaller=1, slower=1)) if given == "reference" else None
    inputs = Inputs(first_frame=tokens[:, :4] if given == "picture" else None, reference=seen)
    counts: list[int] = []
    inner = BlockInParts.__call__

    def call(parts: BlockInParts, video: Tensor, audio: Tensor, context: dict[str, Any], **others: Any) -> Computed:
        counts.append(len(video))
        return inner(parts, video, audio, context, **others)

    monkeypatch.setattr(BlockInParts, "__call__", call)
    if given == "adapter":
        fast.blocks.extra = lambda _index, tensors: {
            name: value + 0.1 for name, value in tensors.items() if "lora_b" in name and value is not None
        }
    found = []
    for busy, together in ((1 << 30, {1, 2}), (8, {1})):  # the prediction that skips is made alone
        fast.blocks.busy_tokens = busy
        counts.clear()
        guidance = Guidance(video=3.0, audio=3.0, stg=1.0)
        size: dict[str, Any] = {"grid": (2, 2, 2), "audio_steps": 9, "fps": 25, "steps": 2, "seed": 0}
        texts = {"text": batch.text, "negative_text": batch.text}
        found.append(sample_latents(fast.transformer, **texts, **size, guidance=guidance, inputs=inputs))
        assert set(counts) == together
    for one, other in zip((found[0].video, found[0].audio), (found[1].video, found[1].audio), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
