"""What the journal so far adds up to. Owns every number that a screen or a plain progress line shows; draws nothing, reads no clock.

`reduce` is pure: live runs, attached runs and the plain output all feed it the same entries and get the same state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from ltx2core.runs import events
from ltx2tui import words
from ltx2tui.levels import LevelCurves
from ltx2tui.series import Series

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ltx2core.runs.journal import Entry

Ended = Literal["finished", "stopped", "failed"]
LOG_LINES = 500
SMOOTHING = 0.94  # a step's weight halves every 11 steps


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line for the log: when, how serious, what, and what to do."""

    at: float
    level: events.Level
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """Against the base model, as a share of its loss. band: half the width of the interval, for 95 in 100; None where it is not known."""

    share: float
    band: float | None = None


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Loss on clips never trained on, after `step` steps, and how it changed since the base model: all of it, video and audio."""

    step: int
    loss: float
    change: Change | None = None
    video: Change | None = None
    audio: Change | None = None
    best: bool = False


@dataclass(frozen=True, slots=True)
class Smoothed:
    """A running mean that forgets, with the bias of its start taken out."""

    total: float = 0.0
    weight: float = 0.0

    def with_value(self, value: float) -> Smoothed:
        return Smoothed(self.total * SMOOTHING + value, self.weight * SMOOTHING + 1)

    def with_known(self, value: float | None) -> Smoothed:
        """The same when there is no value."""
        return self if value is None else self.with_value(value)

    @property
    def mean(self) -> float:
        return self.total / self.weight if self.weight else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """A run as its journal tells it. Times are seconds since the epoch; series are indexed by step - 1 (loss) or by sample (memory)."""

    name: str = ""
    pid: int = 0
    session_started_at: float = 0.0
    last_at: float = 0.0
    moved_at: float = 0.0  # of the last event that shows the run gets on: memory and notices come from a stuck one too

    phase: events.Phase | None = None
    phase_started_at: float = 0.0
    phase_done: int = 0
    phase_total: int = 0
    unit: str = ""
    item: str = ""

    step: int = 0
    total_steps: int = 0
    losses: Series = field(default_factory=Series)
    smooth_losses: Series = field(default_factory=Series)
    smoothed: Smoothed = Smoothed()
    seconds: Smoothed = Smoothed()
    engine: events.EngineChosen | None = None
    compute_ms: Smoothed = Smoothed()
    stall_ms: Smoothed = Smoothed()
    link_gb_per_s: float | None = None
    mfu: Smoothed = Smoothed()
    step_samples: Smoothed = Smoothed()  # that a step learns from, over all ranks
    learning_rate: float | None = None
    grad_norm: float | None = None
    bucket: str = ""
    not_finite: int = 0  # steps of this session whose loss was NaN or infinite
    last_not_finite_step: int = 0
    held_out: tuple[HeldOut, ...] = ()
    levels: LevelCurves = field(default_factory=LevelCurves)
    base_loss: float | None = None

    memory: events.MemorySampled | None = None
    ram: Series = field(default_factory=Series)
    vram: Series = field(default_factory=Series)
    ram_peak: int = 0
    vram_peak: int = 0

    samples: tuple[events.SampleReady, ...] = ()
    faults: tuple[events.Notice, ...] = ()  # of samples, which they name
    checkpoints: tuple[events.CheckpointSaved, ...] = ()
    lora: str = ""
    log: tuple[LogLine, ...] = ()
    log_count: int = 0  # lines ever logged; `log` holds the last of them

    ended: Ended | None = None
    failure: events.RunFailed | None = None
    session_seconds: float = 0.0

    @property
    def title(self) -> str:
        """The state in a word or three, for the head of a screen."""
        if self.ended is not None:
            return {"finished": "Finished", "stopped": "Stopped", "failed": "Failed"}[self.ended]
        return words.PHASES[self.phase] if self.phase is not None else "Starting"

    @property
    def seconds_per_step(self) -> float | None:
        """The recent pace of steps, in seconds; None before the first."""
        return self.seconds.mean if self.seconds.weight else None

    @property
    def samples_per_second(self) -> float | None:
        """How many samples are learned from in a second, over all ranks; None before the first step."""
        seconds = self.seconds_per_step
        return self.step_samples.mean / seconds if self.step_samples.weight and seconds else None

    @property
    def progress(self) -> tuple[int, int]:
        """(done, total) of the phase; steps while training. The total is 0 when unknown."""
        if self.phase == "train" or self.ended is not None:
            return self.step, self.total_steps
        return self.phase_done, self.phase_total

    @property
    def seconds_left(self) -> float | None:
        """Until the phase ends, from the recent pace; None while it cannot be told."""
        done, total = self.progress
        if self.ended is not None or not total or done >= total:
            return None
        if self.phase == "train":
            return None if self.seconds_per_step is None else self.seconds_per_step * (total - done)
        elapsed = self.last_at - self.phase_started_at
        return elapsed / done * (total - done) if done and elapsed > 0 else None

    def still_for(self, now: float) -> float:
        """Seconds that nothing got on, when that is more than a wait for slow data or a slow step explains; else 0."""
        if self.ended is not None or not self.moved_at:
            return 0.0
        usual = max(30.0, 10 * self.seconds_per_step) if self.phase == "train" and self.seconds_per_step is not None else 120.0
        return now - self.moved_at if now - self.moved_at > usual else 0.0

    @property
    def is_alarming(self) -> bool:
        """Whether the newest steps had no finite loss."""
        return self.not_finite > 0 and self.last_not_finite_step == self.step


def reduce(state: RunState, entries: Iterable[Entry]) -> RunState:
    """The state after more entries. Unknown events change nothing."""
    for entry in entries:
        state = _after(state, entry.event, entry.at)
    return state


def _after(state: RunState, event: events.Event, at: float) -> RunState:
    match event:
        case events.StepDone():
            return _after_step(state, event, at)
        case events.MemorySampled():
            return _after_memory(state, event, at)
        case events.Progress():
            return replace(state, phase_done=event.done, phase_total=event.total, item=event.item, last_at=at, moved_at=at)
        case events.PassMeasured():
            return state  # its Notice says it
        case events.EngineChosen():
            return replace(state, engine=event, last_at=at)
        case events.PhaseStarted():
            return _after_phase(state, event, at)
        case events.PhaseMeasured() | events.RunPredicted() | events.PhasePredicted():
            return replace(state, last_at=at)
        case events.RunStarted():
            return _after_start(state, event, at)
        case events.LossByLevel():
            return replace(state, levels=state.levels.with_event(event), last_at=at)
        case events.HeldOutMeasured():
            return _after_held_out(state, event, at)
        case events.SampleReady():
            what = f"sample {event.name}" if event.name else "a sample"
            text = f"Step {event.step:,}: {what} was written in {event.seconds:.1f} s."
            faults = tuple(fault for fault in state.faults if fault.sample != event.path)  # of one that it takes the place of
            return _logged(replace(state, samples=(*state.samples, event), faults=faults, last_at=at, moved_at=at), at, "info", text)
        case events.CheckpointSaved():
            text = f"Step {event.step:,}: checkpoint saved."
            return _logged(replace(state, checkpoints=(*state.checkpoints, event), last_at=at, moved_at=at), at, "info", text)
        case events.LoraExported():
            return _logged(
                replace(state, lora=event.path, last_at=at, moved_at=at), at, "info", f"Step {event.step:,}: the LoRA is in {event.path}."
            )
        case events.Notice():
            faults = (*state.faults, event) if event.sample else state.faults
            return _logged(replace(state, faults=faults, last_at=at), at, event.level, event.text, event.fix)
        case events.RunFinished():
            return _after_end(state, event, at)
        case events.RunFailed():
            return _logged(replace(state, ended="failed", failure=event, last_at=at, moved_at=at), at, "error", event.text, event.fix)


def _after_start(state: RunState, event: events.RunStarted, at: float) -> RunState:
    """A session starts from its checkpoint: what an earlier one did after that step is forgotten, what was sampled is kept."""
    resumed = event.resumed_at_step
    state = replace(
        state,
        name=event.name,
        pid=event.pid,
        session_started_at=at,
        last_at=at,
        moved_at=at,
        phase=None,
        phase_done=0,
        phase_total=0,
        step=resumed,
        total_steps=event.total_steps,
        losses=state.losses.first(resumed),
        smooth_losses=state.smooth_losses.first(resumed),
        smoothed=Smoothed(),
        seconds=Smoothed(),
        engine=None,
        compute_ms=Smoothed(),
        stall_ms=Smoothed(),
        link_gb_per_s=None,
        mfu=Smoothed(),
        step_samples=Smoothed(),
        not_finite=0,
        last_not_finite_step=0,
        held_out=tuple(point for point in state.held_out if point.step <= resumed) if resumed else (),
        levels=state.levels.up_to(resumed),
        samples=tuple(sample for sample in state.samples if sample.step <= resumed) if resumed else (),
        ended=None,
        failure=None,
    )
    said = f"Resumed after step {resumed:,}." if resumed else f"Run {event.name} started."
    return _logged(state, at, "info", said)


def _after_phase(state: RunState, event: events.PhaseStarted, at: float) -> RunState:
    return replace(
        state,
        phase=event.phase,
        phase_started_at=at,
        phase_done=0,
        phase_total=event.total,
        total_steps=event.total if event.phase == "train" and event.total else state.total_steps,  # of epochs, known only now
        unit=event.unit,
        item="",
        last_at=at,
        moved_at=at,
    )


def _after_step(state: RunState, event: events.StepDone, at: float) -> RunState:
    finite = event.loss is not None and math.isfinite(event.loss)
    smoothed = state.smoothed.with_value(event.loss) if finite and event.loss is not None else state.smoothed
    index = event.step - 1
    after = replace(
        state,
        step=event.step,
        losses=state.losses.placed(index, event.loss if finite and event.loss is not None else math.nan),
        smooth_losses=state.smooth_losses.placed(index, smoothed.mean if finite else math.nan),
        smoothed=smoothed,
        seconds=state.seconds.with_value(event.seconds),
        compute_ms=state.compute_ms.with_known(event.compute_ms),
        stall_ms=state.stall_ms.with_known(event.stall_ms),
        link_gb_per_s=event.link_gb_per_s,
        mfu=state.mfu.with_known(event.mfu),
        step_samples=state.step_samples.with_known(event.samples),
        learning_rate=event.learning_rate,
        grad_norm=event.grad_norm,
        bucket=event.bucket,
        last_at=at,
        moved_at=at,
    )
    return after if finite else replace(after, not_finite=state.not_finite + 1, last_not_finite_step=event.step)  # a Notice says so


def _after_held_out(state: RunState, event: events.HeldOutMeasured, at: float) -> RunState:
    base = event.base_loss if event.base_loss is not None else event.loss if event.step == 0 else state.base_loss
    point = HeldOut(
        step=event.step,
        loss=event.loss,
        change=_change(event.loss, base, event.loss_band),
        video=_change(event.video_loss, event.base_video_loss, event.video_band),
        audio=_change(event.audio_loss, event.base_audio_loss, event.audio_band),
        best=event.best,
    )
    points = (*(known for known in state.held_out if known.step < event.step), point)
    state = replace(state, held_out=points, base_loss=base, last_at=at, moved_at=at)
    return _logged(state, at, "info", words.held_out(point))


def _change(loss: float | None, base: float | None, band: float | None) -> Change | None:
    if loss is None or not base:
        return None
    return Change(loss / base - 1, None if band is None else band / base)


def _after_memory(state: RunState, event: events.MemorySampled, at: float) -> RunState:
    used = event.vram_used_bytes
    return replace(
        state,
        memory=event,
        ram=state.ram.appended(event.ram_used_bytes),
        vram=state.vram if used is None else state.vram.appended(used),
        ram_peak=max(state.ram_peak, event.ram_used_bytes),
        vram_peak=max(state.vram_peak, used or 0),
        last_at=at,
    )


def _after_end(state: RunState, event: events.RunFinished, at: float) -> RunState:
    state = replace(
        state,
        ended="stopped" if event.stopped else "finished",
        step=max(state.step, event.step),
        session_seconds=event.seconds,
        last_at=at,
        moved_at=at,
    )
    return _logged(state, at, "info", f"{'Stopped' if event.stopped else 'Finished'} after step {event.step:,}.")


def _logged(state: RunState, at: float, level: events.Level, text: str, fix: str = "") -> RunState:
    return replace(state, log=(*state.log[-LOG_LINES + 1 :], LogLine(at, level, text, fix)), log_count=state.log_count + 1)
