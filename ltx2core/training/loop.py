"""The training loop: batches in, updates and events out. What happens between steps (checkpoints, samples) is given to it.

Everything random in a step follows from the seed and the step's number, so a run that was stopped, or killed, and resumed goes on
exactly. Nothing in a step waits for the device: a step's loss is read one step late.

Of several ranks each runs this loop over its own share of the run's batches: batch `part` of a step is that of rank `part % ranks`, so a
step is what it would be for one process that goes through all of them. Rank 0 obeys, and tells the others whether to go on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import torch

from ltx2core.distributed.ranks import ALONE, Ranks
from ltx2core.errors import RunError
from ltx2core.runs.events import Notice, StepDone
from ltx2core.training.agreement import CHECK_EVERY, Level, UpdateLosses, agree, check_same
from ltx2core.training.batches import derive_seed, generator_for
from ltx2core.training.engine import TryAgain
from ltx2core.training.level_losses import LevelLosses
from ltx2core.training.sigma import at_sample
from ltx2core.training.step import draw
from ltx2core.training.step_meter import StepClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from ltx2core.caching.passes import CachedClip
    from ltx2core.offload.ring_timer import Traffic
    from ltx2core.runs.control import Control
    from ltx2core.runs.events import Event
    from ltx2core.training.batches import Order
    from ltx2core.training.conditions import GivenPart
    from ltx2core.training.data import Reader
    from ltx2core.training.engine import Engine
    from ltx2core.training.level_losses import Modality
    from ltx2core.training.objective import Losses
    from ltx2core.training.optimizer import ClipBy, Optimizer
    from ltx2core.training.schedule import LearningRate
    from ltx2core.training.sigma import SigmaSampler
    from ltx2core.training.step import Drawn, Model
    from ltx2core.training.step_meter import StepMeter

_GO_ON, _STOP, _LOOK = "go on", "stop", "look"  # what rank 0 tells the others before a step
END = "end"  # and when it needs them no more
MOST_BAD_STEPS = 10  # in a row; one odd clip gives fewer, a run that has diverged never ends


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """The numbers of the loop."""

    total_steps: int
    seed: int
    learning_rate: LearningRate
    sampler: SigmaSampler
    accumulation: int = 1  # batches of each rank in a step
    max_grad_norm: float = 1.0
    clip_by: ClipBy = "norm"
    audio_weight: float = 1.0
    caption_dropout: float = 0.0
    routed_steps: int | None = None  # how many steps, from the first, are routed where the model has routes; None for all
    parts: tuple[GivenPart, ...] = ()  # of a clip, given now and then instead of learned
    reference_probability: float = 1.0


class Between(Protocol):
    """What is done between steps. Each is called with how many steps are finished."""

    def due(self, step: int) -> bool:
        """Whether `after_step` has something to do, so that the last loss is told before it."""
        ...

    def after_step(self, step: int) -> None: ...

    def enough(self) -> bool:
        """Whether training is to end now, before its last step."""
        ...

    def save(self, step: int) -> None: ...

    def sample(self, step: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """A step's numbers, still on the device: total, video, audio and similarity (0 without), gradient norm; then, of each entry of
    `levels`, the noise levels of so many samples and their losses."""

    step: int
    values: Tensor
    has_video: bool
    has_audio: bool
    has_similarity: bool
    learning_rate: float
    begin: float  # on the clock of time.perf_counter
    bucket: str
    clock: StepClock
    flops: int
    parts: int  # batches in the step
    samples: int  # in them, over all ranks
    levels: tuple[tuple[Modality, int], ...] = ()
    traffic: Traffic | None = None  # of its last batch


class Loop:
    """Trains from a step to the last one. `run` may be called once."""

    def __init__(
        self,
        *,
        model: Model,
        engine: Engine,
        optimizer: Optimizer,
        reader: Reader,
        clips: Sequence[CachedClip],
        order: Order,
        settings: LoopSettings,
        meter: StepMeter,
        emit: Callable[[Event], None],
        parameters: Mapping[str, Tensor],
        ranks: Ranks = ALONE,
        begun: Callable[[], None] = lambda: None,
        serve: Callable[[str], None] = lambda _: None,
    ) -> None:
        """parameters: the adapter's, which all ranks hold alike. begun: called when the first step is about to be done. serve: does what
        else rank 0 tells the others to do between steps."""
        self._begun, self._serve = begun, serve
        self._meter, self._parameters, self._ranks = meter, parameters, ranks
        self._model, self._engine, self._optimizer, self._reader = model, engine, optimizer, reader
        self._clips, self._order, self._settings, self._emit = clips, order, settings, emit
        self._pending: _Measured | None = None
        self._bad_steps = 0
        self._levels = LevelLosses()

    def run(self, *, start: int, control: Control, between: Between) -> tuple[int, bool]:
        """Train from `start` finished steps on: how many are finished now, and whether the run was asked to stop before its end.

        Raises RunError when the loss was not finite for too long; what `between` raises passes through.
        """
        step = start
        self._model.transformer.train()
        while step < self._settings.total_steps:
            if self._wait_and_obey(step, control, between):
                return step, True
            if step == start:
                self._begun()
            if self._pending is not None:  # now: this step's batches write over it
                self._pending = replace(self._pending, traffic=self._engine.traffic())
            measured = self._step(step)
            step += 1
            self._tell(measured)
            due = between.due(step)
            if due or step % CHECK_EVERY == 0 or step == self._settings.total_steps:
                check_same(self._ranks, self._parameters.values(), step=step)
            if due:
                self._tell(None)
                between.after_step(step)
                if between.enough():
                    if step < self._settings.total_steps:
                        self._ranks.told(_STOP)
                    return step, False
        self._tell(None)
        return step, False

    def _wait_and_obey(self, step: int, control: Control, between: Between) -> bool:
        """Do what was asked for between steps; whether to stop. Other ranks than the first wait meanwhile, and do as it says.

        What is asked for may write the weights down: all are looked at before, for one that has ended in the middle of an exchange leaves
        the others with what is no mean.
        """
        ranks = self._ranks
        if not ranks.owner:
            while (word := ranks.told()) not in (_GO_ON, _STOP, END):
                if word == _LOOK:
                    check_same(ranks, self._parameters.values(), step=step)
                else:
                    self._serve(word)
            return word != _GO_ON
        stop = False
        if control.asked:
            ranks.told(_LOOK)
            check_same(ranks, self._parameters.values(), step=step)
            stop = self._obey(step, control, between)
        ranks.told(_STOP if stop else _GO_ON)
        return stop

    def _obey(self, step: int, control: Control, between: Between) -> bool:
        if control.take_save():
            self._tell(None)
            between.save(step)
        if control.take_sample():
            self._tell(None)
            between.sample(step)
        if control.paused and not control.stop_requested:
            self._tell(None)
            self._emit(Notice(code="paused", text=f"Paused after step {step}."))
            control.wait_while_paused()
            if not control.stop_requested:
                self._emit(Notice(code="resumed", text=f"Goes on with step {step + 1}."))
        if control.stop_requested:
            self._tell(None)
            return True
        return False

    def _step(self, step: int) -> _Measured:
        """Do one optimizer step; `step` are finished before it."""
        settings, begin = self._settings, time.perf_counter()
        if self._model.crepa is not None:
            self._model.crepa.set_step(step)
        parts: list[Losses] = []
        levels: list[Level] = []
        bucket, flops, samples, clock = "", 0, 0, StepClock(self._model.device)
        while len(parts) < settings.accumulation:
            own = len(parts)
            part = own * self._ranks.size + self._ranks.rank  # of the step, over all ranks
            index = step * settings.accumulation * self._ranks.size + part
            numbers = self._order.batch(index)
            generator = generator_for(settings.seed, "step", step, part)
            batch = self._reader.batch(
                [self._clips[number] for number in numbers], draw=generator, caption_dropout=settings.caption_dropout
            )
            torch.manual_seed(derive_seed(settings.seed, "dropout", step, part))  # LoRA dropout draws from the global generator
            drawn = draw(
                batch,
                sampler=at_sample(settings.sampler, self._order.samples_before(index)),
                generator=generator,
                parts=settings.parts,
                reference_probability=settings.reference_probability,
                routes=self._model.routes if settings.routed_steps is None or step < settings.routed_steps else (),
                rollouts=self._model.rollouts,
                step=step,
            )
            try:
                with clock.running():
                    parts.append(self._engine.run(drawn, part=own, parts=settings.accumulation))
                flops += self._meter.flops(drawn)
                samples += batch.count
                levels += _levels(drawn, parts[-1])
            except TryAgain:
                parts.clear()
                levels.clear()
                flops, samples, clock = 0, 0, StepClock(self._model.device)
            bucket = batch.bucket
        found = agree(
            self._ranks,
            UpdateLosses.of(parts, levels=levels, samples=samples),
            self._optimizer,
            step=step,
            crepa=self._model.crepa,
        )
        total, nothing = found.total, torch.zeros_like(found.total)
        learning_rate = settings.learning_rate(step)
        with clock.running():
            norm = self._optimizer.clip(settings.max_grad_norm, by=settings.clip_by)
            self._optimizer.step(learning_rate, finite=torch.isfinite(total) & torch.isfinite(norm))
        scalars = [total, *(nothing if loss is None else loss for loss in (found.video, found.audio, found.similarity)), norm]
        return _Measured(
            step=step + 1,
            values=torch.cat([torch.stack(scalars), *(part for level in found.levels for part in (level.sigma, level.losses))]),
            has_video=found.video is not None,
            has_audio=found.audio is not None,
            has_similarity=found.similarity is not None,
            learning_rate=learning_rate,
            begin=begin,
            bucket=bucket,
            clock=clock,
            flops=flops,
            parts=settings.accumulation,
            samples=found.samples,
            levels=tuple((level.modality, len(level.sigma)) for level in found.levels),
        )

    def _tell(self, measured: _Measured | None) -> None:
        """Tell the step before, whose numbers are ready by now, and keep this one."""
        pending, self._pending = self._pending, measured
        if pending is None:
            return
        numbers = pending.values.tolist()
        total, video, audio, similarity, norm = (value if abs(value) < float("inf") else None for value in numbers[:5])
        # until the next step began: a GPU has only been given its work when `_step` returns, and is waited for here
        seconds = (time.perf_counter() if measured is None else measured.begin) - pending.begin
        device, traffic = pending.clock.seconds(), self._engine.traffic() if measured is None else pending.traffic
        stalled = None if traffic is None else traffic.stalled_seconds * pending.parts  # its batches are alike
        self._emit(
            StepDone(
                step=pending.step,
                loss=total,
                video_loss=video if pending.has_video else None,
                audio_loss=audio if pending.has_audio else None,
                learning_rate=pending.learning_rate,
                grad_norm=norm,
                seconds=seconds,
                bucket=pending.bucket,
                similarity=similarity if pending.has_similarity else None,
                compute_ms=None if device is None or stalled is None else round(max(0.0, device - stalled) * 1000, 1),
                stall_ms=None if stalled is None else round(stalled * 1000, 1),
                link_gb_per_s=None if traffic is None or traffic.rate is None else round(traffic.rate / 1e9, 1),
                mfu=_rounded(self._meter.utilisation(pending.flops, seconds)),
                samples=pending.samples,
            )
        )
        self._tell_levels(pending, numbers[5:], now=measured is None)
        self._bad_steps = self._bad_steps + 1 if total is None or norm is None else 0
        if self._bad_steps == 0:
            return
        what = "loss" if total is None else "gradient"
        if self._bad_steps == 1:  # once for a row of them
            self._emit(
                Notice(
                    code="non_finite",
                    level="warning",
                    text=f"Step {pending.step}: the {what} was not a finite number; the LoRA was left as it was.",
                    fix="If it goes on, lower learning_rate and look at the clips of this bucket.",
                )
            )
        if self._bad_steps >= MOST_BAD_STEPS:
            raise RunError(
                f"The {what} was not a finite number in {self._bad_steps} steps in a row, up to step {pending.step}.",
                fix="Lower learning_rate, then resume: the LoRA in the last checkpoint is sound.",
            )

    def _tell_levels(self, pending: _Measured, numbers: list[float], *, now: bool) -> None:
        """Add a step's samples to their bands; tell those every few steps, and before something comes between steps."""
        for modality, count in pending.levels:
            self._levels.add(modality, zip(numbers[:count], numbers[count : 2 * count], strict=True))
            numbers = numbers[2 * count :]
        if (self._levels.step_done() or now) and (told := self._levels.take(pending.step)) is not None:
            self._emit(told)


def _levels(drawn: Drawn, losses: Losses) -> list[Level]:
    """Of each modality that a batch has."""
    found: list[Level] = []
    if drawn.video is not None and losses.video_each is not None:
        found.append(Level(modality="video", sigma=drawn.video.sigma, losses=losses.video_each))
    if drawn.audio is not None and losses.audio_each is not None:
        found.append(Level(modality="audio", sigma=drawn.audio.sigma, losses=losses.audio_each))
    return found


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 3)
