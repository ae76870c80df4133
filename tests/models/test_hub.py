from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub

from ltx2core.models.pack import PARTS, TRANSFORMER

MAIN = "ltx-2-19b-dev.safetensors"
PACK = [f"diffusion_models/{TRANSFORMER}", *(part.published for part in PARTS)]
FOLDERS = [
    f"{folder}/{name}"
    for folder in ("transformer", "connectors", "vae", "audio_vae", "vocoder")
    for name in ("config.json", "diffusion_pytorch_model.safetensors")
]
PETABYTE = 10**15

# Calls find_checkpoint with each argument list that comes in, in a process whose hub is the fake one, and prints what came back.
CALLS = """
import json, sys
from pathlib import Path
from ltx2core.errors import Ltx2Error
from ltx2core.models.sources import find_checkpoint
for name, filename, revision in json.loads(sys.argv[1]):
    told = []
    try:
        path = find_checkpoint(name, filename=filename, base=Path("/nowhere"), revision=revision, tell=told.append)
        print(json.dumps({"path": str(path), "told": told}))
    except Ltx2Error as error:
        print(json.dumps({"kind": type(error).__name__, "text": error.text, "fix": error.fix, "told": told}))
"""


def ask(home: Path, url: str, *calls: tuple[str, str | None, str | None], offline: bool = False, token: str = "") -> list[dict[str, Any]]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_HOME": str(home), "HF_ENDPOINT": url, "HF_HUB_OFFLINE": str(int(offline)), "HF_HUB_ETAG_TIMEOUT": "2"}
    environment |= {"HF_TOKEN": token} if token else {}
    done = subprocess.run([sys.executable, "-c", CALLS, json.dumps(calls)], env=environment, check=True, capture_output=True, text=True)
    assert "%|" not in done.stderr  # no bar is drawn: the terminal belongs to the app
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_repository_s_file_is_downloaded_once_at_its_revision(tmp_path: Path) -> None:
    names = {MAIN: b"x" * 5000, "ltx-2-19b-distilled.safetensors": b"other", "README.md": b"hello"}
    with FakeHub({"Lightricks/LTX-2": {"main": names, "v1": {MAIN: b"older"}}}) as hub:
        call: tuple[str, str | None, str | None] = ("Lightricks/LTX-2", None, None)
        found = ask(
            tmp_path,
            hub.url,
            call,
            call,
            ("Lightricks/LTX-2", None, "v1"),
            ("Lightricks/LTX-2", "ltx-2-19b-distilled.safetensors", None),
            token="hf_secret",
        )
        assert [Path(answer["path"]).read_bytes() for answer in found] == [names[MAIN], names[MAIN], b"older", b"other"]
        assert hub.downloads == [MAIN, MAIN, "ltx-2-19b-distilled.safetensors"]
        assert "Bearer hf_secret" in hub.tokens
    assert found[0]["told"][0].startswith(f"Downloads {MAIN}, 0.0 GB of Lightricks/LTX-2, into ")
    assert found[0]["told"][-1] == "0.0 of 0.0 GB of Lightricks/LTX-2 are here."
    assert found[1]["told"] == []
    assert Path(found[0]["path"]).name == MAIN
    # What was downloaded is used with no network, in offline mode too; what was not says so.
    again = ask(tmp_path, hub.url, call, ("Lightricks/LTX-2", None, "v1"), offline=True)
    assert [answer["path"] for answer in again] == [found[0]["path"], found[2]["path"]]
    assert ask(tmp_path, hub.url, call)[0]["path"] == found[0]["path"]
    (lost,) = ask(tmp_path, hub.url, ("Lightricks/LTX-2", None, "v9"), offline=True)
    assert "HF_HUB_OFFLINE is set" in lost["text"]
    assert f"hf download Lightricks/LTX-2 {MAIN} --local-dir models" in lost["fix"]


def test_a_pack_and_a_folder_of_diffusers_are_downloaded_whole_and_nothing_else(tmp_path: Path) -> None:
    pack = {
        name: name.encode()
        for name in [*PACK, "vae/ltx-2.5-video-vae-bf16.safetensors", "diffusion_models/ltx-2.5-22b-distilled-transformer-bf16.safetensors"]
    }
    folders = {
        name: name.encode() for name in [*FOLDERS, "text_encoder/model.safetensors", "transformer/diffusion_pytorch_model.fp16.safetensors"]
    }
    with FakeHub({"Lightricks/LTX-2.5": {"main": pack}, "me/tuned": {"main": folders}}) as hub:
        one, two = ask(tmp_path, hub.url, ("Lightricks/LTX-2.5", None, None), ("me/tuned", None, None))
    assert sorted(hub.downloads) == sorted([*PACK, *FOLDERS])
    assert Path(one["path"]).name == TRANSFORMER
    assert all((Path(one["path"]).parent.parent / name).is_file() for name in PACK)
    assert all((Path(two["path"]) / name).is_file() for name in FOLDERS)
    assert [
        answer["path"] for answer in ask(tmp_path, hub.url, ("Lightricks/LTX-2.5", None, None), ("me/tuned", None, None), offline=True)
    ] == [
        one["path"],
        two["path"],
    ]


