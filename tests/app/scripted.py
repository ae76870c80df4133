"""Scripted runs: journals as a trainer would write them, and a feed that replays one. No torch, no clock, no threads."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2core.runs import events
from ltx2core.runs.folder import RunFolder
from ltx2core.runs.journal import Entry

if TYPE_CHECKING:
    from ltx2core.runs.control import Request

START = 1_767_268_800.0  # 2026-01-01 12:00:00 UTC
GIB = 1 << 30


class ScriptedFeed:
    """Gives the entries of a script at once, then nothing; notes what it is asked."""

    def __init__(self, entries: list[Entry], *, folder: Path = Path("/tmp/runs/red-kite"), alive: bool = True, here: bool = True) -> None:
        self.folder = RunFolder(folder)
        self.here = here
        self.asked: list[str] = []
        self.paused = False
        self._entries = entries
        self._alive = alive

    def read(self) -> list[Entry]:
        entries, self._entries = self._entries, []
        return entries

    def end(self, *entries: Entry) -> None:
        """The run ends, with these as its last lines."""
        self._entries = list(entries)
        self._alive = False

    def alive(self) -> bool:
        return self._alive

    def ask(self, request: Request) -> dict[str, object]:
        if request != "status":
            self.asked.append(request)
        self.paused = {"pause": True, "resume": False}.get(request, self.paused)
        return {"ok": True, "paused": self.paused, "stopping": "stop" in self.asked}

    def conclusion(self) -> tuple[str, ...]:
        return ()


class Script:
    """Builds a journal line by line; every call moves the clock."""

    def __init__(self, *, gpu: bool = False) -> None:
        self.entries: list[Entry] = []
        self.now = START
        self._random = random.Random(7)
        self._gpu = gpu

    def add(self, *happened: events.Event, seconds: float = 0.0) -> Script:
        for event in happened:
            self.now += seconds
            self.entries.append(Entry(self.now, event))
        return self

    def started(self, total_steps: int = 2000, resumed_at_step: int = 0) -> Script:
        return self.add(events.RunStarted(name="red-kite", total_steps=total_steps, resumed_at_step=resumed_at_step, pid=4242)).memory()

    def memory(self, used: float = 3.1) -> Script:
        vram = int((used * 4.2 + self._random.uniform(-0.4, 0.4)) * GIB) if self._gpu else None
        ram = int((used + self._random.uniform(-0.2, 0.2)) * GIB)
        total = 24 * GIB if self._gpu else None
        percent = 97 if self._gpu else None
        sampled = events.MemorySampled(
            ram_used_bytes=ram, ram_total_bytes=32 * GIB, vram_used_bytes=vram, vram_total_bytes=total, gpu_percent=percent
        )
        return self.add(sampled)

    def cached(self, phase: events.Phase, total: int, unit: str, *, done: int | None = None) -> Script:
        self.add(events.PhaseStarted(phase=phase, total=total, unit=unit))
        for index in range(1, (total if done is None else done) + 1):
            self.add(events.Progress(phase=phase, done=index, total=total, item=f"clip-{index:03d}.mp4"), seconds=1.4).memory(2.0)
        return self

    def train(self, total: int = 2000) -> Script:
        chosen = events.EngineChosen(
            engine="fast" if self._gpu else "reference",
            attention="cudnn" if self._gpu else "PyTorch's choice",
            products="fp8 both ways" if self._gpu else "float32",
            compiled=self._gpu,
            captured=self._gpu,
            num_blocks=48,
            streamed=6 if self._gpu else 0,
            recomputed=20 if self._gpu else 0,
            matmul_tflops=151.0 if self._gpu else 0.08,
        )
        self.add(chosen)
        return self.add(events.PhaseStarted(phase="train", total=total, unit="steps"))

    def steps(self, first: int, last: int, *, gap: range = range(0)) -> Script:
        for step in range(first, last + 1):
            loss = 0.12 + 0.22 * math.exp(-step / 260) + self._random.gauss(0, 0.035)
            self.add(
                events.StepDone(
                    step=step,
                    loss=None if step in gap else max(0.02, loss),
                    video_loss=None,
                    audio_loss=None,
                    learning_rate=1e-4,
                    grad_norm=0.31,
                    seconds=0.42,
                    bucket="512x288@57",
                    compute_ms=391.0 if self._gpu else 402.0,
                    stall_ms=14.2 if self._gpu else 0.0,
                    link_gb_per_s=24.6 if self._gpu else None,
                    mfu=0.44,
                ),
                seconds=0.42,
            )
            if step % 25 == 0:
                self.levels(step)
            if gap and step == gap[0]:
                text = f"Step {step}: the loss was not a finite number; the LoRA was left as it was."
                fix = "If it goes on, lower learning_rate and look at the clips of this bucket."
                self.add(events.Notice(code="non_finite", level="warning", text=text, fix=fix), seconds=0)
            if step % 3 == 0:
                self.memory()
        return self

    def levels(self, step: int) -> Script:
        """Losses by noise level: much noise is drawn often and learned early, little noise seldom and hardly."""
        falls = [0.6 - 0.12 * band + 0.1 * band * math.exp(-step / 150) for band in range(5)]
        video = tuple(max(0.01, fall + self._random.gauss(0, 0.02)) for fall in falls)
        audio = tuple(max(0.01, 1.4 * fall + self._random.gauss(0, 0.03)) for fall in falls)
        counts = (1, 2, 4, 7, 11)
        return self.add(events.LossByLevel(step=step, video=video, video_counts=counts, audio=audio, audio_counts=counts))

    def held_out(self, step: int, loss: float) -> Script:
        """Half of the loss is the video's, which falls faster than the audio's."""
        audio = 0.12 + 0.4 * (loss - 0.31)
        measured = events.HeldOutMeasured(
            step=step,
            loss=loss,
            video_loss=loss - audio,
            audio_loss=audio,
            base_loss=0.31,
            base_video_loss=0.19,
            base_audio_loss=0.12,
            loss_band=0.006 if step else None,
            video_band=0.008 if step else None,
            audio_band=0.014 if step else None,
            clips=8,
            best=step > 0,
        )
        return self.add(measured)

    def sample(self, step: int) -> Script:
        return self.add(
            events.SampleReady(
                step=step,
                path=f"samples/{'base' if step == 0 else 'later'}/0.mp4",
                prompt="A red kite circles over a green valley, wind in the grass.",
                seconds=11.2,
            )
        )

    def saved(self, step: int) -> Script:
        return self.add(events.CheckpointSaved(step=step, path=f"checkpoints/step-{step:06d}"))

    def said(self, level: events.Level, text: str, fix: str = "") -> Script:
        return self.add(events.Notice(code="scripted", level=level, text=text, fix=fix))


def training_script(*, gpu: bool = True, steps: int = 412, total: int = 2000) -> Script:
    """A run in the middle of its training, with everything in it once."""
    script = Script(gpu=gpu).started(total).said("info", "Attention: torch SDPA, matmul in bfloat16, not compiled.")
    script.said("warning", "video.num_frames = 61: LTX-2 takes 8n + 1 frames; 57 are used.", "Write 57 or 65.")
    script.cached("cache_video", 12, "clips").cached("cache_text", 12, "captions").held_out(0, 0.31).sample(0).train(total)
    for start in range(1, steps + 1, 100):
        last = min(start + 99, steps)
        script.steps(start, last)
        if last % 100 == 0:
            script.saved(last).held_out(last, 0.31 - 0.028 * last / 100).sample(last)
    return script
