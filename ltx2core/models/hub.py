"""Checkpoints from the Hugging Face hub: what is in its cache on this machine, else downloaded into it by hub_download.py.

What is cached is used without asking, so a model that worked yesterday works without a network today.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2core.errors import CheckpointError
from ltx2core.models.hub_download import Request, download
from ltx2core.models.sources import DEFAULT_FILENAME, DIFFUSERS_FOLDERS, Choice, choose, published_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_WEIGHTS = (".safetensors", ".json")


def fetch(
    repo: str,
    *,
    filename: str | None,
    revision: str | None,
    key: str = "pretrained_model_name_or_path",
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """The checkpoint of a repository on this disk, for open_checkpoint; downloaded first when the cache lacks it.

    key: the setting that names it. tell: as `download` has it. Raises as that does, and CheckpointError when the repository holds no such
    file.
    """
    cached = _cached_snapshot(repo, revision)
    if cached is not None:
        choice = choose(_names_in(cached), filename)
        if choice is not None and not choice.absent and (choice.main or _has_all_shards(cached)):
            return cached / choice.main
    chosen: list[Choice] = []

    def choose_files(sizes: Mapping[str, int]) -> tuple[str, ...]:
        chosen.append(_choose_remote(repo, sizes, filename))
        return chosen[0].files

    first = download(_request(repo, filename, revision, key), choose_files, tell)[0]
    return first if chosen[0].main else first.parents[len(Path(chosen[0].files[0]).parts) - 1]


def _cached_snapshot(repo: str, revision: str | None) -> Path | None:
    """The folder of the hub's cache with the files of a revision (a branch, a tag or a commit); None when nothing of it is there."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    cache = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")
    reference = cache / "refs" / (revision or "main")
    try:
        commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
        folder = cache / "snapshots" / commit if commit else None
        return folder if folder is not None and folder.is_dir() else None
    except (OSError, ValueError):
        return None


def _names_in(snapshot: Path) -> list[str]:
    """Its files; a link whose file was cleaned up is none."""
    found = [*snapshot.glob("*"), *snapshot.glob("*/*")]
    return [path.relative_to(snapshot).as_posix() for path in found if path.name.endswith(_WEIGHTS) and path.is_file()]


def _has_all_shards(folder: Path) -> bool:
    """Whether a diffusers folder holds every file that its indexes list: a download may have been broken off."""
    for index in (path for part in DIFFUSERS_FOLDERS for path in (folder / part).glob("*.safetensors.index.json")):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False
        if not all((index.parent / shard).is_file() for shard in shards):
            return False
    return True


def _choose_remote(repo: str, sizes: Mapping[str, int], filename: str | None) -> Choice:
    choice = choose(sizes, filename)
    if choice is None:
        found = sorted(name for name in sizes if name.endswith(".safetensors") and "lora" not in name.lower())
        raise CheckpointError(
            f"The repository {repo} holds no {filename or DEFAULT_FILENAME}.",
            fix=f"Set ltx2_checkpoint_filename to one of: {', '.join(found[:5])}."
            if found
            else "Choose a repository of LTX-2, such as Lightricks/LTX-2.",
        )
    if choice.absent:
        raise CheckpointError(
            f"The repository {repo} lacks {', '.join(choice.absent)}.", fix="Use Lightricks/LTX-2.5, which holds the whole pack."
        )
    return choice


def _request(repo: str, filename: str | None, revision: str | None, key: str) -> Request:
    names = [filename] if filename else published_files(repo)
    return Request(
        repo=repo,
        revision=revision,
        key=key,
        what=names[0],
        by_hand=f"On a machine with a network: hf download {repo} {' '.join(names)} --local-dir models; then give the path of {names[0]} "
        'there. Or use "nano", the embedded miniature.',
    )
