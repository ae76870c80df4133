"""A folder of everything that is wrong with clips beside two that are right, from the command line to a trained LoRA."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from engine_fixtures import FRAMES, HEIGHT, WIDTH, write_clip
from processes import ForkedPython

from ltx2core.runs.events import Event, LoraExported, Notice, RunFailed, RunFinished, StepDone
from ltx2core.runs.folder import RunFolder
from ltx2core.runs.journal import read_journal
from ltx2tui import cli

LEFT_OUT = {
    "no-caption.mp4": "missing_caption",
    "empty.mp4": "empty_file",
    "cut.mp4": "truncated",
    "song.mp4": "no_video",
    "notes.mp4": "not_a_video",
    "short.mp4": "too_short",
}
CHANGED = {"odd.mp4": "odd_size", "uneven.mp4": "variable_frame_rate", "phone.mp4": "rotated"}
GOOD = ("good0.mp4", "good1.mp4")

# What fsync does on a disk that fills up while clips are cached: config.json, datasets.json and the cache's first file fit.
FULL_DISK = """
import os, ltx2core.runs.files
real, calls = os.fsync, []
def fsync(descriptor):
    calls.append(descriptor)
    if len(calls) > 6:
        raise OSError(28, "No space left on device")
    real(descriptor)
os.fsync = fsync
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: clips/, datasets.json and a config.json for two small steps on nano."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LTX2TUI_HOME", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "clips").mkdir()
    entry = {"id": "clips", "instance_data_dir": "clips", "resolution": HEIGHT, "video": {"num_frames": FRAMES}, "audio": {}}
    (tmp_path / "datasets.json").write_text(json.dumps([entry]))
    values = {
        "pretrained_model_name_or_path": "nano",
        "data_backend_config": "datasets.json",
        "max_train_steps": 2,
        "lora_rank": 4,
        "validation_disable": True,
        "eval_steps_interval": 0,
        "output_dir": "out",
    }
    (tmp_path / "config.json").write_text(json.dumps(values))
    return tmp_path


