"""Whole runs by the presets at true size, each under the memory of its card: caches, steps, held-out loss, a sample, the LoRA.

    python -m tests.benchmarks.preset_runs /data --checkpoint FILE --text-encoder FOLDER --out presets.jsonl
    ... --gpus 2 --together 4            # so many at once on a card, as their caps leave room; on two cards also presets for two
    ... --presets quickstart,8gb-*       # some of them
    ... --skip-done                      # those that the file does not have yet
    python -m tests.benchmarks.preset_runs /tmp/small --checkpoint nano --small --out small.jsonl    # the script itself, on any machine

Weights are random (write_true_size.py makes them) and cost what real ones do. A run is a process of its own, as a user starts it, with
the preset's config but for the number of steps, of a sample's steps and of samples, which change seconds and not memory;
gpu_memory_limit_gib makes the card as small as the smallest of its size. A line says how the run ended, what it told as warnings, which
rungs of the memory ladder it took, and what each phase was predicted to take and took. Presets of one size share a cache, so that texts
are encoded once for each. Runs that share a card say nothing of seconds. preset_errors.py compares such lines with what is predicted now.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltx2core.config.sources import preset_files
from ltx2core.hardware.limits import available_memory
from ltx2core.planning.history import checked_in
from ltx2core.planning.make_presets import smallest_of
from ltx2core.runs.events import (
    EngineChosen,
    LoraExported,
    Notice,
    PhaseMeasured,
    RunFailed,
    RunFinished,
    RunPredicted,
    SampleReady,
    StepDone,
)
from ltx2core.runs.folder import RunFolder
from ltx2core.runs.journal import read_journal
from tests.benchmarks.card_room import Cards, visible_name
from tests.benchmarks.plan_grid import Out, preset_cases, read_done
from tests.benchmarks.true_size_run import make_clips

GIB = 2**30
CLIPS = 5  # one of them is held out
Preset = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """How runs are made shorter than a user's, and of which files."""

    folder: Path
    checkpoint: str
    text_encoder: str
    steps: int
    sample_steps: int
    small: bool
    limit: float


def limit_gib(preset: Preset) -> float:
    """GiB that a run of it may take of each card: what the smallest card of its size has free."""
    return smallest_of(preset["for"]["gpu_memory_gb"]).free_bytes / GIB


