"""The one way to run: takes a loaded config, trains in the calling thread, and never lets an error escape unsaid.

A session holds the run's lock, serves its control socket and writes its journal. Importing this loads no torch; running does.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from typing import TYPE_CHECKING, Literal

from ltx2core.distributed.places import check_processes
from ltx2core.errors import Ltx2Error, RunError, Stopped
from ltx2core.hardware.phase_meter import PhaseMeter
from ltx2core.hardware.telemetry import Telemetry
from ltx2core.runs.control import Control, ControlServer
from ltx2core.runs.events import Notice, RunFailed, RunFinished, RunStarted
from ltx2core.runs.folder import RunFolder, RunLock
from ltx2core.runs.journal import Journal
from ltx2core.training.compile_cache import kept_kernels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ltx2core.config.load import LoadedConfig
    from ltx2core.hardware.machine import Machine
    from ltx2core.runs.events import Event
    from ltx2core.runs.trackers import Reporting, Tracker

Outcome = Literal["finished", "stopped", "failed"]


class TrainingSession:
    """A run's session, from scanning to the exported LoRA. `run` blocks: a caller with something else to do gives it a thread."""

    def __init__(self, loaded: LoadedConfig, *, root: Path, name: str, resume: bool, control: Control | None = None) -> None:
        self.folder = RunFolder(root / "runs" / name)
        self.control = control or Control()
        self.outcome: Outcome | None = None
        self.failure: RunFailed | None = None
        self._loaded, self._root, self._resume = loaded, root, resume
        self._resumed_at = 0
        self._unserved: Notice | None = None

    def run(self) -> Outcome:
        """Train to the end; how it ended, which the journal says too.

        Raises Ltx2Error only for what keeps the journal from being opened: a run folder that is locked, taken or cannot be written.
        """
        with contextlib.ExitStack() as stack:
            lock = RunLock(self.folder)
            stack.callback(lock.release)
            self._check_name_is_free()
            journal = Journal(self.folder.journal)
            stack.callback(journal.close)
            self._unserved = stack.enter_context(_serving(self.folder, self.control))
            self.outcome = self._run(journal)
        return self.outcome

    def _check_name_is_free(self) -> None:
        from ltx2core.training.checkpoint import latest_complete  # here and below: it reads all of a checkpoint, once a start

        if self._resume or self._loaded.config.resume_from_checkpoint == "latest":
            self._resume = True
            return
        saved, _ = latest_complete(self.folder.checkpoints)
        if saved is not None:
            raise RunError(
                f"The run {self.folder.name!r} exists already and has trained {saved.step} steps.",
                fix="Go on with it by --resume, or choose another name with --run.",
            )

    def _run(self, journal: Journal) -> Outcome:
        begin = time.monotonic()
        try:
            step, stopped = self._train(journal)
        except Stopped as error:
            journal.emit(Notice(code="stopped", text=error.text))
            journal.emit(RunFinished(step=self._resumed_at, stopped=True, seconds=time.monotonic() - begin))
            return "stopped"
        except Ltx2Error as error:
            return self._fail(journal, RunFailed(text=error.text, fix=error.fix, detail=traceback.format_exc()))
        except Exception as error:  # noqa: BLE001 - the last frame of the trainer: what is not said here is never said
            return self._fail(journal, _unexpected(error))
        journal.emit(RunFinished(step=step, stopped=stopped, seconds=time.monotonic() - begin))
        return "stopped" if stopped else "finished"

    def _train(self, journal: Journal) -> tuple[int, bool]:
        from ltx2core.config.load import save_config
        from ltx2core.training.checkpoint import latest_complete

        saved, damaged = latest_complete(self.folder.checkpoints) if self._resume else (None, [])  # else there is none
        self._resumed_at = saved.step if saved is not None else 0
        journal.emit(
            RunStarted(
                name=self.folder.name,
                total_steps=self._loaded.config.max_train_steps,
                resumed_at_step=self._resumed_at,
                pid=os.getpid(),
            )
        )
        meter = PhaseMeter(journal.emit)
        # here: nothing may come before the first line of a session, nor after its last
        with Telemetry(journal.emit), contextlib.closing(meter), kept_kernels():
            machine = self._probe()  # before anything of this process is on the card
            check_processes(self._loaded.config.num_processes, machine)
            for notice in [*self._loaded.notices, *self._warnings(machine), *filter(None, [self._unserved])]:
                journal.emit(notice)
            if saved is None:  # else once the checkpoint fits it: a refused config must not replace the one that works
                save_config(self.folder, self._loaded)
            _let_segments_grow()
            from ltx2core.training.pipeline import Pipeline  # here: loads torch and diffusers, seconds after the first lines

            with self._reporting(meter):
                finished = Pipeline(
                    loaded=self._loaded,
                    root=self._root,
                    folder=self.folder,
                    control=self.control,
                    emit=meter,
                    resume=self._resume,
                    saved=saved,
                    damaged=damaged,
                    machine=machine,
                ).run()
            self._tell_errors(journal)
            if self._loaded.config.push_to_hub and not finished.stopped:
                self._publish(journal)
        return finished.step, finished.stopped

    def _reporting(self, emit: Callable[[Event], None]) -> Reporting:
        """The trackers that the config asks for. Raises ConfigError, before anything is cached, for what would fail after training."""
        from ltx2core.runs.publish import check_login
        from ltx2core.runs.trackers import Reporting, TensorBoard, Wandb, check_trackers, tracker_names

        config, names = self._loaded.config, tracker_names(self._loaded.config.report_to)
        check_trackers(names)
        if config.push_to_hub:
            check_login()
        project, name = config.tracker_project_name or "ltx2tui", config.tracker_run_name or self.folder.name
        settings = config.model_dump(mode="json", exclude_defaults=True, exclude={"webhook_config", "publishing_config"})
        makers: dict[str, Callable[[], Tracker]] = {
            "tensorboard": lambda: TensorBoard(self.folder, first=self._resumed_at + 1),
            "wandb": lambda: Wandb(self.folder, project=project, name=name, settings=settings),
        }
        return Reporting(self.folder, {name: makers[name] for name in names}, emit)

    def _publish(self, journal: Journal) -> None:
        """Upload what was trained; where that fails the run is finished all the same, and this says so."""
        from ltx2core.runs.publish import publish

        config = self._loaded.config
        repository = config.hub_model_id or self.folder.name
        try:
            address = publish(self.folder, repository=repository, private=config.model_card_private, prompt=config.validation_prompt or "")
        except Ltx2Error as error:
            journal.emit(Notice(code="not_published", level="warning", text=error.text, fix=error.fix))
            return
        journal.emit(Notice(code="published", text=f"The LoRA is at {address}."))

    def _probe(self) -> Machine:
        from ltx2core.hardware.probe import probe_machine

        return probe_machine(self._root)

    def _warnings(self, machine: Machine) -> list[Notice]:
        """What of this machine should be known before it trains this config."""
        from ltx2core.planning.before_run import warnings_of

        return warnings_of(machine, self._loaded, root=self._root)

    def _tell_errors(self, journal: Journal) -> None:
        """How near the prediction was, where there was one."""
        from ltx2core.planning.history import checked_in, told

        checked = checked_in(journal.path)
        if checked is not None and (notice := told(checked)) is not None:
            journal.emit(notice)

    def _fail(self, journal: Journal, failure: RunFailed) -> Outcome:
        self.failure = failure
        journal.emit(failure)
        return "failed"


