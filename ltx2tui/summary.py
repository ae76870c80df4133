"""A run in one line, from the head and the end of its journal: cheap for a list, however long the journals are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ltx2core.runs import events
from ltx2core.runs.folder import list_runs

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.runs.folder import RunFolder

HEAD_BYTES = 64 << 10
END_BYTES = 256 << 10
RunStatus = Literal["training", "finished", "stopped", "failed", "interrupted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a list of runs says about one."""

    folder: RunFolder
    status: RunStatus
    step: int
    total_steps: int
    loss: float | None  # of the last step
    at: float  # of the last line, seconds since the epoch

    @property
    def can_resume(self) -> bool:
        return self.status in ("stopped", "failed", "interrupted") and self.folder.config.exists()

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.folder.name,
            "path": str(self.folder.path),
            "status": self.status,
            "step": self.step,
            "total_steps": self.total_steps,
            "loss": self.loss,
            "updated_at": self.at,
            "lora": str(self.folder.lora) if self.folder.lora.exists() else None,
        }


def summaries(root: Path) -> list[RunSummary]:
    """Every run below a root, the one written to last first."""
    return [summarize(folder) for folder in list_runs(root)]


def summarize(folder: RunFolder) -> RunSummary:
    """A run in one line."""
    step, total, loss, at = 0, 0, None, 0.0
    ended: RunStatus | None = None
    for when, event in _ends(folder.journal):
        at = when
        match event:
            case events.RunStarted():
                total, step, ended = event.total_steps, event.resumed_at_step, None
            case events.PhaseStarted(phase="train", total=steps) if steps:
                total = steps  # of epochs, known only now
            case events.StepDone():
                step, loss = event.step, event.loss
            case events.RunFinished():
                step, ended = event.step, "stopped" if event.stopped else "finished"
            case events.RunFailed():
                ended = "failed"
            case _:
                pass
    status: RunStatus = "training" if folder.is_alive() else ended or "interrupted"
    return RunSummary(folder=folder, status=status, step=step, total_steps=total, loss=loss, at=at)


def _ends(path: Path) -> list[tuple[float, events.Event]]:
    """The events of a journal's first and last bytes, in order."""
    try:
        with path.open("rb") as file:
            data = file.read(HEAD_BYTES)
            length = path.stat().st_size
            if length > len(data):
                file.seek(max(len(data), length - END_BYTES))
                data = data[: data.rfind(b"\n") + 1] + file.read()
    except OSError:
        return []
    found = []
    for line in data.splitlines():
        try:
            value = json.loads(line)
            event = events.from_json(value)
            if event is not None:
                found.append((float(value.get("at", 0.0)), event))
        except (ValueError, TypeError, AttributeError):  # cut by a crash, or by the gap between head and end
            continue
    return found
