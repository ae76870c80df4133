"""The scenes that snapshots and the pictures in docs/ show: an app each, and how to tell that it shows all it has."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

from ltx2core.hardware.machine import DiskSpeed, Gpu, GpuProcess, Machine, Terminal, TorchBuild
from ltx2core.hardware.rates import BlockTime, Rates
from ltx2core.planning.phases import Phase
from ltx2core.planning.predict import Prediction
from ltx2core.planning.recommend import Recommendation
from ltx2core.runs import events
from ltx2core.runs.events import to_json
from ltx2tui import plan_sheet
from ltx2tui.app import Ltx2App
from ltx2tui.draft import Draft
from tests.app.scripted import GIB, START, Script, ScriptedFeed, training_script

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pydantic import JsonValue
    from textual.pilot import Pilot
    from textual.screen import Screen

    from ltx2core.planning.hardware import Hardware
    from ltx2core.planning.job import Job
    from ltx2core.planning.recommend import Goal
    from ltx2tui.plan_sheet import Known

CAPTION = "A red kite circles over a green valley, wind in the grass."


@dataclass(frozen=True, slots=True)
class Scene:
    """An app before it runs, and what to do until the picture is complete."""

    app: Ltx2App
    complete: Callable[[Pilot[str]], Awaitable[None]]


class SceneApp(Ltx2App):
    """The app on a machine that is the same everywhere."""

    def __init__(
        self, *, root: Path, machine: Machine | None = None, watch: ScriptedFeed | None = None, first: Screen[None] | None = None
    ) -> None:
        super().__init__(root=root, watch=watch, now=lambda: START + 4000)
        self._machine = machine or CPU_ONLY
        self._first = first

    def probe(self, *, measure_disk: bool = True) -> Machine:
        return self._machine

    def open_first(self) -> None:
        if self._first is not None:
            self.push_screen(self._first)
        else:
            super().open_first()


CPU_ONLY = Machine(
    gpus=(),
    driver=None,
    no_gpu_because="No NVIDIA driver was found on this machine.",
    cpu_name="AMD Ryzen 7 7840U",
    cores=8,
    machine_cores=16,
    ram_total_bytes=32 * GIB,
    ram_available_bytes=21 * GIB,
    ram_limited_by="machine",
    disk_path="/home/ada/videos",
    disk_total_bytes=931 * GIB,
    disk_free_bytes=412 * GIB,
    system="Linux 6.12",
    python="3.12.4",
)


def gpu_machine() -> Machine:
    """A machine with everything to tell: a card in use by another, a slow slot, a container, a measured speed."""
    card = Gpu(
        index=0,
        name="NVIDIA GeForce RTX 4090",
        total_bytes=24 * GIB,
        free_bytes=22 * GIB,
        capability=(8, 9),
        percent=0,
        temperature_celsius=38,
        power_watts=22.0,
        uuid="GPU-1",
        used_by_others_bytes=int(1.7 * GIB),
        processes=(
            GpuProcess(pid=900, name="Xorg", used_bytes=int(0.3 * GIB)),
            GpuProcess(pid=4711, name="python3", used_bytes=int(1.4 * GIB)),
        ),
        ecc=False,
        power_limit_watts=300.0,
        default_power_limit_watts=450.0,
        slowed_by=("power limit",),
        mig=False,
        pcie_generation=1,
        pcie_width=8,
        best_pcie_generation=4,
        best_pcie_width=16,
    )
    rates = Rates(
        device="NVIDIA GeForce RTX 4090",
        source="measured",
        bf16_flops_per_second=148e12,
        int8_ops_per_second=251e12,
        fp8_flops_per_second=218e12,
        to_device_bytes_per_second=12.4e9,
        memory_bytes_per_second=887e9,
        launch_seconds=5.2e-6,
        block=BlockTime(video_tokens=2688, audio_tokens=50, video_width=4096, audio_width=2048, seconds=0.0184, captured=True),
    )
    return replace(
        CPU_ONLY,
        gpus=(card,),
        driver="580.65",
        driver_cuda="13.0",
        torch=TorchBuild(version="2.13.0+cu130", cuda="13.0"),
        no_gpu_because=None,
        ram_limited_by="container",
        container=True,
        cpu_quota=8.0,
        swap_total_bytes=8 * GIB,
        shm_total_bytes=16 * GIB,
        shm_free_bytes=16 * GIB,
        disk_speed=DiskSpeed(write_bytes_per_second=1.9e9, read_bytes_per_second=3.1e9),
        terminal=Terminal(term="tmux-256color", multiplexer="tmux", ssh=True, truecolour=True),
        rates=rates,
    )


def write_clip(path: Path, *, flat: bool = False, kite: bool = True, down_by: int = 0) -> None:
    """A clip of a red disc that crosses a field, or of the field alone; `flat` is one colour, which every encoder writes alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    across, down = np.meshgrid(np.arange(256), np.arange(160))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 256, 160, "yuv420p"
        for number in range(24):
            picture = np.stack([40 + down * 0.5, 90 + across * 0.3, 170 - down * 0.6], -1).astype(np.uint8)
            if not kite:
                picture[:] = picture * 0.6 + 40
            picture[kite & ((across - 40 - number * 7) ** 2 + (down - 70 - down_by - 20 * np.sin(number / 4)) ** 2 < 900)] = (220, 50, 40)
            if flat:
                picture[:] = (60, 120, 160)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def write_dataset(folder: Path, *, flat: bool = False) -> None:
    """Six clips of which three are left out, and one is a copy of another."""
    for number in range(3):
        write_clip(folder / f"kite-{number}.mp4", flat=flat, down_by=0 if number == 1 else 50)
        (folder / f"kite-{number}.txt").write_text(CAPTION)
    write_clip(folder / "no-caption.mp4", flat=flat)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "notes.mp4").write_text("not a video at all\n")


