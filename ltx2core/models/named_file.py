"""Where a single file of weights lies that settings name: on this machine, or on the hub as `owner/repository:file`, downloaded once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ltx2core.config.paths import find
from ltx2core.errors import CheckpointError
from ltx2core.models.hub_download import Request, download

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def find_named_file(name: str, *, filename: str | None = None, base: Path, key: str, tell: Callable[[str], None] = lambda _: None) -> Path:
    """The file that `name` means. filename: which one of a folder or repository. key: the setting that gives the name. tell: is given
    sentences about a download.

    Raises CheckpointError when there is none, and what a download raises.
    """
    if (place := find(name, (base,))) is not None:
        return place if place.is_file() else _in_folder(place, filename, key=key, name=name)
    repo, _, file = name.partition(":")
    file = file or filename or ""
    if not file or repo.count("/") != 1 or name.startswith(("/", ".", "~")):
        raise CheckpointError(f"{key} = {name!r} is no file here.", fix="Name a file, or one of the hub: owner/repository:file.")
    return _from_hub(repo, file, key=key, tell=tell)


def _in_folder(folder: Path, filename: str | None, *, key: str, name: str) -> Path:
    found = sorted(folder.glob("*.safetensors")) if filename is None else [place for place in (folder / filename,) if place.is_file()]
    if len(found) == 1:
        return found[0]
    what = f"without {filename}" if filename else f"with {len(found)} .safetensors files"
    raise CheckpointError(f"{key} = {name!r} is a folder {what}.", fix="Name the file.")


def _from_hub(repo: str, file: str, *, key: str, tell: Callable[[str], None]) -> Path:
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repo, file)
    if isinstance(cached, str):
        return Path(cached)

    def choose(sizes: Mapping[str, int]) -> tuple[str, ...]:
        if file not in sizes:
            there = sorted(one for one in sizes if one.endswith(".safetensors"))[:5]
            fix = f"It holds {', '.join(there)}." if there else "Choose another repository."
            raise CheckpointError(f"The repository {repo} holds no {file}.", fix=fix)
        return (file,)

    by_hand = f"On a machine with a network: hf download {repo} {file} --local-dir models; then give the path of {file} there."
    return download(Request(repo=repo, revision=None, key=key, what=file, by_hand=by_hand), choose, tell)[0]
