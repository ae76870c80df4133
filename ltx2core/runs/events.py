"""What happens in a run, as facts in the past tense: frozen, plain JSON values, one `kind` each.

The loop emits them (runs/journal.py writes them down); the app, `attach`, trackers and the report only read them. A reader
ignores kinds and fields that it does not know, so a newer journal still opens in an older app.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Phase = Literal[
    "scan", "cache_video", "cache_masks", "cache_features", "cache_audio", "cache_text", "load", "train", "evaluate", "sample", "export"
]
Planned = Literal["text", "encode", "train", "sample", "decode"]  # phases as planning counts them
Level = Literal["info", "warning", "error"]
LEVEL_BANDS = 5  # of the noise level: 0 to 0.2, 0.2 to 0.4, ...; the held-out loss is measured in the middle of each


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """First line of a session of a run (a resumed run has one per session)."""

    kind: ClassVar[str] = "run_started"
    name: str
    total_steps: int
    resumed_at_step: int
    pid: int
    version: int = 1  # of this schema


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPredicted:
    """What the planner expects of this session, told before anything is encoded or trained; a PhasePredicted for each phase follows."""

    kind: ClassVar[str] = "run_predicted"
    card: str
    rates: Literal["measured", "card"]  # here, or from the card's datasheet
    correction: float  # what earlier runs on this card have made of the planner's compute times; 1 for nothing
    bucket: str  # of the largest clips, which everything is predicted for
    clips: int | None
    steps: int | None
    step_seconds: float
    total_seconds: float
    fits: bool
    num_blocks: int
    streamed: int  # blocks whose weights travel
    recomputed: int  # blocks that are computed twice


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasePredicted:
    """What a phase should take: memory at its peak, CUDA's context counted, and the seconds of all of it; None where that is not known."""

    kind: ClassVar[str] = "phase_predicted"
    phase: Planned
    vram_bytes: int
    ram_bytes: int
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseStarted:
    """The run went on to another phase; `total` counts what Progress counts, 0 when unknown."""

    kind: ClassVar[str] = "phase_started"
    phase: Phase
    total: int
    unit: str  # what is counted: clips, captions, steps


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseMeasured:
    """A phase is over: what it took, and the most memory it held at once. None where nothing counts it."""

    kind: ClassVar[str] = "phase_measured"
    phase: Phase
    seconds: float
    ram_peak_bytes: int | None = None  # of this process
    vram_peak_bytes: int | None = None  # given out by PyTorch's allocator
    vram_reserved_bytes: int | None = None  # held by it; CUDA's own context comes on top


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """`done` of the phase's `total` are finished; `item` names what was finished last."""

    kind: ClassVar[str] = "progress"
    phase: Phase
    done: int
    total: int
    item: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassMeasured:
    """A pass of the cache is over. Busy: the encoder's device computed. Waited: for clips to be decoded, which may overlap with that."""

    kind: ClassVar[str] = "pass_measured"
    phase: Phase
    entries: int
    seconds: float  # from the first clip's decode on, the encoder being loaded, to the last entry on disk
    busy_seconds: float
    waited_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChosen:
    """What computes the steps from now on: once a session, and again when memory made it change."""

    kind: ClassVar[str] = "engine_chosen"
    engine: Literal["fast", "reference"]
    attention: str  # the kernel
    products: str  # of the frozen weights, such as "bf16" or "fp8 both ways"
    compiled: bool
    captured: bool
    num_blocks: int
    streamed: int  # blocks whose weights travel
    recomputed: int  # blocks that are computed twice
    matmul_tflops: float  # that this device reaches in large products of the type that steps compute in
    ranks: int = 1  # processes, one a GPU, that train together


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """An optimizer step, told one step late so that reading its loss never stops the device."""

    kind: ClassVar[str] = "step_done"
    step: int
    loss: float | None  # None when it was not finite: JSON has no NaN
    video_loss: float | None  # None also where the step had no picture, as audio_loss where it had no sound
    audio_loss: float | None
    learning_rate: float
    grad_norm: float | None
    seconds: float  # wall time of the whole step, waiting for data included
    bucket: str = ""
    similarity: float | None = None  # of CREPA: how near the model's features are to those they are drawn to
    compute_ms: float | None = None  # of the device, without stall_ms; None where it was not measured, as in a step that is captured
    stall_ms: float | None = None  # in which the device computed nothing, waiting for weights
    link_gb_per_s: float | None = None  # of weights on their way to the device, while they came; None where none travel
    mfu: float | None = None  # operations that the step needs / (seconds x the device's measured rate of matrix products)
    samples: int | None = None  # that the step learned from, over all ranks; the losses and the norm are over all ranks, too


