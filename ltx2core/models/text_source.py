"""Finds the text encoder: a folder or file that is named, the one that lies with the model, or one of the hub, downloaded once.

The hub is asked only for a repository that the settings name, and only when this machine does not hold it already.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2core.errors import CheckpointError
from ltx2core.models.hub_download import Request, download

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_SINGLE = "text_encoders/gemma4-12b-with-proj-ltx-2.5-bf16.safetensors"
_ANCHORS = ("text_encoder/config.json", _SINGLE, "config.json")  # a file of each layout, the best first
_FILE = re.compile(
    r"config\.json|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|tokenizer.*|special_tokens_map\.json|added_tokens\.json"
)
_KEY = "pretrained_gemma_model_name_or_path"
_GEMMA = "google/gemma-3-12b-it"


def find_text_encoder(
    *, named: str | None, model_name: str, checkpoint: Path, revision: str | None, base: Path, tell: Callable[[str], None] = lambda _: None
) -> Path:
    """The folder or single file of the text encoder.

    named: what pretrained_gemma_model_name_or_path says. Without it: beside the checkpoint, then in the hub repository that model_name
    is, at `revision`. tell: is given sentences about a download. Raises CheckpointError that says what to download and where to put it,
    StorageError when the disk is too small.
    """
    if named:
        place = base / Path(named).expanduser()  # an absolute path stays itself
        if place.is_file():
            return place
        if place.is_dir():
            return _inside(place) or place
        if _HUB_NAME.fullmatch(named):
            return _from_hub(named, None, _KEY, tell)
        raise CheckpointError(
            f"{_KEY} = {named!r} is no folder or file here.",
            fix=f"Give the folder of the text encoder, or a hub name such as {_GEMMA}, which is downloaded.",
        )
    found = _beside(checkpoint)
    if found is not None:
        return found
    if _HUB_NAME.fullmatch(model_name) and not (base / model_name).exists():
        return _from_hub(model_name, revision, "pretrained_model_name_or_path", tell)
    raise CheckpointError(
        f"There is no text encoder beside {checkpoint.name}.",
        fix=f"Set {_KEY} to the folder of one, or to a hub name: {_GEMMA} for LTX-2 2.0 and 2.3 is downloaded then.",
    )


def _beside(checkpoint: Path) -> Path | None:
    """The text encoder in the folder of a checkpoint, or in the pack that this folder is a part of."""
    return next((found for folder in (checkpoint, checkpoint.parent, checkpoint.parent.parent) if (found := _inside(folder))), None)


def _inside(folder: Path) -> Path | None:
    """The text encoder in a model's folder: text_encoder/, or a single file in text_encoders/. None when it holds neither."""
    from ltx2core.models.safetensors_header import read_header

    if (folder / "text_encoder" / "config.json").is_file():
        return folder / "text_encoder"
    for path in sorted((folder / "text_encoders").glob("*.safetensors")):
        if "gemma_config" in read_header(path)[0]:
            return path
    return None


def _from_hub(name: str, revision: str | None, key: str, tell: Callable[[str], None]) -> Path:
    """A repository's text encoder, from the hub's cache on this machine or from the hub. key: the setting that names it."""
    from huggingface_hub import try_to_load_from_cache

    for anchor in _ANCHORS:
        path = try_to_load_from_cache(name, anchor, revision=revision)
        if isinstance(path, str) and (found := _whole(Path(path.removesuffix(anchor)))) is not None:
            return found
    return _download(name, revision, key, tell)


def _choose(names: Collection[str]) -> list[str]:
    """The files of a repository that are its text encoder. None of its other parts: those are 43 GB and more."""
    if _ANCHORS[0] in names:
        return [name for name in names if name.startswith(("text_encoder/", "tokenizer/")) and _FILE.fullmatch(name.partition("/")[2])]
    if _SINGLE in names:
        return [_SINGLE]
    return [name for name in names if _FILE.fullmatch(name)]


def _download(name: str, revision: str | None, key: str, tell: Callable[[str], None]) -> Path:
    request = Request(
        repo=name,
        revision=revision,
        key=key,
        what="the text encoder",
        by_hand=f"Download it elsewhere from https://huggingface.co/{name} (config.json, *.safetensors, tokenizer files), and set {_KEY} "
        "to the folder you put it in.",
    )
    chosen: list[str] = []

    def choose(sizes: Mapping[str, int]) -> list[str]:
        chosen.extend(_choose(sizes))
        if not chosen:
            raise CheckpointError(f"{name} holds no text encoder.", fix=f"Set {_KEY} to one that does, such as {_GEMMA}.")
        return chosen

    first = download(request, choose, tell)[0]
    found = _whole(first.parents[len(Path(chosen[0]).parts) - 1])
    if found is None:
        raise CheckpointError(f"{name} lacks files of its text encoder.", fix=f"Set {_KEY} to one that is whole, such as {_GEMMA}.")
    return found


def _whole(snapshot: Path) -> Path | None:
    """The text encoder in a downloaded snapshot, if all its files are there."""
    found = _inside(snapshot) or (snapshot if (snapshot / "config.json").is_file() else None)
    if found is None or found.is_file():
        return found
    weights = {path.name for path in found.glob("*.safetensors")}
    index = found / "model.safetensors.index.json"
    if index.is_file():
        wanted = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return found if wanted <= weights else None
    return found if weights else None