def clips_of(dataset: dict[str, Any], ways: Ways) -> Path:
    """Clips of the preset's size, made where they are not there yet."""
    frames = 9 if ways.small else dataset["video"]["num_frames"]
    height = 64 if ways.small else dataset["resolution"]
    width = {512: 768, 704: 1280, 1088: 1920}.get(height, height * 3 // 2 // 32 * 32)
    folder = ways.folder / "clips" / f"{width}x{height}x{frames}"
    make_clips(folder, count=CLIPS, width=width, height=height, frames=frames, captions="a picture")
    return folder


def shortened(preset: Preset, *, steps: int, sample_steps: int) -> dict[str, Any]:
    """The keys of its config that a short run on a larger card has otherwise."""
    return {
        "gpu_memory_limit_gib": round(limit_gib(preset), 3),
        "max_train_steps": steps,
        "lr_warmup_steps": 1,
        "eval_steps_interval": steps,
        "checkpoint_step_interval": steps,
        "validation_step_interval": steps,
        "validation_num_inference_steps": sample_steps,
        "disable_benchmark": True,
        "validation_prompt": "a picture moves to the right",
    }


def config_of(name: str, preset: Preset, ways: Ways) -> Path:
    """The preset's config and datasets in a folder of its size, with what this script changes."""
    root = root_of(preset, ways)
    root.mkdir(parents=True, exist_ok=True)
    datasets = [dict(one) | {"instance_data_dir": str(clips_of(one, ways))} for one in preset["datasets"]]
    keys = shortened(preset, steps=ways.steps, sample_steps=ways.sample_steps)
    keys |= {"pretrained_model_name_or_path": ways.checkpoint, "output_dir": str(root)}
    if ways.text_encoder:
        keys["pretrained_gemma_model_name_or_path"] = ways.text_encoder
    if ways.small:
        keys |= {"validation_resolution": "64x96", "validation_num_video_frames": 9, "num_processes": 1}
        datasets = [one | {"resolution": 64, "video": {"num_frames": 9}} for one in datasets]
    (root / f"{name}-datasets.json").write_text(json.dumps(datasets, indent=1))
    path = root / f"{name}.json"
    path.write_text(json.dumps(preset["config"] | keys | {"data_backend_config": str(root / f"{name}-datasets.json")}, indent=1))
    return path


def root_of(preset: Preset, ways: Ways) -> Path:
    told = preset["for"]
    return ways.folder / f"{told['gpus']}x{told['gpu_memory_gb']}gb-{told['ram_gb']}"


def run(name: str, preset: Preset, ways: Ways, *, cards: tuple[int, ...], reuse: bool) -> dict[str, Any]:
    """Train by a preset in a process of its own; what its journal says. reuse: that of one that has finished."""
    root, config = root_of(preset, ways), config_of(name, preset, ways)
    folder = RunFolder(root / "runs" / name)
    if reuse and (line := read(folder)).get("finished"):  # while nobody waited for it any more
        return line | {"sample_steps": ways.sample_steps}
    shutil.rmtree(folder.path, ignore_errors=True)
    variables = {"CUDA_VISIBLE_DEVICES": ",".join(visible_name(card) for card in cards)}
    command = [sys.executable, "-m", "ltx2tui.cli", "train", "--config", str(config), "--headless", "--run", name]
    begun = time.monotonic()
    log = root / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | variables, start_new_session=True)
        try:
            status: int | None = process.wait(ways.limit)
        except subprocess.TimeoutExpired:
            status = None
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    seconds = round(time.monotonic() - begun, 1)
    line = read(folder) | {"sample_steps": ways.sample_steps, "exit_status": status, "whole_seconds": seconds}
    if status is None:
        line["error"] = f"took longer than {ways.limit:g} s"
    elif status or not line.get("finished"):
        line.setdefault("error", f"exit status {status}: {log.read_text(errors='replace')[-600:]}")
    return line


def read(folder: RunFolder) -> dict[str, Any]:
    """What a run's journal says of it."""
    if not folder.journal.exists():
        return {}
    events = [entry.event for entry in read_journal(folder.journal)]
    notices = [event for event in events if isinstance(event, Notice)]
    steps = [event for event in events if isinstance(event, StepDone)]
    engines = [event for event in events if isinstance(event, EngineChosen)]
    line: dict[str, Any] = {
        "finished": any(isinstance(event, RunFinished) and not event.stopped for event in events),
        "steps": len(steps),
        "losses": [None if event.loss is None else round(event.loss, 4) for event in steps][:3],
        "samples": sum(isinstance(event, SampleReady) for event in events),
        "loras": sum(isinstance(event, LoraExported) for event in events),
        "rungs": [event.text for event in notices if event.code == "memory_rung"],
        "notices": [event.text for event in notices if event.level != "info" and event.code != "memory_rung"],
        "engines": [{"engine": one.engine, "streamed": one.streamed, "recomputed": one.recomputed} for one in engines],
    }
    idle = {
        event.phase: (event.vram_reserved_bytes - event.vram_peak_bytes) / GIB
        for event in events
        if isinstance(event, PhaseMeasured) and event.vram_reserved_bytes and event.vram_peak_bytes
    }
    line["decoded"] = next((_way(event.text) for event in reversed(notices) if event.code == "sample_decoded_in_parts"), "")
    line["card"] = next((event.card for event in events if isinstance(event, RunPredicted)), "")
    if failure := next((event for event in events if isinstance(event, RunFailed)), None):
        line["error"] = f"{failure.text} {failure.fix}"
    if checked := checked_in(folder.journal):
        line["as_planned"] = checked.as_planned
        line["checks"] = [
            {
                "phase": check.phase,
                "what": check.what,
                "predicted": _shown(check.what, check.predicted),
                "measured": _shown(check.what, check.measured),
            }
            | ({"idle": round(idle[check.phase], 3)} if check.what == "vram" and check.phase in idle else {})
            for check in checked.checks
        ]
    return line


