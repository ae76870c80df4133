"""`ltx2tui cache` from the command line, on nano and small clips."""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from engine_fixtures import FRAMES, HEIGHT, write_clip

from ltx2core.caching.sharing import claim
from ltx2core.caching.store import Store
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.nano import nano_checkpoint
from ltx2core.runs.files import write_json
from ltx2core.runs.folder import RunFolder, RunLock
from ltx2core.runs.journal import Journal
from ltx2core.training.adapter import AdapterSettings
from ltx2core.training.fast_model import FastSettings, load_fast
from ltx2core.training.rounded_weights import RoundedStore
from ltx2tui import cli


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a config for two clips, one of them with sound."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LTX2TUI_HOME", raising=False)
    for seed in range(2):
        write_clip(tmp_path / "clips" / f"clip{seed}.mp4", seed=seed, sound=seed == 0)
    entry = {"id": "clips", "instance_data_dir": "clips", "resolution": HEIGHT, "video": {"num_frames": FRAMES}, "audio": {}}
    (tmp_path / "datasets.json").write_text(json.dumps([entry]))
    values = {"pretrained_model_name_or_path": "nano", "data_backend_config": "datasets.json", "output_dir": "out"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    return tmp_path


def _call(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, object]:
    """What a cache command prints as JSON."""
    capsys.readouterr()
    assert cli.main(["cache", *words, "--json"]) == code
    value = json.loads(capsys.readouterr().out)
    assert isinstance(value, dict)
    return value


CONFIG = ("--config", "config.json")


def test_a_cache_is_built_measured_damaged_mended_and_pruned(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _call(capsys, "stat", *CONFIG)["config"] == {"needs": 7, "missing": 7, "not_needed": 0}
    built = _call(capsys, "build", *CONFIG)
    assert built["clips"] == 2
    assert built["made"] == {
        "video": 2,
        "mask": 0,
        "features": 0,
        "audio": 1,
        "text": 4,
    }  # two captions, the empty one, the negative prompt
    assert built["cache"] == str(here / "out" / "cache")
    assert _call(capsys, "build", *CONFIG)["made"] == {"video": 0, "mask": 0, "features": 0, "audio": 0, "text": 0}

    stat = _call(capsys, "stat", *CONFIG)
    expected = {"video": 2, "audio": 1, "text": 4, "mask": 0, "features": 0}
    assert {kind: entry["entries"] for kind, entry in stat["kinds"].items()} == expected  # type: ignore[attr-defined]
    assert stat["config"] == {"needs": 7, "missing": 0, "not_needed": 0}

    verified = _call(capsys, "verify", *CONFIG)
    assert (verified["cache"], verified["entries"], verified["damaged"]) == (built["cache"], 7, [])
    assert [clip["name"] for clip in verified["clips"]] == ["clip0.mp4", "clip1.mp4"]  # type: ignore[attr-defined]
    assert all(clip["decibels"] > 18 for clip in verified["clips"])  # type: ignore[attr-defined]
    damaged = next((here / "out" / "cache" / "video").glob("*/*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-4])
    reason = "it cannot be read, or is cut short"
    assert _call(capsys, "verify", *CONFIG, code=1)["damaged"] == [{"path": str(damaged), "reason": reason}]
    assert cli.main(["cache", "verify", "--root", "out"]) == 1
    said = capsys.readouterr().out
    assert f"{damaged.relative_to(here)} is damaged: {reason}." in said
    assert "7 entries read whole" in said
    assert "cache build" in said
    damaged.unlink()
    assert _call(capsys, "build", *CONFIG)["made"] == {"video": 1, "mask": 0, "features": 0, "audio": 0, "text": 0}

    (here / "clips" / "clip0.txt").write_text("something else")
    assert _call(capsys, "stat", *CONFIG)["config"] == {"needs": 7, "missing": 1, "not_needed": 1}
    assert _call(capsys, "prune", *CONFIG)["removed"] == 1
    assert _call(capsys, "stat", *CONFIG)["config"] == {"needs": 7, "missing": 1, "not_needed": 0}


def test_the_words_say_what_was_made_and_what_is_there(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cache", "build", *CONFIG]) == 0
    said = capsys.readouterr().out
    assert "2 clips to train on, in buckets 64x64@9 (2)." in said
    assert "2 of 2 clips" in said
    assert "holds all that 2 clips need; made now: 2 video, 1 audio, 4 text." in said
    assert cli.main(["cache", "stat", *CONFIG]) == 0
    said = capsys.readouterr().out
    assert "video" in said
    assert "2 entries" in said
    assert "needs 7 entries: 0 missing" in said
    assert cli.main(["cache", "prune", *CONFIG]) == 0
    assert "0 entries removed" in capsys.readouterr().out


def test_latents_of_another_clip_are_found_out_by_decoding_them(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _call(capsys, "build", *CONFIG)
    first, second = (here / "out" / "cache" / "video").glob("*/*.safetensors")
    other = second.read_bytes()
    second.write_bytes(first.read_bytes())
    first.write_bytes(other)  # as whole as before, under each other's name
    verified = _call(capsys, "verify", *CONFIG, code=1)
    assert verified["damaged"] == []
    assert all(clip["decibels"] < 15 for clip in verified["clips"])  # type: ignore[attr-defined]
    assert cli.main(["cache", "verify", *CONFIG, "--clips", "1"]) == 1
    assert "dB: not that clip" in capsys.readouterr().out


def test_rounded_weights_are_shown_verified_and_pruned_where_neither_the_config_nor_a_run_asks_for_them(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((here / "config.json").read_text())
    (here / "config.json").write_text(json.dumps(config | {"base_model_precision": "fp8-quanto"}))
    checkpoint, folder = open_checkpoint(nano_checkpoint()), here / "out" / "cache" / "weights"
    for storage in ("int8", "fp8"):
        load_fast(
            checkpoint,
            settings=FastSettings(storage=storage, compile=False),  # type: ignore[arg-type]
            adapter=AdapterSettings(rank=1),
            audio=False,
            seed=0,
            dtype=torch.float32,
            device=torch.device("cpu"),
            kept=RoundedStore(folder=folder, emit=lambda _: None),
        )
    eight_bit_floats, whole_numbers = (folder / f"{checkpoint.fingerprint('transformer')}.{storage}.rounded" for storage in ("fp8", "int8"))
    sizes = {str(path): path.stat().st_size for path in (eight_bit_floats, whole_numbers)}
    assert _call(capsys, "stat", "--root", str(here / "out"))["weights"] == sizes
    assert cli.main(["cache", "stat", "--root", "out"]) == 0
    assert f"{whole_numbers.relative_to(here)}: rounded weights, " in capsys.readouterr().out
    assert _call(capsys, "verify", "--root", str(here / "out"))["damaged"] == []
    with eight_bit_floats.open("r+b") as file:
        file.seek(-9, os.SEEK_END)
        file.write(b"x")
    (damaged,) = _call(capsys, "verify", "--root", str(here / "out"), code=1)["damaged"]  # type: ignore[misc]
    assert damaged["path"] == str(eight_bit_floats)
    listed = _call(capsys, "prune", *CONFIG, "--list")["weights"]
    assert listed == {"files": [str(whole_numbers)], "bytes": sizes[str(whole_numbers)]}
    run = RunFolder(here / "out" / "runs" / "older")
    run.create()
    Journal(run.journal).close()
    write_json(run.config, {"base_model_precision": "int8-quanto"})
    assert _call(capsys, "prune", *CONFIG)["weights"] == {"files": [], "bytes": 0}
    write_json(run.config, {})
    assert cli.main(["cache", "prune", *CONFIG]) == 0
    assert "removed" in capsys.readouterr().out
    assert list(folder.glob("*.rounded")) == [eight_bit_floats]


def test_a_prune_keeps_what_a_run_read_and_lists_amounts_first(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _call(capsys, "build", *CONFIG)
    store = Store(here / "out" / "cache")
    of_a_run = sorted(store.names())[:3]
    folder = RunFolder(here / "out" / "runs" / "older")
    folder.create()
    Journal(folder.journal).close()
    write_json(folder.cached, of_a_run)
    leftover = next(store.entries())[1].with_name(".abc.0123.tmp.safetensors")
    for path, age in ((leftover, 7200), (leftover.with_name(".def.4567.tmp.safetensors"), 0)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    listed = _call(capsys, "prune", "--root", "out", "--list")
    assert (listed["removed"], listed["leftovers"], listed["kept"], listed["runs"]) == (4, 1, 3, ["older"])
    assert len(store.names()) == 7
    assert cli.main(["cache", "prune", "--root", "out"]) == 0
    assert "4 entries removed" in capsys.readouterr().out
    assert sorted(store.names()) == of_a_run
    assert [path.name for path in (here / "out" / "cache").rglob(".*.tmp.*")] == [".def.4567.tmp.safetensors"]  # being written now


def test_where_nothing_says_what_is_needed_nothing_is_removed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _call(capsys, "build", *CONFIG)
    assert cli.main(["cache", "prune", "--root", "out"]) == 1
    assert "Nothing says what is needed" in capsys.readouterr().err
    with ExitStack() as held:
        assert claim(here / "out" / "cache" / "text", held)
        assert cli.main(["cache", "prune", *CONFIG]) == 1
    assert "Another process fills the cache" in capsys.readouterr().err
    assert len(Store(here / "out" / "cache").names()) == 7


def test_a_cache_that_a_run_reads_is_not_pruned(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(here / "out" / "runs" / "busy")
    lock = RunLock(folder)
    Journal(folder.journal).close()
    try:
        assert cli.main(["cache", "prune", *CONFIG]) == 1
    finally:
        lock.release()
    assert "'busy' reads this cache" in capsys.readouterr().err


def test_a_cache_that_is_not_there_is_empty_and_stays_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stat = _call(capsys, "stat")
    assert stat == {
        "cache": "cache",
        "kinds": {kind: {"entries": 0, "bytes": 0} for kind in ("video", "audio", "text", "mask", "features")},
        "weights": {},
        "config": None,
    }
    assert _call(capsys, "verify")["entries"] == 0
    assert not Path("cache").exists()


def test_building_asks_for_a_config(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["cache", "build"])
    assert ended.value.code == 2
    assert "--config" in capsys.readouterr().err
