"""Which of a dataset's samples are used, and with what sound: chosen by number, linked to sound files, or made silent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ltx2core.data.crops import chance
from ltx2core.data.media import CLIPS, SOUNDS
from ltx2core.data.sound_files import read_track
from ltx2core.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.data.clip import AudioTrack, Sample


def choose(samples: list[Sample], *, most: int | None, dataset: str, root: Path) -> tuple[list[Sample], list[Path]]:
    """The samples of at most so many files, and the files that are not used, chosen by the dataset's name and theirs.

    The choice is the same in every run; a file more displaces one other at most.
    """
    files = list(dict.fromkeys(sample.clip.path for sample in samples))
    if most is None or len(files) <= most:
        return samples, []

    def rank(path: Path) -> float:
        return chance(0, "chosen", dataset, path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name)

    kept = set(sorted(files, key=rank)[:most])
    return [sample for sample in samples if sample.clip.path in kept], [path for path in files if path not in kept]


def with_linked_sound(samples: list[Sample], *, root: Path, folders: list[Path]) -> tuple[list[Sample], list[Sample], dict[str, str]]:
    """The samples with the sound file of the same name as theirs, those that have none, and why files of the right name are not used.

    A clip in a subfolder of `root` has its sound in the same subfolder of one of `folders`; the first that has it counts.
    """
    tracks: dict[Path, AudioTrack | str | None] = {}
    linked: list[Sample] = []
    missing: dict[Path, Sample] = {}
    for sample in samples:
        path = sample.clip.path
        found = None if sample.clip.still else _sound_of(path, root=root, folders=folders)
        if found is not None and found not in tracks:
            tracks[found] = _track(found)
        track = tracks.get(found) if found is not None else None
        if found is None or track is None or isinstance(track, str):
            if not sample.clip.still:
                missing[path] = sample
            linked.append(sample)
            continue
        linked.append(replace(sample, sound=found, clip=replace(sample.clip, audio=track)))
    broken = {path.name: said for path, said in tracks.items() if isinstance(said, str)}
    return linked, list(missing.values()), broken


def _sound_of(path: Path, *, root: Path, folders: list[Path]) -> Path | None:
    below = path.parent.relative_to(root) if path.is_relative_to(root) else "."
    places = (folder / below / f"{path.stem}{suffix}" for folder in folders for suffix in sorted(SOUNDS) + sorted(CLIPS))
    return next((place for place in places if place.is_file()), None)


def _track(path: Path) -> AudioTrack | str | None:
    """The sound track of a file, or what is wrong with it."""
    try:
        return read_track(path) or f"{path.name} has no sound."
    except DatasetError as error:
        return error.text
