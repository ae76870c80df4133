"""What the engine's tests share: a few small clips, their cache made once, and runs on nano that take seconds."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pytest

from ltx2core.config.load import LoadedConfig, load_config_dict
from ltx2core.data.write import write_video
from ltx2core.runs.journal import read_journal
from ltx2core.training.session import TrainingSession

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ltx2core.runs.control import Control
    from ltx2core.runs.events import Event

WIDTH, HEIGHT, FRAMES, FPS = 64, 64, 9, 25


class MakeConfig(Protocol):
    """A config for a short run on nano without samples; `dataset` and keyword arguments change it, `others` are further datasets."""

    def __call__(
        self, *, folder: Path | None = None, dataset: dict[str, object] | None = None, others: Sequence[object] = (), **keys: object
    ) -> LoadedConfig: ...


class OpenRun(Protocol):
    """A session in the test's root."""

    def __call__(
        self, loaded: LoadedConfig, name: str = "run", *, resume: bool = False, control: Control | None = None
    ) -> TrainingSession: ...


def write_clip(path: Path, *, seed: int, sound: bool = True, caption: str | None = None, frames: int = FRAMES) -> Path:
    """A square that moves over a plain ground, colours and way from `seed`, with a tone."""
    draw = np.random.default_rng(seed)
    ground, colour = draw.integers(0, 255, 3), draw.integers(0, 255, 3)
    pictures = np.empty((frames, HEIGHT, WIDTH, 3), dtype=np.uint8)
    pictures[:] = ground
    for index in range(frames):
        left = 4 + 4 * index
        pictures[index, 20:44, left : left + 20] = colour
    tone = np.sin(2 * np.pi * (200 + 100 * seed) * np.arange(round(16000 * frames / FPS)) / 16000).astype(np.float32) * 0.5
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, pictures, fps=FPS, sound=np.stack([tone, tone]) if sound else None, sample_rate=16000)
    path.with_suffix(".txt").write_text(caption or f"a square number {seed} moves right", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def clips_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of 64x64, 9 frames: the last has no sound."""
    folder = tmp_path_factory.mktemp("engine") / "clips"
    for seed in range(3):
        write_clip(folder / f"clip{seed}.mp4", seed=seed, sound=seed < 2)
    return folder


@pytest.fixture(scope="session")
def make_config(clips_folder: Path) -> MakeConfig:
    def make(
        *, folder: Path | None = None, dataset: dict[str, object] | None = None, others: Sequence[object] = (), **keys: object
    ) -> LoadedConfig:
        values: dict[str, object] = {
            "pretrained_model_name_or_path": "nano",
            "seed": 0,
            "max_train_steps": 4,
            "learning_rate": 1e-3,
            "lora_rank": 4,
            "checkpoint_step_interval": 0,
            "validation_disable": True,
            "eval_steps_interval": 0,
            "gradient_checkpointing": False,
            "validation_resolution": f"{HEIGHT}x{WIDTH}",
            "validation_num_video_frames": FRAMES,
            "validation_num_inference_steps": 2,
            "validation_prompt": "a square number 0 moves right",
        }
        entry: dict[str, object] = {
            "id": "clips",
            "dataset_type": "video",
            "instance_data_dir": str(folder or clips_folder),
            "resolution": HEIGHT,
            "video": {"num_frames": FRAMES},
            "audio": {},
        }
        return load_config_dict(values | keys, base=folder or clips_folder, datasets=[entry | (dataset or {}), *others])

    return make


@pytest.fixture(scope="session")
def warm_cache(make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds what the default config needs."""
    root = tmp_path_factory.mktemp("warm")
    session = TrainingSession(make_config(max_train_steps=1), root=root, name="warm", resume=False)
    assert session.run() == "finished", session.failure
    return root / "cache"


@pytest.fixture
def root(tmp_path: Path, warm_cache: Path) -> Path:
    """A root of the test's own, its cache warm."""
    shutil.copytree(warm_cache, tmp_path / "root" / "cache")
    return tmp_path / "root"


@pytest.fixture
def open_run(root: Path) -> OpenRun:
    def make(loaded: LoadedConfig, name: str = "run", *, resume: bool = False, control: Control | None = None) -> TrainingSession:
        return TrainingSession(loaded, root=root, name=name, resume=resume, control=control)

    return make


def events_of(session: TrainingSession) -> list[Event]:
    """Every event of the session's journal."""
    return [entry.event for entry in read_journal(session.folder.journal)]


def watch(session: TrainingSession, *, do: Callable[[Event], None]) -> None:
    """Run the session in this thread, calling `do` with each event as the trainer emits it, in the trainer's thread."""
    from ltx2core.runs import journal

    class Watched(journal.Journal):
        def emit(self, event: Event) -> None:
            super().emit(event)
            do(event)

    import ltx2core.training.session as module

    original = module.Journal
    module.Journal = Watched  # type: ignore[misc]
    try:
        session.run()
    finally:
        module.Journal = original  # type: ignore[misc]
