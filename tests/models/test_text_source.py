"""Where the text encoder is looked for, what is fetched from the hub, and what is said when it cannot be. The hub is a server here."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from tiny_text import save_gemma3, save_gemma3_that_sees, save_gemma4_pack

from ltx2core.errors import CheckpointError, StorageError
from ltx2core.models import hub_download
from ltx2core.models.text_source import find_text_encoder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def find(
    base: Path, *, named: str | None = None, model: str = "nano", checkpoint: str = "model.safetensors", tell: Any = lambda _: None
) -> Path:
    return find_text_encoder(named=named, model_name=model, checkpoint=base / checkpoint, revision=None, base=base, tell=tell)


def test_a_named_folder_or_file_is_taken_as_it_is(tmp_path: Path) -> None:
    save_gemma3(tmp_path / "gemma")
    save_gemma4_pack(tmp_path / "gemma4.safetensors")
    assert find(tmp_path, named="gemma") == tmp_path / "gemma"
    assert find(tmp_path, named=str(tmp_path / "gemma4.safetensors")) == tmp_path / "gemma4.safetensors"


def test_the_text_encoder_inside_a_named_model_is_found(tmp_path: Path) -> None:
    save_gemma3(tmp_path / "ltx" / "text_encoder")
    assert find(tmp_path, named="ltx") == tmp_path / "ltx" / "text_encoder"


def test_it_is_found_beside_the_checkpoint_in_its_folder_or_in_its_pack(tmp_path: Path) -> None:
    save_gemma3(tmp_path / "a" / "text_encoder")
    (tmp_path / "a" / "ltx.safetensors").touch()
    assert find(tmp_path, checkpoint="a/ltx.safetensors") == find(tmp_path, checkpoint="a") == tmp_path / "a" / "text_encoder"
    save_gemma4_pack(tmp_path / "b" / "text_encoders" / "gemma4-ltx-2.5-bf16.safetensors")
    found = find(tmp_path, checkpoint="b/diffusion_models/ltx-2.5.safetensors")
    assert found == tmp_path / "b" / "text_encoders" / "gemma4-ltx-2.5-bf16.safetensors"


def test_without_any_the_way_to_get_one_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no text encoder beside model.safetensors".replace(".", r"\.")) as caught:
        find(tmp_path, model=str(tmp_path / "model.safetensors"))
    assert "google/gemma-3-12b-it" in caught.value.fix
    with pytest.raises(CheckpointError, match="is no folder or file here"):
        find(tmp_path, named="./not here")


class Hub:
    """A hub of one kind of answer: files of repositories, or a refusal of every request."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.refusal: tuple[int, str] | None = None  # status, and the hub's own name of the reason
        self.refuses_files_only = False  # as the hub does with a gated repository
        self.fetched: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub.answer(self)

            def do_GET(self) -> None:
                hub.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0].strip("/")
        if self.refusal is not None and (not self.refuses_files_only or "/resolve/" in path):
            self.send(request, self.refusal[0], b"{}", {"X-Error-Code": self.refusal[1], "X-Error-Message": "no"})
            return
        owner, name = path.removeprefix("api/models/").split("/")[:2]
        files = self.files.get(f"{owner}/{name}")
        if files is None:
            self.send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif path.startswith("api/models/"):
            names = [{"rfilename": file, "size": len(data)} for file, data in files.items()]
            tree = [{"type": "file", "path": file, "size": len(data), "oid": _etag(data)} for file, data in files.items()]
            body = tree if "/tree/" in path else {"id": f"{owner}/{name}", "sha": COMMIT, "siblings": names}
            self.send(request, 200, json.dumps(body).encode(), {})
        else:
            data = files[path.split("/resolve/")[1].partition("/")[2]]  # the revision first: a branch, or the commit
            if request.command == "GET":
                self.fetched.append(path.split("/resolve/")[1].partition("/")[2])
            self.send(request, 200, data, {"ETag": f'"{_etag(data)}"', "X-Repo-Commit": COMMIT})

    def send(self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
        request.send_response(status)
        for key, value in {"Content-Length": str(len(body)), "Content-Type": "application/json", **headers}.items():
            request.send_header(key, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    found = Hub()
    for name, value in {"ENDPOINT": found.address, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": False}.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", found.address + "/{repo_id}/resolve/{revision}/{filename}")
    yield found
    found.server.shutdown()
    found.server.server_close()
    found.thread.join()


def files_of(folder: Path, prefix: str = "") -> dict[str, bytes]:
    return {f"{prefix}{path.name}": path.read_bytes() for path in folder.iterdir()}


def test_a_named_repository_is_downloaded_once_and_then_never_asked_for(hub: Hub, tmp_path: Path) -> None:
    save_gemma3_that_sees(tmp_path / "made")
    hub.files["google/gemma-3-12b-it"] = {**files_of(tmp_path / "made"), "README.md": b"large", "original/weights.bin": b"large"}
    told: list[str] = []
    found = find(tmp_path, named="google/gemma-3-12b-it", tell=told.append)
    assert {path.name for path in found.iterdir()} == {path.name for path in (tmp_path / "made").iterdir()} - {"generation_config.json"}
    first, *progress = told
    assert first.startswith("Downloads the text encoder, 0.0 GB of google/gemma-3-12b-it, into ")
    assert progress
    assert all("are here" in text for text in progress)
    hub.refusal = (500, "")
    told.clear()
    assert find(tmp_path, named="google/gemma-3-12b-it", tell=told.append) == found
    assert not told


@pytest.mark.parametrize("repository", ["Lightricks/LTX-2", "someone/mirror"])
def test_of_a_model_s_own_repository_only_the_text_encoder_is_fetched(hub: Hub, tmp_path: Path, repository: str) -> None:
    save_gemma3(tmp_path / "made")
    text = files_of(tmp_path / "made", "text_encoder/")
    tokenizer = {name.replace("text_encoder/", "tokenizer/"): text.pop(name) for name in [name for name in text if "tokenizer" in name]}
    others = {"ltx-2-19b-dev.safetensors": b"43 GB", "transformer/diffusion_pytorch_model.safetensors": b"38 GB", "vae/config.json": b"{}"}
    others |= {"model.safetensors": b"?", "text_encoder/model.fp16.safetensors": b"12 GB"}
    hub.files[repository] = {**text, **tokenizer, **others}
    found = find(tmp_path, model=repository)
    assert found.name == "text_encoder"
    assert (found.parent / "tokenizer" / "tokenizer.json").is_file()
    assert hub.fetched
    assert {*hub.fetched} <= {*text, *tokenizer}


def test_of_the_pack_of_2_5_only_the_text_encoder_s_file_is_fetched(hub: Hub, tmp_path: Path) -> None:
    save_gemma4_pack(tmp_path / "made.safetensors")
    name = "text_encoders/gemma4-12b-with-proj-ltx-2.5-bf16.safetensors"
    hub.files["Lightricks/LTX-2.5"] = {name: (tmp_path / "made.safetensors").read_bytes(), "vae/ltx-2.5-video-vae-bf16.safetensors": b"?"}
    found = find(tmp_path, named="Lightricks/LTX-2.5")
    assert found.name == name.partition("/")[2]
    assert hub.fetched == [name]
    hub.refusal = (500, "")
    assert find(tmp_path, named="Lightricks/LTX-2.5") == found


def test_a_download_that_was_cut_off_is_gone_on_with(hub: Hub, tmp_path: Path) -> None:
    save_gemma3_that_sees(tmp_path / "made")
    hub.files["google/gemma-3-12b-it"] = files_of(tmp_path / "made")
    found = find(tmp_path, named="google/gemma-3-12b-it")
    hub.fetched.clear()
    (found / "model-00002-of-00005.safetensors").unlink(missing_ok=True)
    lost = next(path for path in sorted(found.glob("*.safetensors")))
    lost.unlink()
    assert find(tmp_path, named="google/gemma-3-12b-it") == found
    assert lost.is_file()


@pytest.mark.parametrize(
    ("refusal", "told", "fix"),
    [
        (
            (403, "GatedRepo"),
            "accepted its licence",
            "Accept the licence on https://huggingface.co/google/gemma-3-12b-it, then set HF_TOKEN",
        ),
        ((404, "RepoNotFound"), "pretrained_gemma_model_name_or_path = 'google/gemma-3-12b-it' is no file", "HF_TOKEN"),
        ((401, "RepoNotFound"), "no repository on the hub that you may see", "HF_TOKEN"),
        ((418, ""), "hub refused google/gemma-3-12b-it", "Try again later"),
    ],
)
def test_a_refusal_of_the_hub_is_told_in_words(hub: Hub, tmp_path: Path, refusal: tuple[int, str], told: str, fix: str) -> None:
    save_gemma3(tmp_path / "made")
    hub.files["google/gemma-3-12b-it"] = files_of(tmp_path / "made")
    hub.refusal, hub.refuses_files_only = refusal, refusal[1] == "GatedRepo"
    with pytest.raises(CheckpointError, match=told) as caught:
        find(tmp_path, named="google/gemma-3-12b-it")
    assert fix in caught.value.fix


@pytest.mark.parametrize("offline", [False, True])
def test_without_a_network_what_to_download_and_where_to_put_it_is_said(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached") as caught:
        find(tmp_path, named="google/gemma-3-12b-it")
    assert "https://huggingface.co/google/gemma-3-12b-it (config.json, *.safetensors, tokenizer files)" in caught.value.fix
    assert "pretrained_gemma_model_name_or_path" in caught.value.fix


def test_a_disk_without_room_is_told_before_anything_is_fetched(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_gemma3(tmp_path / "made")
    hub.files["google/gemma-3-12b-it"] = files_of(tmp_path / "made")
    monkeypatch.setattr(hub_download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(StorageError, match=r"needs 0\.0 GB on disk \(.*config.json.*has 0\.0 GB free"):
        find(tmp_path, named="google/gemma-3-12b-it")
    assert hub.fetched == []


def test_a_repository_without_a_text_encoder_is_told(hub: Hub, tmp_path: Path) -> None:
    hub.files["someone/pictures"] = {"README.md": b"pictures"}
    with pytest.raises(CheckpointError, match="someone/pictures holds no text encoder"):
        find(tmp_path, named="someone/pictures")
