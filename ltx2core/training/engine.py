"""What does a batch's forward and backward: the reference (diffusers' blocks, PEFT, autocast) or the step engine. The loop knows neither.

Both leave gradients where their optimizer finds them and give back the same numbers. The step engine runs out of memory gracefully: it
takes the next rung of its plan, says so, and the batch is done again.
"""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from ltx2core.errors import RunError
from ltx2core.offload.ring_timer import RingTimer, Traffic
from ltx2core.runs.events import EngineChosen, Notice
from ltx2core.training.captured_step import StepRunner
from ltx2core.training.objective import Losses
from ltx2core.training.step import losses_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ltx2core.lora.layers import Modality
    from ltx2core.planning.step_plan import StepPlan
    from ltx2core.runs.events import Event
    from ltx2core.training.fast_model import FastModel
    from ltx2core.training.flat_optimizer import FlatOptimizer
    from ltx2core.training.step import Drawn, Model


class TryAgain(Exception):  # noqa: N818 - no error: the step begins anew
    """Memory ran out in the middle of an update, and the plan has changed: do all of its batches again."""


class Engine(Protocol):
    """Computes gradients. `part` of `parts` batches that make one update, counted from 0. Raises TryAgain, RunError."""

    def run(self, drawn: Drawn, *, part: int, parts: int) -> Losses: ...

    def park(self) -> None:
        """Give back the memory that only steps need: something else comes, such as a sample."""
        ...

    def traffic(self) -> Traffic | None:
        """What the newest batch had to do with weights that travel; None while the device is not done with it. Never waits: to be asked
        before the next batch is given to the device, which writes over it."""
        ...


class ReferenceEngine:
    """Eager, as diffusers and PEFT compute it: what the fast path is tested against."""

    def __init__(self, model: Model, *, audio_weight: float) -> None:
        self._model, self._audio_weight = model, audio_weight

    def run(self, drawn: Drawn, *, part: int, parts: int) -> Losses:
        with self._model.autocast():
            losses = losses_of(self._model, drawn, audio_weight=self._audio_weight)
        (losses.total / parts).backward()  # type: ignore[no-untyped-call]
        return losses.detached()

    def park(self) -> None:
        return

    def traffic(self) -> Traffic | None:
        return Traffic()


class FastEngine:
    """Compiled blocks from flat buffers, captured for each shape of batch."""

    def __init__(
        self,
        model: Model,
        fast: FastModel,
        optimizer: FlatOptimizer,
        plan: StepPlan,
        *,
        audio_weight: float,
        chosen: EngineChosen,
        emit: Callable[[Event], None],
    ) -> None:
        self._model, self._fast, self._optimizer, self._emit = model, fast, optimizer, emit
        self.plan, self._chosen = plan, chosen
        self._audio_weight = audio_weight
        self._parts = 1
        blocks, capture = fast.blocks, model.device.type == "cuda"
        self._runner = StepRunner(self._compute, capture=capture, before=blocks.settle, join=blocks.join, holds=fast.graph_memory)

    def run(self, drawn: Drawn, *, part: int, parts: int) -> Losses:
        self._parts = parts
        self._fast.adapter.accumulate = part > 0
        heard = drawn.audio is not None
        self._optimizer.reached = _modalities(drawn) | (self._optimizer.reached if part > 0 else frozenset())
        values = self._attempt(drawn, part=part, parts=parts)
        while values is None:  # outside the handler: its traceback would keep the step's tensors alive
            self._descend(drawn)
            if part > 0:
                raise TryAgain
            values = self._attempt(drawn, part=part, parts=parts)
        total, video, audio = values[:3].unbind()
        video_each, audio_each = values[3:].view(2, -1).unbind()
        seen = drawn.video is not None
        return Losses(
            total=total,
            video=video if seen else None,
            audio=audio if heard else None,
            video_each=video_each if seen else None,
            audio_each=audio_each if heard else None,
        )

    def park(self) -> None:
        self._runner.forget()
        self._fast.blocks.settle()
        _free_memory()

    def traffic(self) -> Traffic | None:
        timer, replayed = self._timer(), self._runner.replayed
        if timer is None:
            return Traffic()
        return None if replayed is None else timer.read(replayed=replayed)

    def _timer(self) -> RingTimer | None:
        """The ring's, which a new ring is given here; None where no weights travel beside what is computed."""
        ring = self._fast.blocks.ring
        if ring is None or self._model.device.type != "cuda":
            return None
        if ring.timer is None:
            ring.timer = RingTimer(block_bytes=self._fast.layout.matrix_bytes)
        return ring.timer

    def _attempt(self, drawn: Drawn, *, part: int, parts: int) -> Tensor | None:
        try:
            values = self._runner.run(drawn, (part > 0, parts))
            if (timer := self._timer()) is not None:
                timer.end()
            return values
        except torch.OutOfMemoryError:
            return None

    def _compute(self, drawn: Drawn) -> Tensor:
        if (timer := self._timer()) is not None:
            timer.begin()
        losses = losses_of(self._model, drawn, audio_weight=self._audio_weight)
        (losses.total / self._parts).backward()  # type: ignore[no-untyped-call]
        losses, count = losses.detached(), drawn.batch.count
        scalars = [losses.total, losses.video, losses.audio]
        nothing, none = torch.zeros_like(losses.total), torch.zeros(count, device=losses.total.device)
        each = [none if loss is None else loss for loss in (losses.video_each, losses.audio_each)]
        return torch.cat([torch.stack([nothing if loss is None else loss for loss in scalars]), *each])

    def _descend(self, drawn: Drawn) -> None:
        """Take the plan's next rung. Raises RunError when it was the last."""
        self._runner.forget()
        self._fast.blocks.settle()
        _free_memory()
        plan = self.plan.next_rung(len(self._fast.blocks.weights))
        bucket = drawn.batch.bucket
        if plan is None:
            raise RunError(
                f"A batch of {bucket} does not fit on the GPU, even with one block on it at a time.",
                fix="Lower the resolution or video.num_frames, or set train_batch_size to 1.",
            )
        text = f"A batch of {bucket} did not fit on the GPU: {', '.join(plan.because)} from now on, and the batch is done again."
        self._emit(Notice(code="memory_rung", level="warning", text=text, fix="Smaller clips or 8-bit weights avoid the slower way."))
        self.plan = replace(plan, because=self.plan.because + plan.because)
        self._fast.apply(plan)
        self._chosen = replace(self._chosen, streamed=plan.streamed, recomputed=self._chosen.num_blocks - plan.kept)
        self._emit(self._chosen)
        _free_memory()


def _modalities(drawn: Drawn) -> frozenset[Modality]:
    """What a batch teaches: what ties the two together only has a part where both are there."""
    if drawn.video is None:
        return frozenset({"audio"})
    return frozenset({"video"}) if drawn.audio is None else frozenset({"video", "audio", "both"})


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
