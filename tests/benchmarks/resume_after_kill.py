"""Kills a run with SIGKILL at random moments, resumes it, and compares the adapter with that of a run that was left alone.

    python tests/benchmarks/resume_after_kill.py [--trials 5] [--steps 30]

Prints a JSON line for each trial: the step it was killed near, the step it resumed at, and whether the files are equal byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from engine_fixtures import FRAMES, HEIGHT, write_clip

from ltx2core.config.load import load_config_dict, save_config
from ltx2core.runs.events import RunStarted, StepDone
from ltx2core.runs.folder import RunFolder
from ltx2core.runs.journal import read_journal

RUN = """
import sys
from pathlib import Path
from ltx2core.config.load import load_config
from ltx2core.training.session import TrainingSession
config, root, name, resume = sys.argv[1:]
session = TrainingSession(load_config(Path(config)), root=Path(root), name=name, resume=resume == "resume")
sys.exit(0 if session.run() == "finished" else 1)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for seed in range(3):
            write_clip(root / "clips" / f"clip{seed}.mp4", seed=seed, sound=seed < 2)
        whole = _prepare(root, "whole", arguments.steps)
        subprocess.run(_command(root, whole, "start"), check=True)
        expected = _digests(whole, arguments.steps)
        results = [_trial(root, number, arguments.steps, expected) for number in range(arguments.trials)]
    print(json.dumps({"benchmark": "resume_after_kill", "trials": len(results), "equal": sum(results)}))
    return 0 if all(results) else 1


def _trial(root: Path, number: int, steps: int, expected: dict[str, str]) -> bool:
    run = _prepare(root, f"killed-{number}", steps)
    process = subprocess.Popen(_command(root, run, "start"))
    last = random.randrange(1, steps)
    while process.poll() is None and _last_step(run) < last:
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.2))
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed_near = _last_step(run)
    subprocess.run(_command(root, run, "resume"), check=True)
    resumed = [entry.event.resumed_at_step for entry in read_journal(run.journal) if isinstance(entry.event, RunStarted)][-1]
    equal = _digests(run, steps) == expected
    print(json.dumps({"trial": number, "killed_near_step": killed_near, "resumed_at_step": resumed, "equal": equal}), flush=True)
    return equal


def _prepare(root: Path, name: str, steps: int) -> RunFolder:
    values = {
        "pretrained_model_name_or_path": "nano",
        "seed": 0,
        "max_train_steps": steps,
        "learning_rate": 1e-3,
        "lora_rank": 8,
        "lora_dropout": 0.1,
        "caption_dropout_probability": 0.2,
        "lr_scheduler": "cosine",
        "checkpoint_step_interval": 4,
        "checkpoints_total_limit": 2,
        "validation_disable": True,
        "eval_steps_interval": 0,
    }
    entry = {
        "id": "clips",
        "dataset_type": "video",
        "instance_data_dir": str(root / "clips"),
        "resolution": HEIGHT,
        "video": {"num_frames": FRAMES},
        "audio": {},
    }
    run = RunFolder(root / "runs" / name)
    run.create()
    save_config(run, load_config_dict(values, base=root, datasets=[entry]))
    return run


def _command(root: Path, run: RunFolder, how: str) -> list[str]:
    return [sys.executable, "-c", RUN, os.fspath(run.config), os.fspath(root), run.name, how]


def _last_step(run: RunFolder) -> int:
    return max((entry.event.step for entry in read_journal(run.journal) if isinstance(entry.event, StepDone)), default=0)


def _digests(run: RunFolder, step: int) -> dict[str, str]:
    folder = run.step_folder(run.checkpoints, step)
    files = [folder / "adapter.safetensors", folder / "optimizer.safetensors", run.lora]
    return {("lora" if path == run.lora else path.name): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    sys.exit(main())