def write_run(root: Path, name: str, script: Script) -> None:
    folder = root / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(to_json(entry.event, seconds_since_epoch=entry.at)) for entry in script.entries]
    (folder / "journal.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "config.json").write_text("{}")


def _failed() -> Script:
    text, fix = "/mnt/runs is full: adapter.safetensors was not written.", "Free some space there, then run again; it goes on where it was."
    return training_script(steps=150).add(events.RunFailed(text=text, fix=fix))


def _sampling() -> Script:
    script = training_script(steps=300).add(events.PhaseStarted(phase="sample", total=30, unit="steps"))
    return script.add(events.Progress(phase="sample", done=12, total=30), seconds=4.0)


def _finished() -> Script:
    script = training_script(steps=400, total=400).add(events.LoraExported(step=400, path="lora/red-kite.safetensors"))
    return script.add(events.RunFinished(step=400, stopped=False, seconds=207.0))


RUNS: dict[str, Callable[[], Script]] = {
    "empty": Script,
    "caching": lambda: Script().started().said("info", "Attention: torch SDPA, not compiled.").cached("cache_video", 12, "clips", done=5),
    "training": training_script,
    "paused": training_script,
    "stalled": training_script,
    "training_cpu": lambda: training_script(gpu=False, steps=150),
    "sampling": _sampling,
    "nan": lambda: training_script(steps=150).steps(151, 170, gap=range(160, 171)),
    "failed": _failed,
    "finished": _finished,
    "stopped": lambda: training_script(steps=230).saved(230).add(events.RunFinished(step=230, stopped=True, seconds=140.0)),
}


def run_scene(name: str, folder: Path, *, flat: bool = False) -> Scene:
    """The Run screen in a state of RUNS."""
    script = RUNS[name]()
    write_clip(folder / "samples" / "later" / "0.mp4", flat=flat)
    write_clip(folder / "samples" / "base" / "0.mp4", flat=flat, kite=False)
    ended = name in ("failed", "finished", "stopped")
    feed = ScriptedFeed(script.entries, folder=folder, alive=not ended)
    feed.paused = name == "paused"
    app = SceneApp(root=folder.parent.parent, watch=feed)
    last = script.entries[-1].at if script.entries else 0.0
    app.now = lambda: last + (130 if name == "stalled" else 1)

    async def complete(pilot: Pilot[str]) -> None:
        from ltx2tui.screens.run import RunScreen
        from ltx2tui.widgets.thumbnail import Thumbnail

        def shown() -> bool:
            screen = app.screen
            if not isinstance(screen, RunScreen) or screen.state.last_at != last:
                return False
            pictures = list(screen.query(Thumbnail))
            for picture in pictures:
                picture.autoplay, picture._rounds_left = False, 0  # a size that comes late must not set it going again
                picture.rest()
            return all(picture.path is None or picture.settled for picture in pictures)

        await until(pilot, shown)
        await pilot.pause(0.2)  # what came in between is drawn
        await until(pilot, shown)

    return Scene(app, complete)


def page_scene(name: str, root: Path, *, flat: bool = False) -> Scene:
    """A page of the wizard, or the welcome. The current folder gets a folder of clips; every path on screen is relative."""
    from ltx2tui.screens.dataset import DatasetScreen
    from ltx2tui.screens.hardware import HardwareScreen
    from ltx2tui.screens.review import ReviewScreen
    from ltx2tui.screens.settings import SettingsScreen
    from ltx2tui.screens.welcome import WelcomeScreen

    pages: dict[str, tuple[Callable[[], Screen[None]], str]] = {
        "welcome": (WelcomeScreen, "Runs"),
        "welcome_runs": (WelcomeScreen, "red-kite"),
        "hardware": (HardwareScreen, "Processor"),
        "hardware_gpu": (HardwareScreen, "Processor"),
        "plan": (ScriptedPlanner(flat).screen, "3 Longest clips"),
        "plan_misfit": (ScriptedPlanner(flat, fits=False).screen, "3 Longest clips"),
        "dataset": (DatasetScreen, "usable"),
        "settings": (SettingsScreen, "usually"),
        "review": (ReviewScreen, "set by you"),
    }
    make, sign = pages[name]
    if name == "welcome_runs":
        write_run(root, "red-kite", training_script(steps=200))
        write_run(root, "old-style", training_script(steps=300, total=300).add(events.RunFinished(step=300, stopped=False, seconds=900)))
    if name in ("dataset", "review"):
        write_dataset(Path("clips"), flat=flat)
    machine = gpu_machine() if name in ("hardware_gpu", "plan_misfit") else CPU_ONLY
    if name == "plan_misfit":
        machine = replace(machine, ram_total_bytes=64 * GIB, ram_available_bytes=58 * GIB)
    app = SceneApp(root=root, machine=machine, first=make())
    app.draft = Draft(folder="clips", set_values={"lora_rank": 8, "validation_prompt": CAPTION})

    async def complete(pilot: Pilot[str]) -> None:
        await until(pilot, lambda: sign in shown_text(app) and "Checking …" not in shown_text(app))
        if name == "dataset":
            await until(pilot, lambda: "in all." in shown_text(app))
            from ltx2tui.widgets.clip_table import ClipTable
            from ltx2tui.widgets.thumbnail import Thumbnail

            page, table = app.screen, app.screen.query_one(ClipTable)
            assert isinstance(page, DatasetScreen)
            await until(pilot, lambda: app.focused is table)
            await pilot.press("down")
            await until(pilot, lambda: page._row is not None and page._row.number == table.chosen == 1)
            await until(pilot, lambda: page.query_one(Thumbnail).settled)
        if name == "review":
            from textual.widgets import Input

            app.screen.query_one(Input).value = "red-kite"
            await pilot.pause()

    return Scene(app, complete)


@dataclass(frozen=True, slots=True)
class ScriptedPlanner:
    """A Plan page whose numbers stay the same when the planner's change; with the real ones unless `fixed`."""

    fixed: bool
    fits: bool = True

    def screen(self) -> Screen[None]:
        from ltx2tui.screens.plan import PlanScreen

        return PlanScreen(predict=self.predicted, advise=self.advice) if self.fixed else PlanScreen()

    def predicted(self, draft: Draft, hardware: Hardware, base: Path, known: Known) -> Prediction:
        gib = {"text": 4.2, "encode": 4.3, "train": 21.8, "sample": 16.0, "decode": 18.5 if self.fits else 25.0}
        phases = tuple(
            Phase(name=name, vram={"all": int(amount * GIB)}, ram={"all": 25 * GIB}, seconds=300.0)  # type: ignore[arg-type]
            for name, amount in gib.items()
        )
        misfit = None if self.fits else "Decoding samples needs 25.0 GiB of GPU memory, 3.0 GiB more than the 22.0 GiB that are free."
        return Prediction(
            job=plan_sheet.job_for(draft, base, known),
            plan=None,
            phases=phases,
            step_seconds=2.5,
            total_seconds=6000.0,
            seconds_range=(5400.0, 6600.0),
            fits=self.fits,
            because=("32 of 48 blocks travel from host memory, 16 stay on the card.", "16 blocks are computed twice."),
            misfit=misfit,
        )

    def advice(self, draft: Draft, hardware: Hardware, base: Path, known: Known, *, misfit: Job | None) -> plan_sheet.Advice:
        changes: dict[Goal, dict[str, JsonValue]] = {
            "fastest": {"base_model_precision": "int8dq-torchao"},
            "best_quality": {"gradient_accumulation_steps": 2},
            "longest": {"vae_enable_temporal_roll": True},
        }
        found = tuple(
            Recommendation(
                goal=goal,
                values=values,
                of_datasets={"video.num_frames": 297} if goal == "longest" else {},
                prediction=replace(self.predicted(draft, hardware, base, known), misfit=None, fits=True),
                why=("Weights in 8 bits, multiplied in int8 forwards: 2.50 s a step, 3.10 s in bf16.",),
                binds="GPU memory binds: with enough of it a step would take 2.10 s instead of 2.50 s.",
                next_card="The next size (GeForce RTX 5090, 32 GiB) would give 1.40 s a step instead of 2.50 s.",
            )
            for goal, values in changes.items()
        )
        return plan_sheet.Advice(recommendations=found, remedy="" if self.fits else "Set vae_enable_temporal_roll to true: then it fits.")


def shown_text(app: Ltx2App) -> str:
    """What the screen shows, as plain text."""
    width, height = app.size
    lines = app.screen._compositor.render_strips()
    return "\n".join(strip.text for strip in lines[:height])[: width * height + height]


async def until(pilot: Pilot[str], true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something to become true; no fixed sleeps."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"not seen in time:\n{shown_text(pilot.app)}")  # type: ignore[arg-type]
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.05)  # pilot.pause would wait until the whole process is idle, which followers never are
