"""Where a LoRA that settings name lies: a file of this machine, or `repo:file` of the hub, which is downloaded once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.config.paths import find
from ltx2core.errors import CheckpointError
from ltx2core.models.hub_download import Request, download

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


def find_lora(name: str, *, base: Path, key: str, tell: Callable[[str], None] = lambda _: None) -> Path:
    """The file that `name` means. key: the setting that gives it. tell: is given sentences about a download.

    Raises CheckpointError when there is none, and what a download raises.
    """
    if (place := find(name, (base,))) is not None:
        if place.is_file():
            return place
        found = sorted(place.glob("*.safetensors"))
        if len(found) == 1:
            return found[0]
        raise CheckpointError(f"{key} = {name!r} is a folder with {len(found)} .safetensors files.", fix="Name the file.")
    repo, _, file = name.partition(":")
    if not file or repo.count("/") != 1 or name.startswith(("/", ".", "~")):
        raise CheckpointError(f"{key} = {name!r} is no file here.", fix="Name a LoRA file, or one of the hub as owner/repository:file.")
    return _from_hub(repo, file, key=key, tell=tell)


def _from_hub(repo: str, file: str, *, key: str, tell: Callable[[str], None]) -> Path:
    from pathlib import Path

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

    by_hand = f"On a machine with a network: hf download {repo} {file} --local-dir loras; then give the path of {file} there."
    return download(Request(repo=repo, revision=None, key=key, what=file, by_hand=by_hand), choose, tell)[0]
