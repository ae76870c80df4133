"""What does a batch's forward and backward: the reference (diffusers' blocks, PEFT, autocast) or the step engine. The loop knows neither.

Both leave gradients where their optimizer finds them and give back the same numbers. The step engine runs out of memory gracefully: it
takes the next rung of its plan for batches of that shape, says so, and the batch is done again. What has worked is remembered.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from ltx2core.errors import DoesNotFit, RunError, StorageError
from ltx2core.hardware.free_memory import free_memory
from ltx2core.hardware.limits import available_memory
from ltx2core.offload.ring_timer import RingTimer, Traffic
from ltx2core.runs.events import EngineChosen, Notice
from ltx2core.training.captured_step import MOST_GRAPHS, StepRunner
from ltx2core.training.objective import Losses
from ltx2core.training.penalty import SQUARES
from ltx2core.training.rungs import rung_of
from ltx2core.training.step import losses_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from ltx2core.lora.layers import Modality
    from ltx2core.models.attention_choice import AttentionKernels
    from ltx2core.planning.step_plan import StepPlan
    from ltx2core.runs.events import Event
    from ltx2core.training.fast_model import FastModel
    from ltx2core.training.flat_optimizer import FlatOptimizer
    from ltx2core.training.head_optimizer import WithHead
    from ltx2core.training.penalty import Penalty
    from ltx2core.training.rules import RuleOptimizer
    from ltx2core.training.rungs import Rungs
    from ltx2core.training.step import Drawn, Model


class TryAgain(Exception):  # noqa: N818 - no error: the step begins anew
    """Memory ran out in the middle of an update, and the plan has changed: do all of its batches again."""


class Engine(Protocol):
    """Computes gradients. `part` of `parts` batches that make one update, counted from 0. Raises TryAgain, RunError."""

    def run(self, drawn: Drawn, *, part: int, parts: int) -> Losses: ...

    def park(self) -> None:
        """Give back the memory that only steps need: something else comes, such as a sample."""
        ...

    def lend(self) -> AbstractContextManager[None]:
        """Keep the model's weights in RAM, inside: something needs the device for itself. No forward may run meanwhile. Raises DoesNotFit
        when there is no room in RAM."""
        ...

    def traffic(self) -> Traffic | None:
        """What the newest batch had to do with weights that travel; None while the device is not done with it. Never waits: to be asked
        before the next batch is given to the device, which writes over it."""
        ...


class ReferenceEngine:
    """Eager, as diffusers and PEFT compute it: what the fast path is tested against."""

    def __init__(self, model: Model, *, audio_weight: float, penalty: Penalty = SQUARES) -> None:
        self._model, self._audio_weight, self._penalty = model, audio_weight, penalty

    def run(self, drawn: Drawn, *, part: int, parts: int) -> Losses:
        if part == 0 and self._model.crepa is not None:
            self._model.crepa.forget_gradients()
        with self._model.autocast():
            losses = losses_of(self._model, drawn, audio_weight=self._audio_weight, penalty=self._penalty)
        (losses.learned / parts).backward()  # type: ignore[no-untyped-call]
        return losses.detached()

    def park(self) -> None:
        if self._model.device.type == "cuda":  # elsewhere nothing keeps what steps have dropped
            free_memory(self._model.device)

    @contextlib.contextmanager
    def lend(self) -> Iterator[None]:
        transformer, device = self._model.transformer, self._model.device
        check_ram(sum(tensor.nbytes for tensor in transformer.parameters()), kind=device.type)
        transformer.to("cpu")
        free_memory(device)
        try:
            yield
        finally:
            transformer.to(device)

    def traffic(self) -> Traffic | None:
        return Traffic()


class FastEngine:
    """Compiled blocks from flat buffers, captured for each shape of batch."""

    def __init__(
        self,
        model: Model,
        fast: FastModel,
        optimizer: FlatOptimizer | RuleOptimizer | WithHead,
        plan: StepPlan,
        *,
        audio_weight: float,
        chosen: EngineChosen,
        emit: Callable[[Event], None],
        rungs: Rungs | None = None,
        penalty: Penalty = SQUARES,
        attention: AttentionKernels | None = None,
    ) -> None:
        """plan: how the model is held now. rungs: what earlier runs have learned; None to learn and remember nothing between runs.
        attention: what picks a kernel for each shape; None for the one that is used now."""
        self._model, self._fast, self._optimizer, self._emit = model, fast, optimizer, emit
        self._rungs, self._chosen = rungs, chosen
        self._plan = self._held = plan  # of buckets that have no other; of the newest step
        self._plans: dict[str, StepPlan] = {}  # of buckets that have run before
        self._untold: set[str] = set()  # buckets whose new rung has not worked yet
        self._audio_weight, self._penalty = audio_weight, penalty
        self._kernels, self._attended = attention, chosen.attention  # what picks a kernel; the one in use
        self._told_kernels: set[str] = set()  # buckets of which it was said
        self._parts = 1
        lengths = 1 if model.rollouts is None else 1 + model.rollouts.most_steps  # of rollouts, none among them: a graph each
        self._runner = StepRunner(
            self._compute,
            capture=self._capturable,
            before=fast.blocks.settle,
            join=fast.blocks.join,
            holds=fast.graph_memory,
            crowded=self._tell_crowded,
            most=MOST_GRAPHS * lengths,
        )

    @property
    def _capturable(self) -> bool:
        return self._model.device.type == "cuda" and self._fast.blocks.capturable

    def run(self, drawn: Drawn, *, part: int, parts: int) -> Losses:
        self._parts = parts
        self._fast.adapter.accumulate = part > 0
        heard = drawn.audio is not None
        self._optimizer.reached = _modalities(drawn) | (self._optimizer.reached if part > 0 else frozenset())
        aligned = self._model.crepa is not None and drawn.video is not None
        bucket = _bucket(drawn)
        self._hold(self._plan_for(bucket))
        self._watch_capture()
        self._attend(drawn, bucket)
        values = self._attempt(drawn, part=part, parts=parts)
        while values is None:  # outside the handler: its traceback would keep the step's tensors alive
            self._descend(bucket)
            if part > 0:
                raise TryAgain
            values = self._attempt(drawn, part=part, parts=parts)
        self._remember(bucket)
        total, video, audio, aside, similarity = values[:5].unbind()
        video_each, audio_each = values[5:].view(2, -1).unbind()
        seen = drawn.video is not None
        return Losses(
            total=total,
            video=video if seen else None,
            audio=audio if heard else None,
            video_each=video_each if seen else None,
            audio_each=audio_each if heard else None,
            aside=aside if aligned else None,
            similarity=similarity if aligned else None,
        )

    def park(self) -> None:
        self._runner.forget()
        self._fast.blocks.settle()
        free_memory(self._model.device)

    @contextlib.contextmanager
    def lend(self) -> Iterator[None]:
        self.park()
        check_ram(self._fast.resident_bytes, kind=self._model.device.type)
        with self._fast.put_away():
            free_memory(self._model.device)
            try:
                yield
            finally:
                free_memory(self._model.device)  # of what has used the room meanwhile, before weights are put back into it

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
        if part == 0 and self._model.crepa is not None:
            self._model.crepa.forget_gradients()  # also of an attempt that was broken off
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
        losses = losses_of(self._model, drawn, audio_weight=self._audio_weight, penalty=self._penalty)
        (losses.learned / self._parts).backward()  # type: ignore[no-untyped-call]
        losses, count = losses.detached(), drawn.batch.count
        scalars = [losses.total, losses.video, losses.audio, losses.aside, losses.similarity]
        nothing, none = torch.zeros_like(losses.total), torch.zeros(count, device=losses.total.device)
        each = [none if loss is None else loss for loss in (losses.video_each, losses.audio_each)]
        return torch.cat([torch.stack([nothing if loss is None else loss for loss in scalars]), *each])

    def _attend(self, drawn: Drawn, bucket: str) -> None:
        """Use the attention kernel that is fastest for this shape of batch. Graphs of other shapes have theirs in them."""
        batch = drawn.batch
        if self._kernels is None or drawn.video is None or batch.video is None:
            return
        references = 0 if batch.reference is None else batch.reference.tokens.shape[1]
        choice = self._kernels.of(tokens=batch.video.shape[1] + references, batch=batch.video.shape[0])
        if choice.name == self._attended or not choice.milliseconds:  # there is but one, or no room to measure in
            return
        self._fast.blocks.use_attention(choice.backend)
        self._attended = choice.name
        if bucket not in self._told_kernels:
            self._told_kernels.add(bucket)
            self._emit(Notice(code="attention_kernel", text=f"Self-attention of {bucket}: {choice.words}."))

    def _watch_capture(self) -> None:
        """Capture no more once the host has got a part in a step's copies, and say so."""
        if self._runner.capture and not self._capturable:
            self._runner.capture = False
            self._runner.forget()
            text = "Steps are not captured from now on, for memory that the GPU would not lock takes part in them: somewhat slower."
            fix = "Raise the limit of locked memory (`ulimit -l unlimited`), or free RAM."
            self._emit(Notice(code="not_captured", level="warning", text=text, fix=fix))

    def _tell_crowded(self, graphs: int) -> None:
        text = f"There are more shapes of batches than the {graphs} graphs kept: the rarer ones are computed without one, somewhat slower."
        self._emit(Notice(code="more_shapes_than_graphs", text=text, fix="Fewer resolutions and lengths make fewer shapes."))

    def plan_of(self, bucket: str) -> StepPlan:
        """How batches of a bucket are computed: where weights lie is the same for all, since they do not move between steps."""
        plan, held = self._plans.get(bucket, self._plan), self._held
        return replace(plan, streamed=held.streamed, slots=held.slots, turned=held.turned)

    def _plan_for(self, bucket: str) -> StepPlan:
        """The same, for a batch that comes now: a bucket that is new begins with what an earlier run has learned."""
        if bucket not in self._plans:
            base = self._plans[bucket] = self.plan_of(bucket)
            rung = None if self._rungs is None else self._rungs.of(bucket)
            if self._rungs is not None and rung is not None and (learned := rung.applied_to(base)) != base:
                self._plans[bucket] = learned
                text = f"A batch of {bucket} did not fit on this GPU in an earlier run, so it starts with what fitted: {_levers(learned)}."
                self._emit(Notice(code="memory_rung_known", text=text, fix=f"Remove {self._rungs.path} to have it forgotten."))
                return learned
        return self.plan_of(bucket)

    def _hold(self, plan: StepPlan) -> None:
        """Hold blocks as a plan says. Graphs of other shapes stay unless weights move."""
        if rung_of(plan) == rung_of(self._held):
            return
        if _weights_of(plan) != _weights_of(self._held):
            self.park()
        self._fast.apply(plan)
        self._held = plan

    def _descend(self, bucket: str) -> None:
        """Take the next rung of a bucket's plan. Raises RunError when it was the last."""
        self.park()
        plan = self.plan_of(bucket).next_rung(len(self._fast.blocks.weights))
        if plan is None:
            raise RunError(
                f"A batch of {bucket} does not fit on the GPU, even with one block on it at a time.",
                fix="Lower the resolution or video.num_frames, or set train_batch_size to 1.",
            )
        text = f"A batch of {bucket} did not fit on the GPU: {', '.join(plan.because)} from now on, and the batch is done again."
        self._emit(Notice(code="memory_rung", level="warning", text=text, fix="Smaller clips or 8-bit weights avoid the slower way."))
        self._plans[bucket] = plan
        self._untold.add(bucket)
        self._hold(plan)
        self._chosen = replace(self._chosen, streamed=plan.streamed, recomputed=self._chosen.num_blocks - plan.kept)
        self._emit(self._chosen)
        free_memory(self._model.device)

    def _remember(self, bucket: str) -> None:
        """Write down a new rung that has worked. A run whose notes cannot be written trains all the same."""
        if bucket not in self._untold:
            return
        self._untold.discard(bucket)
        try:
            if self._rungs is not None:
                self._rungs.remember(bucket, self.plan_of(bucket))
        except StorageError as error:
            text = f"What fitted on the GPU is not remembered for the next run: {error.text}"
            self._emit(Notice(code="memory_rung_unwritten", level="warning", text=text, fix=error.fix))


