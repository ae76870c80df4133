"""Draws a take: in one stage, or at half its size first, whose latents are upsampled and refined in three steps.

The second stage is the official one: noise of the first of three distilled levels on picture and sound, no guidance. It is made for
distilled weights: a distilled LoRA for this stage alone (`target_stage`), or a distilled model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ltx2core.hardware.free_memory import free_memory
from ltx2core.models.upsampler import load_upsampler, upsample
from ltx2core.validation.guidance import Guidance
from ltx2core.validation.media import REFINING_SIGMAS, draw
from ltx2core.validation.sampling import SampledLatents

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.models.text import TextEmbedding
    from ltx2core.training.step import Model
    from ltx2core.validation.inputs import Take


def draw_take(
    model: Model,
    checkpoint: Checkpoint,
    take: Take,
    *,
    text: TextEmbedding,
    negative: TextEmbedding,
    on_step: Callable[[int, int], None] | None = None,
) -> SampledLatents:
    """The latents of a take, by the model as it is now. on_step(done, total), over both stages, may raise to break it off.

    Raises CheckpointError when the upsampler's file has gone.
    """
    upsampler = take.settings.upsampler
    if upsampler is None:
        return draw(model, text=text, negative=negative, settings=take.settings, inputs=take.inputs, extras=take.extras, on_step=on_step)
    return _two_stages(model, checkpoint, take, upsampler, text=text, negative=negative, on_step=on_step)


def _two_stages(
    model: Model,
    checkpoint: Checkpoint,
    take: Take,
    upsampler: Path,
    *,
    text: TextEmbedding,
    negative: TextEmbedding,
    on_step: Callable[[int, int], None] | None,
) -> SampledLatents:
    settings, total = take.settings, take.settings.total_steps
    before = total - len(REFINING_SIGMAS) + 1

    def first_step(done: int, _steps: int) -> None:
        if on_step is not None:
            on_step(done, total)

    def second_step(done: int, _steps: int) -> None:
        if on_step is not None:
            on_step(before + done, total)

    small = draw(
        model,
        text=text,
        negative=negative,
        settings=replace(settings, width=settings.width // 2, height=settings.height // 2, upsampler=None),
        inputs=take.small,
        extras=[extra for extra in take.extras if extra.stage != "stage2"],
        on_step=first_step,
    )
    assert small.video is not None  # sound alone has one stage
    with model.evaluating():
        network = load_upsampler(upsampler, device=model.device, dtype=model.dtype)
        large = upsample(network, small.video, checkpoint)
    del network
    free_memory(model.device)
    return draw(
        model,
        text=text,
        negative=negative,
        settings=replace(settings, sigmas=REFINING_SIGMAS, guidance=Guidance.plain(1.0), upsampler=None),
        inputs=replace(take.inputs, start=SampledLatents(video=large, audio=small.audio)),
        extras=[extra for extra in take.extras if extra.stage != "stage1"],
        on_step=second_step,
    )
