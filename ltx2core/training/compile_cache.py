"""Where compiled kernels are kept between runs: a folder of the user's cache, shared by all runs of a machine. Imports no torch.

PyTorch's own choice is the temporary folder, which a restart empties; compiling the blocks anew takes half a minute for each shape. Each
version of PyTorch has a folder of its own. One that was not used for a month goes, and one that has grown too large begins anew, for its
files refer to each other and cannot be dropped one by one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_BYTES = 4 << 30
UNUSED_SECONDS = 30 * 24 * 3600
_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_LOCK = "in-use.lock"


def cache_home() -> Path:
    """The folder of all versions' kernels."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ltx2tui" / "compiled"


@contextlib.contextmanager
def kept_kernels(home: Path | None = None) -> Iterator[Path | None]:
    """Have the compiler keep its kernels; the folder, None where the user has named one, or none can be made.

    To be entered before anything is compiled. While it is open no other run removes the folder.
    """
    if os.environ.get(_VARIABLE):
        yield None
        return
    home = home or cache_home()
    folder = home / f"torch-{_torch_version()}"
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _tidy(home, newest=folder)
            folder.mkdir(exist_ok=True)
            lock = stack.enter_context((folder / _LOCK).open("a"))
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.utime(folder / _LOCK)
        except OSError:  # no home, a disk that is full: the compiler has its own folder then, and says so itself if that fails
            yield None
            return
        stack.enter_context(_variables({_VARIABLE: folder, "TRITON_CACHE_DIR": folder / "triton", "TORCHINDUCTOR_FX_GRAPH_CACHE": "1"}))
        yield folder


@contextlib.contextmanager
def _variables(values: dict[str, object]) -> Iterator[None]:
    """These variables, where they have no value yet; what was set here is taken back."""
    fresh = {name: str(value) for name, value in values.items() if name not in os.environ}
    os.environ.update(fresh)
    try:
        yield
    finally:
        for name in fresh:
            os.environ.pop(name, None)


def _tidy(home: Path, *, newest: Path) -> None:
    """Remove what no run uses now and none has used for long, and the newest version's folder if it is too large."""
    for folder in home.glob("torch-*"):
        stamp = folder / _LOCK
        unused = stamp.exists() and time.time() - stamp.stat().st_mtime > UNUSED_SECONDS
        if (unused or (folder == newest and _size(folder) > MOST_BYTES)) and not _in_use(stamp):
            gone = folder.with_name(f".{folder.name}.{os.getpid()}.gone")  # first out of the way, at once: a run that starts now finds none
            folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


def _in_use(lock: Path) -> bool:
    try:
        with lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # another run replaces its files
                total += (Path(parent) / name).stat().st_size
    return total


def _torch_version() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return "unknown"