def _way(text: str) -> str:
    """How a run says at last that it decodes samples: what is between the colon and the end of its sentence."""
    return text.partition(": ")[2].partition(" from now on.")[0]


def _shown(what: str, value: float) -> float:
    return round(value / GIB, 3) if what in ("vram", "ram") else round(value, 3)


def chosen(names: str, *, gpus: int, different: bool = False) -> dict[str, Preset]:
    """Presets whose names match one of these patterns, with commas between, and that so many cards can run: first those for most cards, and
    of as many those for the largest. Of one size they come in the order of the patterns.

    different: one of those whose steps are the same on as many cards.
    """
    patterns = names.split(",")

    def place(name: str) -> int:
        return next((place for place, pattern in enumerate(patterns) if fnmatch.fnmatch(name, pattern)), len(patterns))

    found = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in preset_files().items()}
    if different:
        groups = [{found[name]["for"]["gpus"]: name for name in reversed(same.split("+"))} for same in preset_cases()]
        found = {name: found[name] for group in groups for name in group.values()}
    found = dict(sorted(found.items(), key=lambda item: (-item[1]["for"]["gpus"], -limit_gib(item[1]), place(item[0]))))
    return {name: preset for name, preset in found.items() if place(name) < len(patterns) and preset["for"]["gpus"] <= gpus}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--text-encoder", default="")
    parser.add_argument("--out", type=Path, required=True, help="where lines are added")
    parser.add_argument("--presets", default="*", help="names or patterns, with commas between")
    parser.add_argument("--different", action="store_true", help="one of those whose steps are the same on as many cards")
    parser.add_argument("--skip-done", action="store_true", help="leave out what the file has, unless it failed")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--together", type=int, default=1, help="runs at once on a card, as far as their limits leave room")
    parser.add_argument("--card-gib", type=float, default=78.0, help="of a card that runs share")
    parser.add_argument("--ram-gib", type=float, default=0.0, help="of the machine, for all runs; what is free by default")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--sample-steps", type=int, default=4)
    parser.add_argument("--limit", type=float, default=400.0, help="seconds that a run may take")
    parser.add_argument("--within", type=float, default=1e9, help="seconds after which no other run is begun")
    parser.add_argument("--small", action="store_true", help="clips of 9 frames and 64 pixels, for nano")
    options = parser.parse_args()
    ways = Ways(
        folder=options.folder,
        checkpoint=options.checkpoint,
        text_encoder=options.text_encoder,
        steps=options.steps,
        sample_steps=options.sample_steps,
        small=options.small,
        limit=options.limit,
    )
    presets = chosen(options.presets, gpus=options.gpus, different=options.different)
    done = read_done(options.out) if options.skip_done else {}
    presets = {name: preset for name, preset in presets.items() if name not in done or "error" in done[name]}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    ram = options.ram_gib or 0.9 * available_memory() / GIB
    at_once = options.gpus * options.together
    cards = Cards(options.gpus, gib=options.card_gib if options.together > 1 else 0.0, ram_gib=ram, at_once=at_once)
    out, until, making = Out(options.out), time.monotonic() + options.within, threading.Lock()

    def train_all(names: list[str]) -> None:
        """One after another, for they share a cache; all in the same room, which smaller ones would take before the next of them."""
        several = [presets[name] for name in names]
        with making:  # clips, which sizes share
            for name in names:
                config_of(name, presets[name], ways)
        ram = max(preset["predicted"]["ram_gib"] for preset in several)
        with cards.room(limit_gib(several[0]), ram, count=several[0]["for"]["gpus"]) as taken:
            for name, preset in zip(names, several, strict=True):
                if time.monotonic() < until:
                    line = run(name, preset, ways, cards=taken, reuse=options.skip_done)
                    out.write({"case": name, "limit_gib": round(limit_gib(preset), 3), "gpus": preset["for"]["gpus"]} | line)

    sizes: dict[Path, list[str]] = {}
    for name, preset in presets.items():
        sizes.setdefault(root_of(preset, ways), []).append(name)
    with ThreadPoolExecutor(len(sizes) or 1) as pool:
        list(pool.map(train_all, sizes.values()))


if __name__ == "__main__":
    main()
