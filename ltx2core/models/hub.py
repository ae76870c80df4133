"""Model files from the Hugging Face hub: what is in its cache on this machine, else downloaded into it.

huggingface_hub does the work and reads HF_TOKEN, HF_HOME and HF_HUB_OFFLINE itself. What is cached is used without asking, so a
model that worked yesterday works without a network today.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ltx2core.errors import CheckpointError, StorageError
from ltx2core.models.sources import DEFAULT_FILENAME, DIFFUSERS_FOLDERS, Choice, choose, published_files

if TYPE_CHECKING:
    from collections.abc import Callable

_SPARE_BYTES = 2**30  # left free on the disk: a full one breaks more than the download
_WEIGHTS = (".safetensors", ".json")


def fetch(repo: str, *, filename: str | None, revision: str | None, tell: Callable[[str], None] = lambda _: None) -> Path:
    """The checkpoint of a repository on this disk, for open_checkpoint; downloaded first when the cache lacks it.

    tell: is given sentences about a download, at its start and every 5 % of it; what it raises ends the download, which a later one
    takes up again.
    Raises CheckpointError when there is no such repository or file, no access or no network, StorageError when the disk has no room.
    """
    from huggingface_hub import constants

    cached = _cached_snapshot(repo, revision)
    if cached is not None:
        choice = choose(_names_in(cached), filename)
        if choice is not None and not choice.absent and (choice.main or _has_all_shards(cached)):
            return cached / choice.main
    if constants.HF_HUB_OFFLINE:
        raise _not_here(repo, filename, "and HF_HUB_OFFLINE is set")
    return _download(repo, filename, revision, tell)


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


def _download(repo: str, filename: str | None, revision: str | None, tell: Callable[[str], None]) -> Path:
    from huggingface_hub import HfApi, constants, hf_hub_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of whichever http library it is built on

    try:
        info = HfApi().model_info(repo, revision=revision, files_metadata=True)
        sizes = {item.rfilename: item.size or 0 for item in info.siblings or []}
        choice = _choose_remote(repo, sizes, filename)
        cached = _cached_snapshot(repo, info.sha)
        needed = [name for name in choice.files if cached is None or not (cached / name).is_file()]
        total = sum(sizes[name] for name in needed)
        _check_room(repo, needed, total)
        if needed:
            tell(f"Downloads {total / 1e9:.1f} GB of {repo} into {constants.HF_HUB_CACHE}. They are kept there.")
        bars = _bars(repo, total, tell)
        paths = [hf_hub_download(repo, name, revision=revision, tqdm_class=bars) for name in choice.files]
    except (HTTPError, OSError) as error:
        _explain(error, repo, filename, revision)
    first = Path(paths[0])
    return first if choice.main else first.parents[len(Path(choice.files[0]).parts) - 1]


def _choose_remote(repo: str, sizes: dict[str, int], filename: str | None) -> Choice:
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


def _check_room(repo: str, names: list[str], needed_bytes: int) -> None:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    place = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if needed_bytes + _SPARE_BYTES > free:
        raise StorageError(
            f"{repo} needs {needed_bytes / 1e9:.1f} GB on disk ({', '.join(names[:5])}), and {cache} has {free / 1e9:.1f} GB free.",
            fix="Free some space, or set HF_HOME to a folder on a larger disk.",
        )


def _bars(repo: str, total: int, tell: Callable[[str], None]) -> Any:
    """A class in the place of tqdm's that tells instead of drawing: the terminal belongs to the app."""
    done = told = 0  # bytes of all files, and what was told last

    class Bar:
        def __init__(self, *_: object, **arguments: Any) -> None:
            self.update(arguments.get("initial") or 0)  # what an earlier download of this file had

        def update(self, count: float = 1) -> None:
            nonlocal done, told
            done += int(count)
            if total and done - told >= total / 20:
                told = done
                tell(f"{min(done, total) / 1e9:.1f} of {total / 1e9:.1f} GB of {repo} are here.")

        def __enter__(self) -> Bar:
            return self

        def _nothing(self, *_: object, **__: object) -> None: ...

        # What else the library calls. With update_transfer there, it does not count what travels a second time beside what arrives.
        __exit__ = close = refresh = set_postfix_str = set_transfer_postfix_str = update_transfer = _nothing

    return Bar


def _explain(error: Exception, repo: str, filename: str | None, revision: str | None) -> NoReturn:
    """Raise what an error of the library means to a user."""
    from huggingface_hub import errors
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    page = f"https://huggingface.co/{repo}"
    if isinstance(error, errors.GatedRepoError):
        raise CheckpointError(
            f"{repo} may be downloaded only by accounts that accepted its licence, and this one did not or is not known.",
            fix=f"Accept the licence on {page}, then set HF_TOKEN to a token of that account (https://huggingface.co/settings/tokens).",
        ) from error
    if isinstance(error, errors.RevisionNotFoundError):
        raise CheckpointError(
            f"{repo} has no revision {revision!r}.", fix=f"Leave revision out, or choose one listed on {page}/commits/main."
        ) from error
    if isinstance(error, errors.RepositoryNotFoundError):
        raise CheckpointError(
            f"pretrained_model_name_or_path = {repo!r} is no file or folder here, and no repository on the hub that you may see.",
            fix="Check the spelling; for a private repository set HF_TOKEN.",
        ) from error
    if isinstance(error, HTTPError | errors.LocalEntryNotFoundError | ConnectionError | TimeoutError):
        raise _not_here(repo, filename, "and the hub cannot be reached") from error
    if isinstance(error, OSError):
        raise StorageError(
            f"{repo} cannot be downloaded: {error.strerror or error}.", fix="Free some space, or set HF_HOME to another disk."
        ) from error
    raise error  # an answer of the library that is none of these


def _not_here(repo: str, filename: str | None, why: str) -> CheckpointError:
    names = [filename] if filename else published_files(repo)
    name = " ".join(names)
    return CheckpointError(
        f"pretrained_model_name_or_path = {repo!r} is no file or folder here, {names[0]} is not in the hub's cache, {why}.",
        fix=f"On a machine with a network: hf download {repo} {name} --local-dir models; then give the path of {names[0]} there. "
        'Or use "nano", the embedded miniature.',
    )