def check_ram(needed_bytes: int, *, kind: str) -> None:
    """Raises DoesNotFit when weights of that many bytes, on a device of that kind, do not fit into the RAM that is free."""
    needed, free = needed_bytes / 2**30, available_memory() / 2**30
    if kind != "cpu" and needed > free:
        raise DoesNotFit(
            f"To make room there, {needed:.1f} GiB of the transformer would lie in RAM meanwhile, where {free:.1f} GiB are free.",
            fix="Free RAM, so that it can.",
        )


def _bucket(drawn: Drawn) -> str:
    """What a batch's memory depends on, in words: its bucket, how many samples, and whether there is sound."""
    count, batch = len(drawn.batch.fps), drawn.batch
    return f"{batch.bucket}{f' x {count}' if count > 1 else ''}{' without sound' if drawn.audio is None else ''}"


def _weights_of(plan: StepPlan) -> tuple[int, int, bool]:
    """What of a plan says where weights lie: graphs read them there."""
    return plan.streamed, plan.slots, plan.turned


def _levers(plan: StepPlan) -> str:
    travel = f"{plan.streamed} blocks travel through {plan.slots} slots, " if plan.streamed else ""
    inputs = ", the blocks' inputs wait in host memory" if plan.inputs_to_host else ""
    return f"{travel}{plan.kept} blocks keep their activations{inputs}"


def _modalities(drawn: Drawn) -> frozenset[Modality]:
    """What a batch teaches: what ties the two together only has a part where both are there."""
    if drawn.video is None:
        return frozenset({"audio"})
    return frozenset({"video"}) if drawn.audio is None else frozenset({"video", "audio", "both"})