def test_what_the_hub_refuses_is_told_with_the_way_out(tmp_path: Path) -> None:
    repositories = {
        "Lightricks/LTX-2": {"main": {MAIN: b"x", "a.safetensors": b"x"}},
        "Lightricks/LTX-2.5": {"main": {}},
        "me/pictures": {"main": {"a.png": b"x"}},
    }
    with FakeHub(repositories, gated="Lightricks/LTX-2.5", told_sizes={MAIN: PETABYTE}) as hub:
        gated, unknown, revision, filename, pictures, full = ask(
            tmp_path,
            hub.url,
            ("Lightricks/LTX-2.5", None, None),
            ("Lightricks/LTX-3", None, None),
            ("Lightricks/LTX-2", None, "v9"),
            ("Lightricks/LTX-2", "mine.safetensors", None),
            ("me/pictures", None, None),
            ("Lightricks/LTX-2", None, None),
        )
    assert "licence" in gated["text"]
    assert "https://huggingface.co/Lightricks/LTX-2.5" in gated["fix"]
    assert "HF_TOKEN" in gated["fix"]
    assert "'Lightricks/LTX-3' is no file or folder here" in unknown["text"]
    assert "no revision 'v9'" in revision["text"]
    assert "holds no mine.safetensors" in filename["text"]
    assert f"ltx2_checkpoint_filename to one of: a.safetensors, {MAIN}." in filename["fix"]
    assert "holds no ltx-2-19b-dev.safetensors" in pictures["text"]
    assert full["kind"] == "StorageError"
    assert "needs 1000000.0 GB" in full["text"]
    assert "GB free" in full["text"]
    assert "HF_HOME" in full["fix"]
    assert hub.downloads == []


@pytest.mark.parametrize(
    ("repo", "first"), [("Lightricks/LTX-2", MAIN), ("Lightricks/LTX-2.3", "ltx-2.3-22b-dev.safetensors"), ("Lightricks/LTX-2.5", PACK[0])]
)
def test_without_a_network_the_files_to_bring_are_named(tmp_path: Path, repo: str, first: str) -> None:
    (answer,) = ask(tmp_path, "http://127.0.0.1:9", (repo, None, None))
    assert answer["kind"] == "CheckpointError"
    assert "the hub cannot be reached" in answer["text"]
    assert f"hf download {repo} {first}" in answer["fix"]
    if repo.endswith("2.5"):
        assert all(name in answer["fix"] for name in PACK)


def test_a_cache_whose_file_was_cleaned_up_does_not_count(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--Lightricks--LTX-2"
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc\n")
    file = repository / "snapshots" / "abc" / MAIN
    file.symlink_to(repository / "blobs" / "gone")
    (answer,) = ask(tmp_path, "http://127.0.0.1:9", ("Lightricks/LTX-2", None, None), offline=True)
    assert "HF_HUB_OFFLINE" in answer["text"]
    file.unlink()
    file.write_bytes(b"x")
    found = ask(tmp_path, "http://127.0.0.1:9", ("Lightricks/LTX-2", None, None), ("Lightricks/LTX-2", None, "abc"), offline=True)
    assert [answer["path"] for answer in found] == [str(file), str(file)]  # by branch and by commit


def test_a_folder_of_diffusers_whose_download_broke_off_goes_on(tmp_path: Path) -> None:
    index = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}).encode()
    files = {name: b"x" for name in FOLDERS if name != "transformer/diffusion_pytorch_model.safetensors"}
    files |= {f"transformer/model-0000{part}-of-00002.safetensors": b"x%d" % part for part in (1, 2)}
    files["transformer/model.safetensors.index.json"] = index
    with FakeHub({"me/tuned": {"main": files}}) as hub:
        (first,) = ask(tmp_path, hub.url, ("me/tuned", None, None))
        shard = Path(first["path"]) / "transformer" / "model-00002-of-00002.safetensors"
        shard.resolve().unlink()
        hub.downloads.clear()
        (second,) = ask(tmp_path, hub.url, ("me/tuned", None, None))
    assert second["path"] == first["path"]
    assert shard.read_bytes() == b"x2"
    assert hub.downloads == ["transformer/model-00002-of-00002.safetensors"]
