"""How large a cache becomes, from shapes alone; and the line that says so before anything is encoded."""

from __future__ import annotations

import shutil
from collections import namedtuple
from typing import TYPE_CHECKING, Any

import pytest
from engine_fixtures import FRAMES, HEIGHT, WIDTH

from ltx2core.caching.room import EntrySizes, describe_room
from ltx2core.caching.store import Store
from ltx2core.data.clip import Bucket
from ltx2core.errors import StorageError
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.latents import audio_steps_for
from ltx2core.models.nano import nano_checkpoint
from ltx2core.models.released import released_config

if TYPE_CHECKING:
    from pathlib import Path

Checkpoint: Any = namedtuple("Checkpoint", ["config"])


@pytest.mark.parametrize(("version", "megabytes"), [("2.0.0", 15.73), ("2.3.0", 12.58), ("2.5.0", 12.58)])
def test_a_thousand_captions_of_a_release_take_at_most_15_8_mb_each(version: str, megabytes: float) -> None:
    size = EntrySizes(Checkpoint(released_config(version))).text()
    assert round(size / 1e6, 2) == megabytes
    assert 1000 * size <= 15.8e9


def test_a_long_clip_takes_little_beside_its_caption() -> None:
    sizes = EntrySizes(Checkpoint(released_config("2.0.0")))
    assert sizes.video(Bucket(width=1280, height=704, frames=121)) == 128 * 16 * 22 * 40 * 2 + 1024
    assert sizes.audio(audio_steps_for(121 / 25)) == 121 * (8 * 16 * 2 + 1) + 1024


def test_real_entries_are_as_large_as_was_said(warm_cache: Path) -> None:
    sizes, store = EntrySizes(open_checkpoint(nano_checkpoint())), Store(warm_cache)
    said = {"video": sizes.video(Bucket(width=WIDTH, height=HEIGHT, frames=FRAMES)), "audio": sizes.audio(audio_steps_for(FRAMES / 25))}
    for kind, path in store.entries():
        if kind in said:
            assert said[kind] - 1024 < path.stat().st_size <= said[kind]
        if kind == "text":
            assert path.stat().st_size <= sizes.text()


def test_a_full_disk_is_one_line_before_anything_is_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = {"video": [3_610_000] * 200, "text": [15_730_000] * 1000}
    assert describe_room(tmp_path, needed).startswith("The cache lacks 200 video (722.0 MB), 1,000 text (15.7 GB): at most 16.5 GB, and ")  # type: ignore[arg-type]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "total used free")(10**11, 9 * 10**10, 10**10))
    with pytest.raises(StorageError) as raised:
        describe_room(tmp_path / "not" / "there", needed)  # type: ignore[arg-type]
    assert "has 10.0 GB free" in raised.value.text
    assert raised.value.fix.startswith("Free 6.5 GB there")
