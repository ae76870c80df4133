"""What was predicted for each run against what was measured, and what that says about this machine's speed. Journals are the only source.

A session's journal holds its prediction (RunPredicted, PhasePredicted) before what came of it (PhaseMeasured, StepDone). Loads no torch.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ltx2core.hardware.device_memory import CONTEXT_BYTES
from ltx2core.planning.clips import ClipShape
from ltx2core.planning.model_sizes import released_sizes
from ltx2core.planning.several import EXCHANGE_BYTES
from ltx2core.planning.step_memory import kernels_bytes
from ltx2core.runs.events import (
    EngineChosen,
    Notice,
    PhaseMeasured,
    PhasePredicted,
    PhaseStarted,
    RunFinished,
    RunPredicted,
    RunStarted,
    StepDone,
    from_json,
)
from ltx2core.runs.folder import list_runs
from ltx2core.runs.journal import read_journal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from ltx2core.planning.hardware import Hardware
    from ltx2core.planning.predict import Prediction
    from ltx2core.runs.events import Event, Phase, Planned
    from ltx2core.runs.journal import Entry

What = Literal["vram", "ram", "seconds", "step"]
GIB = 1 << 30

LEAST_STEPS = 20  # of the largest clips, before a run says anything about speed
LEAST_CORRECTION, MOST_CORRECTION = 0.5, 2.0  # beyond that it is not the card's speed that was off
_WARM_UP = 5  # steps in which blocks are compiled and captured
_READ_STEPS = 200  # of a run, to correct by: a median needs no more
_READ_RUNS = 8  # that were predicted for the card, the newest first
_LOOKED_AT = 64  # runs, to find those
_STALLED = 0.1  # share of a step from which the link binds it, which says nothing about compute
_NEAR = 0.1  # share of blocks that may be held otherwise than planned

# Phases of a run that a planned phase stands for, by what is compared. Samples are drawn and decoded in one phase of a run.
_OF_RUN: dict[Planned, tuple[Phase, ...]] = {
    "text": ("cache_text",),
    "encode": ("cache_video", "cache_masks", "cache_audio"),
    "train": ("train",),
    "sample": ("sample",),
    "decode": ("sample",),
}
_TRAINING: tuple[Phase, ...] = ("load", "train", "evaluate", "export")  # whose seconds `train` counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A number that was predicted, and what came of it: bytes, or seconds of the whole phase or of a step."""

    phase: Planned
    what: What
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """By which share of the measured the prediction was too high; negative: too low."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRun:
    """A session of a run. at: when it began, in seconds since the epoch; as_planned: whether blocks were held as it was predicted for."""

    name: str
    at: float
    card: str
    correction: float
    as_planned: bool
    checks: tuple[Check, ...]


@dataclass(slots=True)
class _Session:
    """What a session's journal says, as far as it is compared."""

    name: str = ""
    at: float = 0.0
    resumed: bool = False
    finished: bool = False
    predicted: RunPredicted | None = None
    phases: list[PhasePredicted] = field(default_factory=list)
    measured: list[PhaseMeasured] = field(default_factory=list)
    totals: dict[Phase, int] = field(default_factory=dict)
    engines: list[EngineChosen] = field(default_factory=list)
    steps: list[StepDone] = field(default_factory=list)

    def take(self, event: Event) -> None:
        match event:
            case RunPredicted():
                self.predicted = event
            case PhasePredicted():
                self.phases.append(event)
            case PhaseStarted():
                self.totals.setdefault(event.phase, event.total)
            case PhaseMeasured():
                self.measured.append(event)
            case EngineChosen():
                self.engines.append(event)
            case StepDone():
                self.steps.append(event)
            case RunFinished():
                self.finished = not event.stopped
            case _:
                pass


def predicted_events(prediction: Prediction, hardware: Hardware) -> Iterator[RunPredicted | PhasePredicted]:
    """A prediction as a journal keeps it."""
    job, plan = prediction.job, prediction.plan
    blocks = released_sizes(job.version, joint=job.audio).blocks
    yield RunPredicted(
        card=hardware.card,
        rates=hardware.rates.source,
        correction=hardware.correction,
        bucket=f"{job.clip.width}x{job.clip.height}@{job.clip.frames}",
        clips=job.clips,
        steps=job.steps,
        step_seconds=prediction.step_seconds,
        total_seconds=prediction.total_seconds,
        fits=prediction.fits,
        num_blocks=blocks,
        streamed=0 if plan is None else plan.streamed,
        recomputed=0 if plan is None else blocks - plan.kept,
    )
    for phase in prediction.phases:
        yield PhasePredicted(phase=phase.name, vram_bytes=phase.vram_bytes, ram_bytes=phase.ram_bytes, seconds=phase.seconds)


