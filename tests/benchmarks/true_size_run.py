"""The whole path at true size: clips, caches, training, a sample, the LoRA, a resume. What each phase took and held, as JSON lines.

    python tests/benchmarks/true_size_run.py /data --checkpoint /data/ltx-2-19b-random.safetensors --text-encoder /data/gemma-3-12b-random
    python tests/benchmarks/true_size_run.py /tmp/small --checkpoint nano --size 64 --frames 9 --clips 3    # the script itself, in a minute

Random weights (write_true_size.py makes them) cost what real ones do. Three sessions, each a process of its own as a user starts it:
`cold` fills the caches and trains, `warm` resumes it for a few more steps with everything cached, and `small` reads new captions with
the text encoder streamed from host memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ltx2core.data.write import write_video
from ltx2core.runs.events import LoraExported, PhaseMeasured, RunFailed, RunStarted, SampleReady, StepDone
from ltx2core.runs.folder import RunFolder
from ltx2core.runs.journal import Entry, Tail

GIB = 2**30
FPS = 25


def make_clips(folder: Path, *, count: int, width: int, height: int, frames: int, captions: str) -> None:
    """Clips with something that moves and a tone, each with a caption of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, 200, width, dtype=np.uint8)
    for index in range(count):
        path = folder / f"clip{index:03d}.mp4"
        path.with_suffix(".txt").write_text(f"{captions} number {index} moves to the right while a tone is heard")
        if path.exists():
            continue
        pictures = np.empty((frames, height, width, 3), dtype=np.uint8)
        for frame in range(frames):
            pictures[frame] = np.roll(ramp, 4 * frame + 40 * index)[None, :, None]
        time_of = np.arange(round(16000 * frames / FPS)) / 16000
        tone = 0.4 * np.sin(2 * np.pi * (200 + 20 * index) * time_of).astype(np.float32)
        write_video(path, pictures, fps=FPS, sound=np.stack([tone, tone]), sample_rate=16000)


def write_config(options: argparse.Namespace, clips: Path, *, steps: int, **keys: object) -> Path:
    size = {"resolution": options.size, "video": {"num_frames": options.frames, "frame_rate": FPS}, "audio": {}}
    datasets = options.folder / "datasets.json"
    datasets.write_text(json.dumps([{"id": "clips", "dataset_type": "video", "instance_data_dir": str(clips), **size}]))
    config: dict[str, object] = {
        "pretrained_model_name_or_path": options.checkpoint,
        "data_backend_config": str(datasets),
        "output_dir": str(options.folder),
        "seed": 42,
        "max_train_steps": steps,
        "lora_rank": 32,
        "learning_rate": 1e-4,
        "lr_scheduler": "constant",
        "checkpoint_step_interval": 10,
        "eval_steps_interval": 0,
        "validation_step_interval": 0 if steps <= 1 else steps,
        "disable_benchmark": True,
        "validation_resolution": f"{options.size}x{options.size * 3 // 2}",
        "validation_num_video_frames": options.frames,
        "validation_num_inference_steps": options.sample_steps,
        "validation_prompt": "a picture moves to the right while a tone is heard",
    }
    if options.text_encoder:
        config["pretrained_gemma_model_name_or_path"] = options.text_encoder
    path = options.folder / "config.json"
    path.write_text(json.dumps(config | keys, indent=1))
    return path


def session(name: str, run: str, config: Path, *, resume: bool, root: Path) -> list[Entry]:
    """Train in a process of its own, as `ltx2tui train` does; the session's own journal lines."""
    tail = Tail(RunFolder(root / "runs" / run).journal)
    tail.read()
    started = time.time()
    command = [sys.executable, "-m", "ltx2tui.cli", "train", "--config", str(config), "--headless", "--run", run]
    done = subprocess.run([*command, "--resume"] if resume else command, check=False, stdout=sys.stderr)
    entries = tail.read()
    for failure in (entry.event for entry in entries if isinstance(entry.event, RunFailed)):
        sys.exit(f"{name}: {failure.text} {failure.fix}\n{failure.detail}")
    report(name, entries, process_started=started, code=done.returncode)
    return entries


def report(name: str, entries: list[Entry], *, process_started: float, code: int) -> None:
    events = [entry.event for entry in entries]
    steps = [entry for entry in entries if isinstance(entry.event, StepDone)]
    for event in events:
        if isinstance(event, PhaseMeasured):
            peaks = {"ram": event.ram_peak_bytes, "vram": event.vram_peak_bytes, "vram_reserved": event.vram_reserved_bytes}
            line = {f"{kind}_peak_gib": None if value is None else round(value / GIB, 2) for kind, value in peaks.items()}
            print(json.dumps({"session": name, "phase": event.phase, "seconds": round(event.seconds, 2), **line}), flush=True)
    seconds = sorted(entry.event.seconds for entry in steps if isinstance(entry.event, StepDone))
    first = next((entry for entry in entries if isinstance(entry.event, RunStarted)), None)
    result = {
        "session": name,
        "exit_code": code,
        "process_to_first_event": round(first.at - process_started, 2) if first else None,
        # a step is told when the next one has begun: its own time is taken off the second one's
        "process_to_first_step": round(steps[0].at - process_started, 2) if steps else None,
        "steps": len(steps),
        "median_step_seconds": round(seconds[len(seconds) // 2], 3) if seconds else None,
        "losses": [round(entry.event.loss or float("nan"), 4) for entry in steps if isinstance(entry.event, StepDone)][:3],
        "sample_seconds": next((round(event.seconds, 1) for event in events if isinstance(event, SampleReady)), None),
        "lora": next((event.path for event in events if isinstance(event, LoraExported)), None),
    }
    print(json.dumps(result), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--text-encoder", default="")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--size", type=int, default=512, help="the shorter side; the longer is half as long again")
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sample-steps", type=int, default=30)
    parser.add_argument("--sessions", default="cold,warm,small")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    clips, root, wanted = options.folder / "clips", options.folder, options.sessions.split(",")
    shape = {"width": options.size * 3 // 2, "height": options.size, "frames": options.frames}
    make_clips(clips, count=options.clips, captions="a picture", **shape)
    if "cold" in wanted:
        session("cold", "true-size", write_config(options, clips, steps=options.steps), resume=False, root=root)
    if "warm" in wanted:  # no sample: the way from a warm cache to the first step, and a run that is extended
        config = write_config(options, clips, steps=options.steps + 6, validation_disable=True)
        session("warm", "true-size", config, resume=True, root=root)
    if "small" in wanted:
        other = options.folder / "other"
        make_clips(other, count=2, captions="another picture", **shape)
        config = write_config(options, other, steps=1, validation_disable=True, ramtorch_text_encoder=True, checkpoint_step_interval=0)
        session("small", "streamed-text", config, resume=False, root=root)


if __name__ == "__main__":
    main()