def _let_segments_grow() -> None:
    """Have CUDA's allocator map memory piece by piece, unless the user has set it up: phases of very different sizes leave holes in fixed
    segments that nothing fits in. Captions streamed in 2.4 GiB held 4.5 without. PyTorch reads this when a card is first used."""
    if sys.platform == "linux" and "PYTORCH_ALLOC_CONF" not in os.environ:
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")


@contextlib.contextmanager
def _serving(folder: RunFolder, control: Control) -> Iterator[Notice | None]:
    """The control socket, where the folder can hold one; a run without it trains all the same, and this says so."""
    try:
        server = ControlServer(folder, control)
    except OSError as error:
        text = f"This run has no control socket ({error.strerror or error}), so `attach` can watch it but not steer it."
        yield Notice(code="no_control_socket", level="warning", text=text)
        return
    try:
        yield None
    finally:
        server.close()


def _unexpected(error: Exception) -> RunFailed:
    """The words for an error that nobody foresaw, and for the one that everybody meets."""
    detail = "".join(traceback.format_exception(error))
    if type(error).__name__ == "OutOfMemoryError":
        return RunFailed(
            text="The GPU has run out of memory.",
            fix="Lower the resolution or video.num_frames, set train_batch_size to 1, or turn gradient_checkpointing on.",
            detail=detail,
        )
    text = f"{type(error).__name__}: {error}"
    return RunFailed(
        text=text, fix="Resume from the last checkpoint; if it repeats, report it with the run's journal.jsonl.", detail=detail
    )