def errors(root: Path) -> tuple[CheckedRun, ...]:
    """Every session below `root` that had a prediction, the newest run first. Phases that were not entered are left out."""
    found: list[CheckedRun] = []
    for folder in list_runs(root):
        checked = [one for session in _sessions(read_journal(folder.journal), folder.name) if (one := _checked(session)) is not None]
        found += reversed(checked)
    return tuple(found)


def checked_in(journal: Path) -> CheckedRun | None:
    """The last session of a journal; None where it had no prediction."""
    sessions = list(_sessions(read_journal(journal), journal.parent.name))
    return _checked(sessions[-1]) if sessions else None


def told(run: CheckedRun) -> Notice | None:
    """The sentence that a run ends with: peaks and step, predicted and measured; None where nothing can be compared."""
    peaks = {what: [check for check in run.checks if check.what == what] for what in ("vram", "ram", "step")}
    said = []
    for what, name in (("vram", "GPU memory"), ("ram", "RAM")):
        if peaks[what]:
            highest = max(peaks[what], key=lambda check: check.measured)
            said.append(f"{name} {highest.predicted / GIB:.1f} GiB, measured {highest.measured / GIB:.1f} ({highest.error:+.0%})")
    if peaks["step"]:
        step = peaks["step"][0]
        said.append(f"a step {step.predicted:.2f} s, measured {step.measured:.2f} ({step.error:+.0%})")
    return Notice(code="prediction_checked", text=f"Predicted: {'; '.join(said)}.") if said else None


def correction(root: Path, hardware: Hardware) -> float:
    """How many times longer than predicted steps have taken on this card: the median over past runs below `root`, within bounds.

    Runs count that were predicted by the same kind of rates, had at least 20 steps of their largest clips, held their blocks nearly as
    planned and were not waiting for the link, or for another GPU. 1.0 where there is none.
    """
    factors: list[float] = []
    for number, folder in enumerate(list_runs(root)):
        if number >= _LOOKED_AT or len(factors) >= _READ_RUNS:
            break
        session = _first_steps(folder.journal)
        if session is not None and (factor := _factor(session, hardware)) is not None:
            factors.append(factor)
    if not factors:
        return 1.0
    return round(min(MOST_CORRECTION, max(LEAST_CORRECTION, statistics.median(factors))), 4)


def _sessions(entries: Iterable[Entry], name: str) -> Iterator[_Session]:
    session: _Session | None = None
    for entry in entries:
        if isinstance(entry.event, RunStarted):
            if session is not None:
                yield session
            session = _Session(name=name, at=entry.at, resumed=entry.event.resumed_at_step > 0)
        elif session is not None:
            session.take(entry.event)
    if session is not None:
        yield session


def _checked(session: _Session) -> CheckedRun | None:
    if session.predicted is None:
        return None
    return CheckedRun(
        name=session.name,
        at=session.at,
        card=session.predicted.card,
        correction=session.predicted.correction,
        as_planned=_as_planned(session, session.predicted),
        checks=tuple(_checks(session, session.predicted)),
    )


def _checks(session: _Session, predicted: RunPredicted) -> Iterator[Check]:
    joined = _joined(session.phases)
    for phase in joined:
        parts = [one for one in session.measured if one.phase in _OF_RUN[phase.phase] and session.totals.get(one.phase) != 0]
        if not parts or (phase.phase == "encode" and session.totals.get("cache_video") == 0):
            continue  # found in the cache; sound or masks of such clips alone are not what was predicted
        vram = [one.vram_reserved_bytes for one in parts if one.vram_reserved_bytes is not None]
        ram = [one.ram_peak_bytes for one in parts if one.ram_peak_bytes]
        if vram:
            yield Check(phase=phase.phase, what="vram", predicted=phase.vram_bytes, measured=max(vram) + _beside(session, phase.phase))
        if ram and not _several(session):  # what is predicted is of all ranks, what is measured of the first
            yield Check(phase=phase.phase, what="ram", predicted=phase.ram_bytes, measured=max(ram))
        seconds = _seconds(session, phase.phase, predicted)
        if phase.seconds and seconds:
            yield Check(phase=phase.phase, what="seconds", predicted=phase.seconds, measured=seconds)
        if phase.phase == "train" and predicted.step_seconds and (steps := _largest(session.steps, predicted)):
            yield Check(phase="train", what="step", predicted=predicted.step_seconds, measured=statistics.median(steps))


