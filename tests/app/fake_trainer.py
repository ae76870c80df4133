"""Run by the pty tests as a program: the real app around a session that writes a journal and answers its socket, without torch.

python fake_trainer.py ROOT app|headless [STEPS]
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2core.config.build import config_for_folder
from ltx2core.runs import events
from ltx2core.runs.control import Control, ControlServer
from ltx2core.runs.folder import RunFolder, RunLock
from ltx2core.runs.journal import Journal
from ltx2tui.training import Launch, Outcome, Training

if TYPE_CHECKING:
    from ltx2core.config.load import LoadedConfig

STEP_SECONDS = 0.02


class FakeSession:
    """Writes what the engine writes, a step every 20 ms, and some output past Python, as a native library would."""

    outcome: Outcome | None = None

    def __init__(self, loaded: LoadedConfig, *, root: Path, name: str, resume: bool, control: Control, steps: int) -> None:
        self.folder = RunFolder(root / "runs" / name)
        self.control, self.steps = control, steps

    def run(self) -> Outcome:
        lock = RunLock(self.folder)
        journal = Journal(self.folder.journal)
        server = ControlServer(self.folder, self.control)
        started = time.monotonic()
        journal.emit(events.RunStarted(name=self.folder.name, total_steps=self.steps, resumed_at_step=0, pid=os.getpid()))
        journal.emit(events.PhaseStarted(phase="train", total=self.steps, unit="steps"))
        step = 0
        while step < self.steps and not self.control.stop_requested:
            self.control.wait_while_paused()
            time.sleep(STEP_SECONDS)
            step += 1
            loss = 0.2 + 1 / (step + 5)
            journal.emit(
                events.StepDone(
                    step=step, loss=loss, video_loss=loss, audio_loss=None, learning_rate=1e-4, grad_norm=0.1, seconds=STEP_SECONDS
                )
            )
            if step % 10 == 0 and sys.argv[2] == "app":
                os.write(2, b"native noise\n")
            if self.control.take_save():
                journal.emit(events.CheckpointSaved(step=step, path=f"checkpoints/step-{step:06d}"))
        stopped = step < self.steps
        if stopped:
            journal.emit(events.CheckpointSaved(step=step, path=f"checkpoints/step-{step:06d}"))
        journal.emit(events.RunFinished(step=step, stopped=stopped, seconds=time.monotonic() - started))
        server.close()
        journal.close()
        lock.release()
        self.outcome = "stopped" if stopped else "finished"
        return self.outcome


def main(root: str, way: str, steps: str = "100000") -> int:
    def open_session(loaded: LoadedConfig, *, root: Path, name: str, resume: bool, control: Control) -> FakeSession:
        return FakeSession(loaded, root=root, name=name, resume=resume, control=control, steps=int(steps))

    launch = Launch(root=Path(root), name="fake", prepare=lambda: config_for_folder(Path(root)))
    if way == "app":
        from ltx2tui.commands.app import open_app

        return open_app(launch.root, launch=launch, open_session=open_session)
    from ltx2tui.commands.train import survive_hang_up
    from ltx2tui.headless import see_to_end

    training = Training(launch, open_session)
    training.folder.create()
    survive_hang_up()
    training.start()
    return see_to_end(training)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
