"""Caches that are filled by processes that are killed, and by several at once. Real processes, real kills."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from engine_fixtures import write_clip
from fill_cache import fill
from processes import ForkedPython

from ltx2core.caching.store import Store

if TYPE_CHECKING:
    from pathlib import Path

CLIPS = 4


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for seed in range(CLIPS):
        write_clip(folder / f"clip{seed}.mp4", seed=seed)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    cache = tmp_path_factory.mktemp("uninterrupted")
    fill(clips, cache)
    return _entries(cache)


def _start(clips: Path, cache: Path) -> ForkedPython:
    return ForkedPython("import fill_cache; fill_cache.main()", str(clips), str(cache))


def _entries(cache: Path) -> dict[str, bytes]:
    return {f"{kind}/{path.stem}": path.read_bytes() for kind, path in Store(cache).entries()}


def test_a_cache_whose_process_was_killed_is_filled_up_to_the_same_bytes(
    clips: Path, tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    draw = random.Random(0)
    cache, seen = tmp_path / "cache", 0
    for stage in ("cache_video", "cache_text"):
        process = _start(clips, cache)
        for line in process.stdout:
            if line.startswith(stage):
                break
        time.sleep(draw.random() * 0.2)  # anywhere in what follows: decoding, encoding, writing
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        psutil.wait_procs(children, timeout=20)
        assert not [child for child in children if child.is_running()]  # its decoders end with it
        found = _entries(cache)
        assert seen < len(found) <= len(uninterrupted)
        assert all(uninterrupted[name] == data for name, data in found.items())
        seen = len(found)
    process = _start(clips, cache)
    assert process.communicate()[0].endswith("whole\n")
    assert _entries(cache) == uninterrupted


def test_two_processes_that_fill_one_cache_at_once_leave_what_one_makes(
    clips: Path, tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    cache = tmp_path / "cache"
    processes = [_start(clips, cache) for _ in range(2)]
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert all(text.endswith("whole\n") for text in said)
    assert _entries(cache) == uninterrupted
    assert not list(cache.rglob(".*.tmp.*"))
