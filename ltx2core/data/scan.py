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
from ltx2core.data.media import CLIPS, PICTURES, SOUNDS
from ltx2core.data.probe_file import probe_file
from ltx2core.errors import DatasetError, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ltx2core.data.captions import CaptionRule
    from ltx2core.data.media import Media
    from ltx2core.data.probe import Limits

SUFFIXES = CLIPS
OTHER_VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".wmv", ".flv", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".3gp", ".ogv", ".gif"})


_OF_CLIPS = CLIPS | OTHER_VIDEO_SUFFIXES | set(PICTURES)
_WORDS: dict[Media, str] = {"video": "video files", "image": "pictures", "both": "videos and pictures", "audio": "sound"}
_LOOKED_AT: dict[Media, frozenset[str]] = {"video": _OF_CLIPS, "image": _OF_CLIPS, "both": _OF_CLIPS, "audio": CLIPS | SOUNDS}


def scan_folder(
    folder: Path,
    *,
    on_clip: Callable[[Clip], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    captions: CaptionRule | None = None,
    limits: Limits | None = None,
    workers: int | None = None,
    media: Media = "video",
) -> list[Clip]:
    """Every clip below `folder`, sorted by path. on_clip is called with each, in that order, from the calling thread.

    media: what is looked for; pictures among videos, and the other way round, come back with a problem. captions says whether
    caption files are wanted (the default) and what a missing one means.
    Raises DatasetError when there is no such folder or not one video in it, Stopped when should_stop says so.
    """
    paths, known = find_clips(folder, media)
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
    if problem is not None:
        return Clip(path=path, problems=(problem,))
    return probe_file(path, captions=captions, limits=limits)


def find_clips(folder: Path, media: Media = "video") -> tuple[list[str], dict[str, Problem]]:
    """Every file of that kind below `folder`, sorted by path, and what is wrong with those whose name or folder says it already.

    Links are followed, each real folder once. Raises DatasetError when there is no such folder or not one such file in it.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is {'not a folder' if folder.exists() else 'missing'}.", fix=f"Name a folder of {_WORDS[media]}.")
    paths: list[str] = []
    known: dict[str, Problem] = {}
    for path, problem in _find(folder, media):
        paths.append(path)
        if problem is not None:
            known[path] = problem
    if not paths:
        wanted = ", ".join(sorted({"video": CLIPS, "image": PICTURES, "both": {*CLIPS, *PICTURES}, "audio": {*SOUNDS, *CLIPS}}[media]))
        what = {"image": "pictures", "audio": "sound"}.get(media, "clips")
        raise DatasetError(f"{folder} holds no {what}.", fix=f"Put {wanted} files there, each with a .txt caption of the same name.")
    paths.sort(key=lambda path: path.split(os.sep))  # noqa: PTH206 - as a Path sorts, a folder's files together
    return paths, known


def _find(folder: Path, media: Media) -> Iterator[tuple[str, Problem | None]]:
    """The files below the folder, as text: a Path for every file of a large folder is slow and large."""
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
            if not name.startswith(".") and suffix in _LOOKED_AT[media]:
                yield os.path.join(root, name), _by_name(name, suffix, media)  # noqa: PTH118 - see above
    for error in unreadable:
        path = os.fsdecode(error.filename)
        text = f"{os.path.basename(path)} cannot be opened: {error.strerror}."  # noqa: PTH119 - see above
        yield path, Problem(code="unreadable", level="error", text=text, fix="Change the folder's permissions.")


def _by_name(name: str, suffix: str, media: Media) -> Problem | None:
    """What is wrong with a file that its name tells already."""
    if suffix in PICTURES and media == "video":
        fix = "Put pictures into a dataset of dataset_type image."
        return Problem(code="still_among_clips", level="error", text=f"{name} is a picture among clips.", fix=fix)
    if suffix not in PICTURES and media == "image":
        fix = "Put videos into a dataset of dataset_type video."
        return Problem(code="clip_among_stills", level="error", text=f"{name} is a video among pictures.", fix=fix)
    return _unsupported(name, suffix) if suffix in OTHER_VIDEO_SUFFIXES else None


def _unsupported(name: str, suffix: str) -> Problem:
    fix = f"Convert it: ffmpeg -i {name} -c copy {name.removesuffix(suffix)}.mp4"
    return Problem(code="unsupported_type", level="error", text=f"{name}: {suffix} files are not read.", fix=fix)