@dataclass(frozen=True, slots=True, kw_only=True)
class LossByLevel:
    """Mean training loss of each band of the noise level since the last such line, every 25 steps and before anything between steps.

    video, audio: LEVEL_BANDS means, None for a band without samples; the counts say of how many samples they are.
    """

    kind: ClassVar[str] = "loss_by_level"
    step: int
    video: tuple[float | None, ...]
    video_counts: tuple[int, ...]
    audio: tuple[float | None, ...]
    audio_counts: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("video", "video_counts", "audio", "audio_counts"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutMeasured:
    """Loss on clips never trained on, at fixed sigmas and fixed noise; step 0 is the base model.

    A band is half the width of the interval, for 95 in 100, of the change since then, clip by clip (validation/paired.py); None with a
    single clip, or where there is nothing to compare with.
    """

    kind: ClassVar[str] = "held_out_measured"
    step: int
    loss: float
    video_loss: float | None
    audio_loss: float | None
    base_loss: float | None
    base_video_loss: float | None = None
    base_audio_loss: float | None = None
    loss_band: float | None = None
    video_band: float | None = None
    audio_band: float | None = None
    clips: int = 0
    best: bool = False  # the lowest loss of the run so far


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySampled:
    """Bytes in use. GPU values are None where there is no GPU."""

    kind: ClassVar[str] = "memory_sampled"
    ram_used_bytes: int  # of this process
    ram_total_bytes: int
    vram_used_bytes: int | None = None
    vram_total_bytes: int | None = None
    gpu_percent: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleReady:
    """A validation clip was written; `path` is relative to the run folder. Samples of one name compare: same seed, size and inputs."""

    kind: ClassVar[str] = "sample_ready"
    step: int
    path: str
    prompt: str
    seconds: float
    name: str = ""  # empty where one sample is made each time
    mode: str = "t2v"  # i2v and s2v start from a picture and follow a sound, is2v does both
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved:
    """A complete checkpoint is on disk; `path` is relative to the run folder."""

    kind: ClassVar[str] = "checkpoint_saved"
    step: int
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraExported:
    """A LoRA file is on disk and was read back; `path` is relative to the run folder."""

    kind: ClassVar[str] = "lora_exported"
    step: int
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something a user should know: a stable code, one sentence, and what to do about it."""

    kind: ClassVar[str] = "notice"
    code: str
    text: str
    fix: str = ""
    level: Level = "info"
    sample: str = ""  # the path of the sample that it is about, as SampleReady has it


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """Last line of a session that ended as it was asked to; `stopped` when before its last step."""

    kind: ClassVar[str] = "run_finished"
    step: int
    stopped: bool
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed:
    """Last line of a session that could not go on. `detail` is the traceback, for a report."""

    kind: ClassVar[str] = "run_failed"
    text: str
    fix: str = ""
    detail: str = ""


Event = (
    RunStarted
    | RunPredicted
    | PhasePredicted
    | PhaseStarted
    | PhaseMeasured
    | Progress
    | PassMeasured
    | EngineChosen
    | StepDone
    | LossByLevel
    | HeldOutMeasured
    | MemorySampled
    | SampleReady
    | CheckpointSaved
    | LoraExported
    | Notice
    | RunFinished
    | RunFailed
)

_BY_KIND: dict[str, type[Any]] = {
    cls.kind: cls
    for cls in (
        RunStarted,
        RunPredicted,
        PhasePredicted,
        PhaseStarted,
        PhaseMeasured,
        Progress,
        PassMeasured,
        EngineChosen,
        StepDone,
        LossByLevel,
        HeldOutMeasured,
        MemorySampled,
        SampleReady,
        CheckpointSaved,
        LoraExported,
        Notice,
        RunFinished,
        RunFailed,
    )
}


def to_json(event: Event, *, seconds_since_epoch: float) -> dict[str, object]:
    """The journal's form of an event: `kind`, `at` (seconds since the epoch) and its fields."""
    return {"kind": event.kind, "at": round(seconds_since_epoch, 3), **dataclasses.asdict(event)}


def from_json(value: dict[str, object]) -> Event | None:
    """The event that a journal line holds; None for a kind, or a shape, that this version does not know."""
    cls = _BY_KIND.get(str(value.get("kind")))
    if cls is None:
        return None
    known = {field.name for field in dataclasses.fields(cls)}
    try:
        event: Event = cls(**{key: item for key, item in value.items() if key in known})
    except TypeError:  # a field that this version requires is missing
        return None
    return event
