"""TensorBoard and Weights & Biases: readers of a run's journal on a thread of their own, so that neither can make training wait.

Their packages are optional and imported when a run asks for them. A tracker that fails is said once and left out; the run goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
from importlib import import_module
from threading import Event as Flag
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol

from ltx2core.errors import ConfigError
from ltx2core.runs.events import HeldOutMeasured, MemorySampled, Notice, SampleReady, StepDone
from ltx2core.runs.journal import Tail
from ltx2core.runs.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ltx2core.runs.events import Event
    from ltx2core.runs.folder import RunFolder

TRACKERS = ("tensorboard", "wandb")
_SECONDS = 2.0  # between two looks into the journal


class Tracker(Protocol):
    """Takes numbers and samples of a step."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def sample(self, step: int, path: Path, prompt: str) -> None: ...

    def close(self) -> None: ...


def tracker_names(report_to: str) -> tuple[str, ...]:
    """The trackers of a `report_to` that are built; `all` is every one that is."""
    names = [name.strip() for name in report_to.split(",")]
    return TRACKERS if "all" in names else tuple(name for name in TRACKERS if name in names)


def check_trackers(names: Sequence[str]) -> None:
    """Raise ConfigError when a tracker's package is not installed."""
    for name in names:
        try:
            import_module(name)
        except ImportError as error:
            raise ConfigError(
                [f"report_to = {name}: the package {name} is not installed."],
                fix="pip install 'ltx2tui[trackers]', or set report_to to none.",
            ) from error


class TensorBoard:
    """Writes event files into the run's folder. first: the step that a run goes on with; what was written beyond it is hidden."""

    def __init__(self, folder: RunFolder, *, first: int) -> None:
        writer = import_module("torch.utils.tensorboard").SummaryWriter
        self._writer: Any = writer(log_dir=str(folder.path / "tensorboard"), purge_step=first or None)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def sample(self, step: int, path: Path, prompt: str) -> None:
        import numpy as np
        from PIL import Image

        for picture in sorted(path.parent.glob("*.png")):
            with Image.open(picture) as image:
                self._writer.add_image(f"sample/{picture.stem}", np.asarray(image.convert("RGB")), step, dataformats="HWC")
        self._writer.add_text("sample/prompt", prompt, step)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """Sends to Weights & Biases, or writes beside the run where WANDB_MODE is offline. The key comes from a login or WANDB_API_KEY."""

    def __init__(self, folder: RunFolder, *, project: str, name: str, settings: Mapping[str, object]) -> None:
        self._wandb: Any = import_module("wandb")
        identity = hashlib.sha256(str(folder.path.absolute()).encode()).hexdigest()[:16]  # the same when it is resumed
        self._run: Any = self._wandb.init(
            project=project, name=name, id=identity, resume="allow", dir=str(folder.path), config=dict(settings)
        )
        self._run.define_metric("*", step_metric="step")  # so that a resumed run may tell a step again

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def sample(self, step: int, path: Path, prompt: str) -> None:
        self._run.log({"step": step, "sample": self._wandb.Video(str(path), caption=prompt, format="mp4")})

    def close(self) -> None:
        self._run.finish()


class Reporting:
    """Tells trackers what a journal gains while it is open. Use it in a `with`; leaving tells the rest."""

    def __init__(self, folder: RunFolder, makers: Mapping[str, Callable[[], Tracker]], emit: Callable[[Event], None]) -> None:
        """makers: what makes each tracker, called on the thread: connecting to one may take long."""
        self._folder, self._makers, self._emit = folder, makers, emit
        self._tail = Tail(folder.journal)
        self._tail.skip()
        self._over = Flag()
        self._trackers: dict[str, Tracker] = {}
        self._memory: dict[str, float] = {}  # sampled each second, told with each step
        self._step = 0
        self._thread = Thread(target=self._follow, name="trackers", daemon=True)

    def __enter__(self) -> Reporting:
        if self._makers:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _follow(self) -> None:
        for name, make in self._makers.items():
            self._try(name, lambda name=name, make=make: self._trackers.__setitem__(name, make()))  # type: ignore[misc]
        while not self._over.wait(_SECONDS):
            self._tell()
        self._tell()
        for name, tracker in list(self._trackers.items()):
            self._try(name, tracker.close)

    def _tell(self) -> None:
        for entry in self._tail.read():
            event = entry.event
            self._step = event.step if isinstance(event, StepDone) else self._step
            values = numbers_of(event)
            if isinstance(event, MemorySampled):
                self._memory, values = values, {}
            elif isinstance(event, StepDone):
                values |= self._memory
            for name, tracker in list(self._trackers.items()):
                if values:
                    self._try(name, lambda tracker=tracker, values=values: tracker.log(self._step, values))  # type: ignore[misc]
                if isinstance(event, SampleReady):
                    path = self._folder.path / event.path
                    self._try(name, lambda tracker=tracker, event=event, path=path: tracker.sample(event.step, path, event.prompt))  # type: ignore[misc]

    def _try(self, name: str, do: Callable[[], object]) -> None:
        """Do something with a tracker; one that fails is said and left out."""
        try:
            do()
        except Exception as error:  # noqa: BLE001 - the last frame of this thread: a tracker may raise anything
            self._trackers.pop(name, None)
            text = redact(f"{name} is not told of this run any more: {type(error).__name__}: {error}")
            with contextlib.suppress(OSError):
                self._emit(
                    Notice(code="tracker_failed", level="warning", text=text, fix="The journal holds every number; training goes on.")
                )


def numbers_of(event: Event) -> dict[str, float]:
    """What trackers get of an event, by their names; nothing of most."""
    found: dict[str, float | None] = {}
    if isinstance(event, StepDone):
        names = ("loss", "video_loss", "audio_loss", "learning_rate", "grad_norm", "seconds", "similarity")
        found = {f"train/{name}": getattr(event, name) for name in names}
        if event.samples and event.seconds > 0:
            found["train/samples_per_second"] = event.samples / event.seconds
    elif isinstance(event, HeldOutMeasured):
        found = {f"held_out/{name}": getattr(event, name) for name in ("loss", "video_loss", "audio_loss", "base_loss")}
    elif isinstance(event, MemorySampled):
        sizes = {"ram_gib": event.ram_used_bytes, "vram_gib": event.vram_used_bytes}
        found = {f"memory/{name}": None if size is None else size / 2**30 for name, size in sizes.items()}
    return {name: float(value) for name, value in found.items() if value is not None}
