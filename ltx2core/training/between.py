"""What happens between steps: checkpoints, the held-out loss, samples. Each has its own interval, and can be asked for."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from ltx2core.distributed.ranks import ALONE, Ranks
from ltx2core.errors import Ltx2Error, RunError, Stopped
from ltx2core.runs.events import CheckpointSaved, Notice, PhaseStarted, Progress, SampleReady
from ltx2core.training.checkpoint import keep_newest, save_checkpoint
from ltx2core.validation.curve import Curve
from ltx2core.validation.decoding import SampleDecoder
from ltx2core.validation.diagnosis import diagnose_losses
from ltx2core.validation.drawing import draw_take
from ltx2core.validation.held_out import held_out_event, keep_base, measure_held_out, read_base
from ltx2core.validation.media import write_media

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from ltx2core.caching.passes import CachedClip
    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.runs.control import Control
    from ltx2core.runs.events import Event
    from ltx2core.runs.folder import RunFolder
    from ltx2core.training.checkpoint import Identity
    from ltx2core.training.data import Reader
    from ltx2core.training.engine import Engine
    from ltx2core.training.optimizer import Optimizer
    from ltx2core.training.step import Model
    from ltx2core.validation.examine import Examiner
    from ltx2core.validation.held_out import ClipLosses
    from ltx2core.validation.inputs import Take
    from ltx2core.validation.sampling import SampledLatents


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Steps between each; 0 for never. keep: how many checkpoints stay on disk, 0 for all. sample_base: also before the first step.

    patience: how many measurements without a lower held-out loss end the run, 0 for none. save_best: a checkpoint at each lowest one.
    """

    total_steps: int
    save_every: int
    keep: int
    sample_every: int
    sample_base: bool
    measure_every: int
    patience: int = 0
    save_best: bool = False

    def due(self, step: int) -> bool:
        """Whether anything is, after so many steps."""
        return any(every and step % every == 0 for every in (self.save_every, self.measure_every, self.sample_every))


