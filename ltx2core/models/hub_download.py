"""Downloads chosen files of a Hugging Face repository into the hub's cache, and says what an answer of the hub means to a user.

The only place that does either: hub.py asks for a checkpoint, text_source.py for a text encoder. huggingface_hub does the work and reads
HF_TOKEN, HF_HOME and HF_HUB_OFFLINE itself.
"""

from __future__ import annotations

import errno
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ltx2core.errors import CheckpointError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_SPARE_BYTES = 2**30  # left free on the disk: a full one breaks more than the download
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked of a repository, in the words of the settings.

    key: the setting that names it. what: its name in a sentence. by_hand: how to get it on a machine without a network.
    """

    repo: str
    revision: str | None
    key: str
    what: str
    by_hand: str

    @property
    def page(self) -> str:
        return f"https://huggingface.co/{self.repo}"


def download(request: Request, choose: Callable[[Mapping[str, int]], Sequence[str]], tell: Callable[[str], None]) -> list[Path]:
    """The files that `choose` takes from a repository's list (names and sizes in bytes), on this disk, in its order.

    tell: is given sentences, at the start of a download and every 5 % of it; what it raises ends the download, which a later one takes
    up again. Raises CheckpointError when there is no such repository, no access or no network, StorageError when the disk has no room;
    what `choose` raises passes through.
    """
    from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of whichever http library it is built on

    repo, revision = request.repo, request.revision
    if constants.HF_HUB_OFFLINE:
        raise _not_here(request, "HF_HUB_OFFLINE is set")
    try:
        info = HfApi().model_info(repo, revision=revision, files_metadata=True)
        sizes = {item.rfilename: item.size or 0 for item in info.siblings or []}
        names = choose(sizes)
        needed = [name for name in names if not isinstance(try_to_load_from_cache(repo, name, revision=info.sha), str)]
        total = sum(sizes[name] for name in needed)
        _check_disk(request, needed, total)
        if needed:
            tell(f"Downloads {request.what}, {total / 1e9:.1f} GB of {repo}, into {constants.HF_HUB_CACHE}. It is kept there.")
        bars = _bars(request, total, tell)
        return [Path(hf_hub_download(repo, name, revision=revision, tqdm_class=bars)) for name in names]
    except (HTTPError, OSError) as error:
        _explain(error, request)


def _check_disk(request: Request, names: Sequence[str], needed_bytes: int) -> None:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    place = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if needed_bytes and needed_bytes + _SPARE_BYTES > free:
        raise StorageError(
            f"{request.repo} needs {needed_bytes / 1e9:.1f} GB on disk ({', '.join(names[:_SHOWN])}), and {cache} has {free / 1e9:.1f} GB "
            f"free, of which {_SPARE_BYTES / 1e9:.0f} stay free.",
            fix="Free some space, or set HF_HOME to a folder on a larger disk.",
        )


def _bars(request: Request, total: int, tell: Callable[[str], None]) -> Any:
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
                tell(f"{min(done, total) / 1e9:.1f} of {total / 1e9:.1f} GB of {request.repo} are here.")

        def __enter__(self) -> Bar:
            return self

        def _nothing(self, *_: object, **__: object) -> None: ...

        # What else the library calls. With update_transfer there, it does not count what travels a second time beside what arrives.
        __exit__ = close = refresh = set_postfix_str = set_transfer_postfix_str = update_transfer = _nothing

    return Bar


def _explain(error: Exception, request: Request) -> NoReturn:
    """Raise what an error of the library means to a user. The narrower classes come first: they derive from one another."""
    from huggingface_hub import errors
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    repo = request.repo
    if isinstance(error, errors.GatedRepoError):
        raise CheckpointError(
            f"{repo} may be downloaded only by accounts that accepted its licence, and this one did not or is not known.",
            fix=f"Accept the licence on {request.page}, then set HF_TOKEN to a token of that account "
            "(https://huggingface.co/settings/tokens), or run `hf auth login`.",
        ) from error
    if isinstance(error, errors.RevisionNotFoundError):
        raise CheckpointError(
            f"{repo} has no revision {request.revision!r}.",
            fix=f"Leave revision out, or choose one listed on {request.page}/commits/main.",
        ) from error
    if isinstance(error, errors.RepositoryNotFoundError):
        raise CheckpointError(
            f"{request.key} = {repo!r} is no file or folder here, and no repository on the hub that you may see.",
            fix="Check the spelling; for a private repository set HF_TOKEN.",
        ) from error
    if isinstance(error, errors.HfHubHTTPError):
        first = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"The hub refused {repo}: {first}", fix=f"Try again later. {request.by_hand}") from error
    if isinstance(error, HTTPError | errors.LocalEntryNotFoundError | ConnectionError | TimeoutError):
        raise _not_here(request, "the hub cannot be reached") from error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise StorageError(
            f"The disk is full: {repo} was not downloaded whole.", fix="Free some space, or set HF_HOME to another disk."
        ) from error
    if isinstance(error, OSError):
        reason = error.strerror or error
        raise StorageError(f"{repo} cannot be downloaded: {reason}.", fix="Set HF_HOME to a folder that can be written.") from error
    raise error  # an answer of the library that is none of these


def _not_here(request: Request, why: str) -> CheckpointError:
    return CheckpointError(
        f"{request.key} = {request.repo!r} is no file or folder here, {request.what} is not in the hub's cache, and {why}.",
        fix=request.by_hand,
    )