@pytest.fixture
def bad_clips(here: Path, make_clip) -> Path:
    """clips/ with the two good clips and each of the others."""
    folder = here / "clips"
    for seed, name in enumerate(GOOD):
        write_clip(folder / name, seed=seed)
    small = {"width": WIDTH, "height": HEIGHT, "frames": FRAMES}
    make_clip("clips/no-caption.mp4", **small, caption=None)
    (folder / "empty.mp4").touch()
    noise = np.random.default_rng(0).integers(0, 255, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    cut = make_clip("clips/cut.mp4", **small, picture=lambda number: noise[number])
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    _keep_sound(make_clip("elsewhere.mp4", **small, sound_seconds=1.0), folder / "song.mp4")
    (folder / "notes.mp4").write_text("Remember to film the kite again.\n")
    for name in ("empty.txt", "song.txt", "notes.txt"):
        (folder / name).write_text("a caption")
    make_clip("clips/short.mp4", width=WIDTH, height=HEIGHT, frames=3)
    make_clip("clips/odd.mp4", width=102, height=78, frames=FRAMES)
    make_clip("clips/uneven.mp4", width=WIDTH, height=HEIGHT, frames=12, times_ms=[number * 40 + 25 * (number % 2) for number in range(12)])
    make_clip("clips/phone.mp4", width=96, height=64, frames=FRAMES, rotation=90)
    return folder


def _keep_sound(source: Path, target: Path) -> None:
    with av.open(str(source)) as original, av.open(str(target), "w") as copy:
        stream = copy.add_stream_from_template(original.streams.audio[0])
        for packet in original.demux(original.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)


@dataclass(frozen=True)
class Done:
    """What a command left when it ended."""

    returncode: int
    stdout: str
    stderr: str


def _train(*words: str, before: str = "") -> Done:
    """`ltx2tui train --config config.json --headless` in a process of its own; `before` runs first."""
    arguments = ["train", "--config", "config.json", "--headless", *words]
    process = ForkedPython(f"{before}\nimport sys\nfrom ltx2tui.cli import main\nsys.exit(main({arguments!r}))")
    out, errors = process.communicate()
    return Done(process.wait(), out, errors)


def _events(folder: RunFolder) -> list[Event]:
    return [entry.event for entry in read_journal(folder.journal)]


def _notices(events: list[Event], name: str) -> list[Notice]:
    return [event for event in events if isinstance(event, Notice) and name in event.text]


@pytest.mark.slow
def test_the_good_clips_are_trained_on_and_each_bad_one_is_named(here: Path, bad_clips: Path) -> None:
    folder = RunFolder(here / "out" / "runs" / "mixed")

    full = _train("--run", "mixed", before=FULL_DISK)
    assert full.returncode == 1, full.stdout + full.stderr
    failed = _events(folder)[-1]
    assert isinstance(failed, RunFailed)
    assert "is full" in failed.text
    assert str(here / "out" / "cache") in failed.text
    assert "Free some space" in " ".join(full.stdout.split())
    before = len(_events(folder))

    done = _train("--run", "mixed")
    assert done.returncode == 0, done.stdout + done.stderr
    events = _events(folder)[before:]
    said = " ".join(done.stdout.split())
    for name, code in LEFT_OUT.items():
        (notice,) = _notices(events, name)
        assert (notice.code, notice.level) == ("clip_left_out", "warning"), code
        assert notice.text.startswith(f"{name} is left out: "), notice.text
        assert notice.fix
        assert notice.text in said
    for name, code in CHANGED.items():
        assert code in {notice.code for notice in _notices(events, name)}, name
    assert not [notice for name in GOOD for notice in _notices(events, name)]
    (dataset,) = [event for event in events if isinstance(event, Notice) and event.code == "dataset"]
    assert "5 clips to train on" in dataset.text
    assert "64x96@9 (1)" in dataset.text  # the phone's, upright
    assert [event.step for event in events if isinstance(event, StepDone)] == [1, 2]
    assert any(isinstance(event, LoraExported) for event in events)
    assert isinstance(events[-1], RunFinished)
    assert folder.lora.exists()


def test_a_check_says_of_each_clip_what_the_run_does(bad_clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "config.json", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    clips = {Path(clip["path"]).name: clip for clip in report["clips"]}
    assert set(clips) == {*LEFT_OUT, *CHANGED, *GOOD}
    for name, code in (LEFT_OUT | CHANGED).items():
        assert code in [issue["code"] for issue in clips[name]["issues"]], clips[name]
        assert (clips[name]["bucket"] is None) == (name in LEFT_OUT)
        assert all(issue["text"] for issue in clips[name]["issues"])
        assert all(issue["fix"] for issue in clips[name]["issues"] if issue["level"] == "error")
    assert cli.main(["check", "clips"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in clips)
    assert "of 11 clips can be trained on" in said


def test_a_folder_without_clips_says_what_to_put_there(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = _train("--run", "none")
    assert done.returncode == 1
    said = " ".join(done.stdout.split())
    assert "clips holds no clips. Put" in said
    assert "Traceback" not in done.stdout + done.stderr
    assert isinstance(_events(RunFolder(here / "out" / "runs" / "none"))[-1], RunFailed)
    assert cli.main(["check", "clips"]) == 1
    assert "holds no clips" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_named_with_a_way_out(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "out").write_text("in the way")
    assert cli.main(["train", "--config", "config.json", "--headless", "--run", "a"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"{here / 'out' / 'runs' / 'a'} cannot be written: ")
    assert "--root" in told[1]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"lora_rnak": 4}', "config.json lora_rnak = 4: there is no such key; use lora_rank."),
        ('{"max_train_steps": "many"}', 'config.json max_train_steps = "many": '),
        ('{"seed": 1,\n "lora_rank": }', "config.json line 2, column 15: "),
    ],
)
def test_a_config_that_cannot_be_used_is_told_in_a_line(text: str, line: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "config.json").write_text(text)
    assert cli.main(["train", "--config", "config.json", "--headless"]) == 1
    told = capsys.readouterr().err
    assert any(said.startswith(line) for said in told.splitlines()), told
    assert not (here / "out").exists()