@dataclass(kw_only=True)
class Milestones:
    """The loop's `Between`: knows what is due, does it once, and tells it."""

    model: Model
    engine: Engine
    checkpoint: Checkpoint
    reader: Reader
    held_out: Sequence[CachedClip]
    parameters: Mapping[str, nn.Parameter]
    optimizer: Optimizer
    identity: Identity
    folder: RunFolder
    control: Control
    emit: Callable[[Event], None]
    takes: Sequence[Take]  # the samples of each validation
    examiner: Examiner
    negative_prompt: str
    schedule: Schedule
    audio_weight: float
    ranks: Ranks = ALONE  # the others wait, but for their share of the held-out loss
    curve: Curve = field(default_factory=Curve)  # of a resumed run: what it has measured so far
    _saved_at: int = -1
    _sampled_at: int = -1
    _base: ClipLosses = field(default_factory=dict)
    _decode: SampleDecoder | None = None
    _apart: bool = False  # a sample has not fitted otherwise
    _measured_alone: bool = False  # nor has a measurement beside what steps hold

    def before_training(self, start: int) -> None:
        """Measure and sample the base model at step 0, which later steps are compared with."""
        self._saved_at = start
        if start == 0:
            if self.schedule.measure_every:
                self.measure(0)
            if self.schedule.sample_every and self.schedule.sample_base:
                self.sample(0)
        else:
            self._base = read_base(self.folder)
        self._train_phase()

    def due(self, step: int) -> bool:
        return self.schedule.due(step)

    def after_step(self, step: int) -> None:
        schedule = self.schedule
        if schedule.save_every and step % schedule.save_every == 0:
            self.save(step)
        if schedule.measure_every and step % schedule.measure_every == 0:
            self.measure(step)
        if schedule.sample_every and step % schedule.sample_every == 0:
            self.sample(step)
        if step < schedule.total_steps:
            self._train_phase()

    def after_training(self, step: int) -> None:
        """Save the last step; unless the run was stopped, measure and sample it too."""
        if step != self._saved_at:
            self.save(step)
        if self.control.stop_requested or (step < self.schedule.total_steps and not self.enough()):
            return
        if self.schedule.measure_every and step % self.schedule.measure_every:
            self.measure(step)
        if self.schedule.sample_every and step != self._sampled_at:
            self.sample(step)

    def enough(self) -> bool:
        """Whether the held-out loss has not fallen for as long as the config waits."""
        return self.curve.flat_for(self.schedule.patience)

    def save(self, step: int) -> None:
        folder = save_checkpoint(
            self.folder.checkpoints, step=step, identity=self.identity, adapter=self.parameters, optimizer=self.optimizer.state()
        )
        best = self.curve.best
        keep_newest(self.folder.checkpoints, self.schedule.keep, besides=None if best is None else best.step)
        self._saved_at = step
        self.emit(CheckpointSaved(step=step, path=folder.relative_to(self.folder.path).as_posix()))

    def measure(self, step: int) -> None:
        """Measure the held-out loss, if there are clips for it."""
        if not self.held_out:
            return
        if self._measured_alone:
            self.engine.park()
        self.emit(PhaseStarted(phase="evaluate", total=len(self.held_out), unit="clips"))

        def make_room() -> None:
            self._measured_alone = True
            self.engine.park()

        with self.optimizer.at_rest():
            result = measure_held_out(
                self.model,
                self.reader,
                self.held_out,
                audio_weight=self.audio_weight,
                make_room=make_room,
                should_stop=lambda: self.control.stop_requested,
                ranks=self.ranks,
            )
        if result is None:
            return
        if not math.isfinite(result.loss):  # JSON has no NaN, and a curve no place for it
            text = f"Step {step}: the held-out loss was not a finite number, so it is left out."
            self.emit(
                Notice(code="held_out_not_finite", level="warning", text=text, fix="Look at the clips that are kept out of training.")
            )
            return
        if step == 0:
            self._base = result.clips
            keep_base(self.folder, result.clips)
        self.curve = self.curve.with_point(step, result.loss)
        is_best = self.curve.best is not None and self.curve.best.step == step
        self.emit(held_out_event(step, result, self._base, is_best=is_best))
        if is_best and self.schedule.save_best and self._saved_at != step:
            self.save(step)
        if self.enough() and self.curve.best is not None:
            best = self.curve.best
            text = f"Step {step}: the held-out loss was no lower than {best.loss:.4f}, at step {best.step}, in the last "
            text += f"{self.curve.since_best} measurements, so the run ends here."
            self.emit(Notice(code="early_stop", text=text, fix="A larger eval_patience, or 0, trains on."))

    def sample(self, step: int) -> None:
        """Write the samples of the model as it is now. A stop breaks it off; one that cannot be written is said, and the rest goes on."""
        steps = [take.settings.total_steps for take in self.takes]
        self.engine.park()  # before the phase, whose peak would be that of training
        self.emit(PhaseStarted(phase="sample", total=sum(steps), unit="steps"))
        self._sampled_at = step
        with self.optimizer.at_rest():
            for index, take in enumerate(self.takes):
                try:
                    self._draw(step, take, before=sum(steps[:index]), total=sum(steps))
                except Stopped:
                    return
                except Ltx2Error as error:
                    which = f"no sample {take.shot.name}" if take.shot.name else "no sample"
                    text = f"Step {step}: {which} was written. {error.text}"
                    self.emit(Notice(code="sample_failed", level="warning", text=text, fix=error.fix))
        for notice in diagnose_losses([(point.step, point.loss) for point in self.curve.points]):
            self.emit(notice)

    def _draw(self, step: int, take: Take, *, before: int, total: int) -> None:
        begin, shot = time.perf_counter(), take.shot

        def on_step(done: int, _steps: int) -> None:
            if self.control.stop_requested:
                raise Stopped("Stopped while sampling.")
            self.emit(Progress(phase="sample", done=before + done, total=total, item=shot.name))

        latents = self._latents(take, on_step)
        if latents is None and not self._apart:
            self._apart = True
            text = "Drawing a sample did not fit on the GPU: its predictions are made one after another from now on."
            self.emit(Notice(code="sample_drawn_apart", text=text, fix="Smaller samples need less."))
            latents = self._latents(take, on_step)
        if latents is None:
            raise RunError("It does not fit on the GPU.", fix="Lower validation_resolution or validation_num_video_frames.")
        media = self._decoder(take)(latents)
        folder = self.folder.step_folder(self.folder.samples, step)
        written = write_media(folder / shot.name if shot.name else folder, media, take.settings)
        path = written.relative_to(self.folder.path).as_posix()
        self.emit(
            SampleReady(
                step=step,
                path=path,
                prompt=shot.prompt,
                seconds=time.perf_counter() - begin,
                name=shot.name,
                mode=shot.mode,
                seed=take.settings.seed,
            )
        )
        for notice in self.examiner.examine(step, take, latents, media, path=path):
            self.emit(notice)

    def _latents(self, take: Take, on_step: Callable[[int, int], None]) -> SampledLatents | None:
        """None: memory ran out, and all of it is given back."""
        take = replace(take, settings=replace(take.settings, apart=self._apart))
        text, negative = self.reader.text(take.shot.prompt), self.reader.text(self.negative_prompt)
        with contextlib.suppress(torch.OutOfMemoryError):
            return draw_take(self.model, self.checkpoint, take, text=text, negative=negative, on_step=on_step)
        self.engine.park()
        return None

    def _decoder(self, take: Take) -> SampleDecoder:
        """The same for all samples: their levers are."""
        if self._decode is None:
            self._decode = SampleDecoder(
                checkpoint=self.checkpoint,
                device=self.model.device,
                dtype=self.model.dtype,
                levers=take.settings.levers,
                lend=self.engine.lend,
                tell=lambda text: self.emit(Notice(code="sample_decoded_in_parts", text=text, fix="Smaller samples need less.")),
            )
        return self._decode

    def _train_phase(self) -> None:
        self.emit(PhaseStarted(phase="train", total=self.schedule.total_steps, unit="steps"))
