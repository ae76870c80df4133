"""Trackers read what TensorBoard wrote back; Weights & Biases and the hub are a few lines that remember what they were given."""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from ltx2core.errors import ConfigError, RunError
from ltx2core.runs.events import HeldOutMeasured, MemorySampled, Notice, SampleReady, StepDone
from ltx2core.runs.folder import RunFolder
from ltx2core.runs.journal import Journal, read_journal
from ltx2core.runs.publish import check_login, model_card, publish
from ltx2core.runs.secrets import redact
from ltx2core.runs.trackers import Reporting, TensorBoard, Wandb, check_trackers, tracker_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from ltx2core.runs.trackers import Tracker

STEP = StepDone(step=1, loss=0.5, video_loss=0.4, audio_loss=None, learning_rate=1e-3, grad_norm=2.0, seconds=0.1)
TOKEN = "hf_" + "S" * 30


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "one")
    folder.path.mkdir(parents=True)
    return folder


def _tell(folder: RunFolder, make: Callable[[], Tracker], name: str) -> None:
    """A journal with an old event, and new ones while trackers listen."""
    journal = Journal(folder.journal)
    journal.emit(replace(STEP, step=99, loss=9.0))  # of a session before
    sample = folder.path / "samples" / "step-000002"
    sample.mkdir(parents=True)
    Image.fromarray(np.full((8, 8, 3), 200, dtype=np.uint8)).save(sample / "first.png")
    with Reporting(folder, {name: make}, journal.emit):
        journal.emit(MemorySampled(ram_used_bytes=2**30, ram_total_bytes=2**31))
        journal.emit(STEP)
        journal.emit(replace(STEP, step=2, loss=None))
        journal.emit(HeldOutMeasured(step=2, loss=0.3, video_loss=0.2, audio_loss=0.1, base_loss=0.6))
        journal.emit(SampleReady(step=2, path="samples/step-000002/sample.mp4", prompt="a square", seconds=1.0))
    journal.close()


def test_tensorboard_reads_back_every_number_and_no_older_one(folder: RunFolder) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _tell(folder, lambda: TensorBoard(folder, first=1), "tensorboard")
    read = EventAccumulator(str(folder.path / "tensorboard"))
    read.Reload()
    scalars = {tag: [(event.step, round(event.value, 4)) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    assert scalars["train/loss"] == [(1, 0.5)]
    assert scalars["train/video_loss"] == [(1, 0.4), (2, 0.4)]
    assert scalars["held_out/loss"] == [(2, 0.3)]
    assert scalars["memory/ram_gib"] == [(1, 1.0), (2, 1.0)]
    assert "train/audio_loss" not in scalars
    assert read.Tags()["images"] == ["sample/first"]


class FakeWandb(types.ModuleType):
    """Remembers what it is given."""

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__("wandb")
        self.started: dict[str, Any] = {}
        self.logged: list[dict[str, Any]] = []
        self.finished, self.broken = False, broken

    def init(self, **settings: Any) -> FakeWandb:
        self.started = settings
        return self

    def define_metric(self, *_: str, **__: str) -> None: ...

    def Video(self, path: str, **_: str) -> str:  # noqa: N802 - its name
        return path

    def log(self, values: dict[str, Any]) -> None:
        if self.broken:
            raise RuntimeError(f"no network, key {TOKEN}")
        self.logged.append(values)

    def finish(self) -> None:
        self.finished = True


def test_wandb_is_told_numbers_samples_and_settings(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    _tell(folder, lambda: Wandb(folder, project="p", name="n", settings={"lora_rank": 4}), "wandb")
    assert fake.started["project"] == "p"
    assert fake.started["config"] == {"lora_rank": 4}
    assert fake.logged[0] == {
        "step": 1, "train/loss": 0.5, "train/video_loss": 0.4, "train/learning_rate": 1e-3, "train/grad_norm": 2.0, "train/seconds": 0.1,
        "memory/ram_gib": 1.0,
    }  # fmt: skip
    assert fake.logged[-1] == {"step": 2, "sample": str(folder.path / "samples/step-000002/sample.mp4")}
    assert fake.finished


def test_a_tracker_that_fails_is_said_once_without_its_key_and_nothing_is_raised(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(broken=True))
    _tell(folder, lambda: Wandb(folder, project="p", name="n", settings={}), "wandb")
    told = [entry.event for entry in read_journal(folder.journal) if isinstance(entry.event, Notice)]
    assert [notice.code for notice in told] == ["tracker_failed"]
    assert TOKEN not in folder.journal.read_text()


def test_trackers_are_chosen_by_name_and_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracker_names("none") == ()
    assert tracker_names("wandb, tensorboard") == ("tensorboard", "wandb")
    assert tracker_names("all") == ("tensorboard", "wandb")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="wandb is not installed"):
        check_trackers(("wandb",))


def test_tokens_are_hidden_by_value_and_by_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    assert redact(f"a {TOKEN} b 0123456789abcdef https://me:pass@host/x") == "a *** b *** https://***@host/x"
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert redact("next hf_short") == "next hf_short"


class FakeHub:
    """What publishing calls of HfApi."""

    def __init__(self) -> None:
        self.made: dict[str, object] = {}
        self.files: dict[str, bytes] = {}

    def create_repo(self, name: str, **options: object) -> Any:
        self.made = {"name": name, **options}
        return types.SimpleNamespace(repo_id=f"me/{name}")

    def upload_file(self, *, path_or_fileobj: str, path_in_repo: str, repo_id: str, commit_message: str) -> None:
        if repo_id == "me/full":
            raise OSError(f"quota of {TOKEN}")
        self.files[path_in_repo] = Path(path_or_fileobj).read_bytes()


def _lora(folder: RunFolder) -> None:
    import torch
    from safetensors.torch import save_file

    folder.lora.parent.mkdir()
    metadata = {"base_model": "ltx-2-19b-dev.safetensors", "trigger": "zorb", "steps": "7"}
    tensors = {f"diffusion_model.transformer_blocks.0.attn1.to_q.lora_{letter}.weight": torch.ones(2, 2) for letter in "AB"}
    save_file(tensors, folder.lora, metadata=metadata)


def test_a_finished_lora_is_uploaded_with_a_card_and_a_sample(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    _lora(folder)
    sample = folder.samples / "step-000007"
    sample.mkdir(parents=True)
    (sample / "sample.mp4").write_bytes(b"video")
    publish(folder, repository="my-lora", private=True, prompt="a zorb rolls")
    assert hub.made == {"name": "my-lora", "private": True, "exist_ok": True}
    assert set(hub.files) == {"README.md", "one.safetensors", "sample.mp4"}
    card = hub.files["README.md"].decode()
    assert "base_model: Lightricks/LTX-2" in card
    assert "`zorb`" in card
    assert "| steps | 7 |" in card
    assert "a zorb rolls" in card
    with pytest.raises(RunError, match=r"not uploaded to full: OSError: quota of \*\*\*"):
        publish(folder, repository="full", private=True, prompt="")


def test_publishing_without_a_token_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ConfigError, match="no token"):
        check_login()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE"):
        check_login()


def test_a_card_without_a_trigger_or_sample_says_nothing_of_them() -> None:
    card = model_card("x", {"steps": "1"}, prompt="p", sample=False)
    assert "Put `" not in card
    assert "sample.mp4" not in card
