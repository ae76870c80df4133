"""A rank that follows: it trains and measures as rank 0 does, and leaves to it whatever is decided, cached, drawn and written."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch._C._distributed_c10d import FileStore

from ltx2core.config.load import load_config
from ltx2core.distributed.ranks import Together
from ltx2core.errors import RunError
from ltx2core.runs.control import Control
from ltx2core.runs.folder import RunFolder
from ltx2core.training.adapter import load_adapter
from ltx2core.training.agreement import same_devices, same_start
from ltx2core.training.checkpoint import open_step
from ltx2core.training.course import course_of, trainee_of
from ltx2core.training.head_optimizer import load_state
from ltx2core.training.loop import END, Loop
from ltx2core.training.prepare import prepare
from ltx2core.training.settings import loop_settings, schedule_of
from ltx2core.validation.held_out import MEASURE, measure_held_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from ltx2core.distributed.follow import Voice
    from ltx2core.runs.events import Event
    from ltx2core.training.between import Schedule
    from ltx2core.training.trainee import Trainee


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What rank 0 tells the others. config: a file that loads as its own config; step: of the checkpoint that the run goes on from."""

    config: str
    root: str
    run: str
    resume: bool
    step: int | None

    def as_json(self) -> dict[str, object]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Waiting:
    """The loop's `Between` of a rank that follows: it knows what is due, and rank 0 does it."""

    schedule: Schedule

    def due(self, step: int) -> bool:
        return self.schedule.due(step)

    def after_step(self, step: int) -> None:
        return

    def enough(self) -> bool:
        """Rank 0 says so, when it is."""
        return False

    def save(self, step: int) -> None:
        return

    def sample(self, step: int) -> None:
        return


def follow(rank: int, size: int, words: dict[str, Any], voice: Voice, *, go: Callable[[], object]) -> None:
    """Train to the run's end. words: a Task, and the `store` where all meet. go: comes back when all are ready, for connecting has a time
    limit, and rank 0 may encode what samples begin with, or a rank be slow. Raises Ltx2Error."""
    store = words.pop("store")
    task = Task(**words)
    loaded, root = load_config(Path(task.config)), Path(task.root)
    config, folder = loaded.config, RunFolder(root / "runs" / task.run)
    prepared = prepare(loaded, root=root, emit=_unsaid, should_stop=lambda: False)
    cached = prepared.recall(frozenset(json.loads(folder.cached.read_text(encoding="utf-8"))))
    course = course_of(config, prepared, cached, folder=folder, resume=task.resume, emit=_unsaid)
    voice.ready()
    go()
    ranks = Together(FileStore(store, size), rank=rank, size=size, device=prepared.device)
    ranks.connect_cards()
    same_devices(ranks, prepared.device)
    trainee = trainee_of(config, prepared, course, root=root, emit=voice.emit, ranks=ranks)
    start = _go_on_from(folder, task.step, trainee)
    same_start(ranks, trainee.shared, course=f"{course.data} {start} of {course.total_steps}")
    trainee.refresh()

    def serve(word: str) -> None:
        if word != MEASURE:
            raise ValueError(f"rank 0 says {word!r}, which means nothing here")
        with trainee.optimizer.at_rest():
            measure_held_out(
                trainee.model,
                course.reader,
                course.held_out,
                audio_weight=config.audio_loss_weight,
                make_room=trainee.engine.park,
                ranks=ranks,
            )

    loop = Loop(
        model=trainee.model,
        engine=trainee.engine,
        optimizer=trainee.optimizer,
        reader=course.reader,
        clips=course.clips,
        order=course.order,
        settings=loop_settings(config, course.total_steps),
        meter=trainee.meter,
        emit=_unsaid,
        parameters=trainee.parameters,
        ranks=ranks,
        begun=voice.training_begins,
        serve=serve,
    )
    loop.run(start=start, control=Control(), between=Waiting(schedule_of(config, course.total_steps)))
    while (word := ranks.told()) != END:  # of the last step
        serve(word)


def _go_on_from(folder: RunFolder, step: int | None, trainee: Trainee) -> int:
    """Take over a checkpoint that rank 0 has found whole; how many steps are done."""
    if step is None:
        return 0
    saved = open_step(folder.checkpoints, step)
    if saved is None:
        raise RunError(f"{folder.checkpoints} has no whole checkpoint of step {step} any more.", fix="Resume the run again.")
    adapter, state = saved.tensors()
    try:
        load_adapter(trainee.parameters, adapter)
        load_state(trainee.optimizer, state)
    except (KeyError, ValueError) as error:
        raise RunError(f"{saved.folder} does not fit this run: {error}.", fix="Train under another name with --run.") from error
    return saved.step


def _unsaid(_: Event) -> None:
    """Rank 0 says the same."""
