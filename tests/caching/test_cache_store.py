"""The store on disk and the names of its entries."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
import torch

from ltx2core.caching.fingerprint import Digests, fingerprint
from ltx2core.caching.store import Store
from ltx2core.errors import Stopped

if TYPE_CHECKING:
    from pathlib import Path


def test_an_entry_reads_back_and_lies_where_its_name_says(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.state("video", "abcd") == "absent"
    store.save("video", "abcd", {"latents": torch.arange(4).to(torch.bfloat16)}, source="clip.mp4")
    assert (tmp_path / "video" / "ab" / "abcd.safetensors").is_file()
    assert store.state("video", "abcd") == "whole"
    loaded = store.load("video", "abcd")
    assert loaded is not None
    assert torch.equal(loaded["latents"], torch.arange(4).to(torch.bfloat16))
    assert [(kind, path.stem) for kind, path in store.entries()] == [("video", "abcd")]


@pytest.mark.parametrize("keep", [0, 7, 40, -1])
def test_an_entry_cut_short_is_damaged_and_reads_as_absent(tmp_path: Path, keep: int) -> None:
    store = Store(tmp_path)
    store.save("text", "abcd", {"video": torch.zeros(64)}, source="a caption")
    path = store.path("text", "abcd")
    path.write_bytes(path.read_bytes()[:keep])
    assert store.state("text", "abcd") == "damaged"
    assert store.load("text", "abcd") is None


def test_any_other_input_gives_another_name() -> None:
    parts = {"source": "aa", "bucket": "64x64@9", "fps": 25.0, "encoder": "e", "pass": "video 1"}
    names = {fingerprint(parts)} | {fingerprint({**parts, key: "other"}) for key in parts}
    assert len(names) == len(parts) + 1
    assert fingerprint(parts) == fingerprint(dict(reversed(parts.items())))


def test_a_digest_is_computed_once_and_again_when_the_file_changes(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"one")
    first = Digests(tmp_path / "digests.json")
    digest = first.of(clip)
    first.save()
    status = clip.stat()
    remembered = Digests(tmp_path / "digests.json")
    assert remembered.of(clip) == digest
    clip.write_bytes(b"two")
    os.utime(clip, ns=(status.st_atime_ns, status.st_mtime_ns))  # same size, same time: the change still shows in ctime
    assert remembered.of(clip) != digest


def test_many_files_are_read_at_once_and_a_stop_keeps_what_was_read(tmp_path: Path) -> None:
    files = [tmp_path / f"clip{index}.mp4" for index in range(20)]
    for index, file in enumerate(files):
        file.write_bytes(bytes([index]) * 1000)
    digests = Digests(tmp_path / "digests.json")
    digests.learn([*files, tmp_path / "gone.mp4"])
    digests.save()
    assert len({digests.of(file) for file in files}) == 20
    read: list[Path] = []
    later = Digests(tmp_path / "later.json")
    with pytest.raises(Stopped):
        later.learn(files, should_stop=lambda: len(read) >= 3 or bool(read.append(tmp_path)))
    assert 0 < len(json.loads((tmp_path / "later.json").read_text())) < 20


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"a": 5}', '{"a": ["x"]}'])
def test_a_damaged_list_of_digests_is_made_again(tmp_path: Path, text: str) -> None:
    (tmp_path / "digests.json").write_text(text)
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"one")
    digests = Digests(tmp_path / "digests.json")
    assert len(digests.of(clip)) == 64
    digests.save()
    assert Digests(tmp_path / "digests.json").of(clip) == digests.of(clip)
