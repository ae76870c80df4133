"""Every clip of a folder. Files are read by a few threads; results come in the order of their paths, as they are ready.

A bad file becomes a Clip with a problem; nothing that a folder may hold stops the scan. Names that begin with a dot are hidden
and passed over (macOS leaves `._clip.mp4` files that are no videos).
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2core.data.clip import Clip, Problem
from ltx2core.data.probe import Limits, probe_clip
from ltx2core.errors import DatasetError, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ltx2core.data.captions import CaptionRule

SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm"})
OTHER_VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".wmv", ".flv", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".3gp", ".ogv", ".gif"})


def scan_folder(
    folder: Path,
    *,
    on_clip: Callable[[Clip], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    captions: CaptionRule | None = None,
    limits: Limits | None = None,
    workers: int | None = None,
) -> list[Clip]:
    """Every clip below `folder`, sorted by path. on_clip is called with each, in that order, from the calling thread.

    captions says whether caption files are wanted (the default) and what a missing one means.
    Raises DatasetError when there is no such folder or not one video in it, Stopped when should_stop says so.
    """
    paths, known = find_clips(folder)
    clips: list[Clip] = []
    threads = workers or min(os.cpu_count() or 1, 8)
    with ThreadPoolExecutor(threads, thread_name_prefix="scan") as pool:
        waiting: deque[Future[Clip]] = deque()
        waiting_paths = iter(paths)
        try:
            while True:
                if should_stop is not None and should_stop():
                    raise Stopped("The scan was stopped.")
                # A short queue: 100,000 paths must not become 100,000 futures.
                while len(waiting) < 4 * threads and (path := next(waiting_paths, None)) is not None:
                    waiting.append(pool.submit(_look_at, Path(path), known.get(path), captions, limits))
                if not waiting:
                    return clips
                clips.append(waiting.popleft().result())
                if on_clip is not None:
                    on_clip(clips[-1])
        finally:
            for future in waiting:
                future.cancel()


def _look_at(path: Path, problem: Problem | None, captions: CaptionRule | None, limits: Limits | None) -> Clip:
    return probe_clip(path, captions=captions, limits=limits) if problem is None else Clip(path=path, problems=(problem,))


def find_clips(folder: Path) -> tuple[list[str], dict[str, Problem]]:
    """Every video file below `folder`, sorted by path, and what is wrong with those whose name or folder says it already.

    Links are followed, each real folder once. Raises DatasetError when there is no such folder or not one video in it.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is {'not a folder' if folder.exists() else 'missing'}.", fix="Name a folder of video files.")
    paths: list[str] = []
    known: dict[str, Problem] = {}
    for path, problem in _find(folder):
        paths.append(path)
        if problem is not None:
            known[path] = problem
    if not paths:
        raise DatasetError(
            f"{folder} holds no clips.", fix=f"Put {', '.join(sorted(SUFFIXES))} files there, each with a .txt caption of the same name."
        )
    paths.sort(key=lambda path: path.split(os.sep))  # noqa: PTH206 - as a Path sorts, a folder's files together
    return paths, known


def _find(folder: Path) -> Iterator[tuple[str, Problem | None]]:
    """Video files below the folder, as text: a Path for every file of a large folder is slow and large."""
    unreadable: list[OSError] = []
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True, onerror=unreadable.append):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - see above
            if name.startswith(".") or suffix not in SUFFIXES | OTHER_VIDEO_SUFFIXES:
                continue
            yield os.path.join(root, name), None if suffix in SUFFIXES else _unsupported(name, suffix)  # noqa: PTH118 - see above
    for error in unreadable:
        path = os.fsdecode(error.filename)
        text = f"{os.path.basename(path)} cannot be opened: {error.strerror}."  # noqa: PTH119 - see above
        yield path, Problem(code="unreadable", level="error", text=text, fix="Change the folder's permissions.")


def _unsupported(name: str, suffix: str) -> Problem:
    fix = f"Convert it: ffmpeg -i {name} -c copy {name.removesuffix(suffix)}.mp4"
    return Problem(code="unsupported_type", level="error", text=f"{name}: {suffix} files are not read.", fix=fix)