def _joined(phases: list[PhasePredicted]) -> Iterator[PhasePredicted]:
    """Phases as a run meets them: drawing and decoding samples are one there, its peaks the higher ones."""
    decode = next((phase for phase in phases if phase.phase == "decode"), None)
    for phase in phases:
        if phase.phase == "decode":
            continue
        if phase.phase != "sample" or decode is None:
            yield phase
            continue
        both = None if phase.seconds is None or decode.seconds is None else phase.seconds + decode.seconds
        yield PhasePredicted(
            phase="sample",
            vram_bytes=max(phase.vram_bytes, decode.vram_bytes),
            ram_bytes=max(phase.ram_bytes, decode.ram_bytes),
            seconds=both,
        )


def _seconds(session: _Session, phase: Planned, predicted: RunPredicted) -> float | None:
    """What all of a phase took; None where less of it was done than was predicted: found in the cache, stopped or resumed."""
    if phase in ("text", "encode"):
        done = session.totals.get("cache_text" if phase == "text" else "cache_video", 0)
        if predicted.clips is None or done < predicted.clips:
            return None
        return sum(one.seconds for one in session.measured if one.phase in _OF_RUN[phase])
    if session.resumed or not session.finished:
        return None
    counted = _TRAINING if phase == "train" else ("sample",)
    return sum(one.seconds for one in session.measured if one.phase in counted)


def _largest(steps: list[StepDone], predicted: RunPredicted) -> list[float]:
    """Seconds of the steps of clips as large as those that were predicted for, once they run warm."""
    tokens = _tokens(predicted.bucket)
    return [step.seconds for step in steps if _tokens(step.bucket) == tokens][_WARM_UP:]


def _tokens(bucket: str) -> int | None:
    try:
        size, frames = bucket.split("@")
        width, height = size.split("x")
        return ClipShape(width=int(width), height=int(height), frames=int(frames)).tokens
    except ValueError:  # of sound alone
        return None


def _as_planned(session: _Session, predicted: RunPredicted) -> bool:
    """Whether blocks were held as predicted, but for a few of them, from the first step to the last."""
    few = _NEAR * predicted.num_blocks
    return bool(session.engines) and all(
        chosen.engine == "fast"
        and abs(chosen.streamed - predicted.streamed) <= few
        and abs(chosen.recomputed - predicted.recomputed) <= few
        for chosen in session.engines
    )


def _factor(session: _Session, hardware: Hardware) -> float | None:
    predicted = session.predicted
    if predicted is None or predicted.card != hardware.card or predicted.rates != hardware.rates.source or not predicted.step_seconds:
        return None
    if not _as_planned(session, predicted) or _waited(session) or _several(session):
        return None
    seconds = _largest(session.steps, predicted)
    if len(seconds) < LEAST_STEPS - _WARM_UP:
        return None
    return predicted.correction * statistics.median(seconds) / predicted.step_seconds


def _beside(session: _Session, phase: str) -> int:
    """What CUDA and NCCL hold, which PyTorch's allocator does not count, as plans take it to be."""
    found = CONTEXT_BYTES
    if phase in ("train", "sample") and _several(session):
        found += EXCHANGE_BYTES
    if phase == "train" and session.engines and session.engines[0].engine == "fast":
        found += kernels_bytes(joint=True, again=any(chosen.recomputed for chosen in session.engines))
    return found


def _several(session: _Session) -> bool:
    """Whether several GPUs trained together."""
    return any(chosen.ranks > 1 for chosen in session.engines)


def _waited(session: _Session) -> bool:
    """Whether steps waited for weights for long, or may have: nothing has measured it."""
    if not any(chosen.streamed for chosen in session.engines):
        return False
    shares = [step.stall_ms / 1000 / step.seconds for step in session.steps if step.stall_ms is not None and step.seconds > 0]
    return not shares or statistics.median(shares) > _STALLED


_WANTED = tuple(f'"{event.kind}"'.encode() for event in (RunStarted, RunPredicted, EngineChosen, StepDone))


def _first_steps(journal: Path) -> _Session | None:
    """A journal's first session up to some hundred steps; None where it begins to train without a prediction.

    Most lines are of no use here and are not parsed: this is read before every plan.
    """
    session = _Session()
    try:
        with journal.open("rb") as file:
            for line in file:
                if not any(kind in line[:80] for kind in _WANTED):
                    continue
                event = _event(line)
                if isinstance(event, RunStarted) and session.engines:
                    break
                if event is not None:
                    session.take(event)
                if session.engines and session.predicted is None:
                    return None
                if len(session.steps) >= _READ_STEPS:
                    break
    except OSError:
        return None
    return session


def _event(line: bytes) -> Event | None:
    try:
        value = json.loads(line)
    except ValueError:  # a line that a killed process left behind
        return None
    return from_json(value) if isinstance(value, dict) else None
