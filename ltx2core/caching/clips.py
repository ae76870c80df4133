"""What the passes over clips share: decoded ahead by other processes, encoded in batches of one shape, written on threads.

A clip that cannot be decoded is named and left out. Progress is told in the order of the jobs, once an entry is on disk.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ltx2core.caching.ahead import Ahead, Decoded, Request
from ltx2core.caching.link import open_link
from ltx2core.caching.sharing import in_turn
from ltx2core.caching.writing import Writer
from ltx2core.runs.events import Notice, PassMeasured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from ltx2core.caching.passes import CachedClip, CachePass
    from ltx2core.caching.store import Kind
    from ltx2core.data.clip import Sample
    from ltx2core.errors import DatasetError
    from ltx2core.runs.events import Phase

    # Of a batch on the device, [B, ...], and what it consists of: each entry's tensors, on the device or not.
    Encode: TypeAlias = Callable[[Tensor, Sequence["Job"], Sequence[Decoded]], Sequence[Mapping[str, Tensor]]]
    Found: TypeAlias = Decoded | DatasetError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An entry to make, and what it is made of."""

    name: str
    clip: CachedClip
    request: Request

    @property
    def shape(self) -> tuple[float, ...]:
        """Equal for what can be in one batch."""
        request = self.request
        return request.width, request.height, request.frames, request.seconds


def encode_clips(
    work: CachePass,
    kind: Kind,
    jobs: Sequence[Job],
    load: Callable[[], Encode],
    *,
    phase: Phase,
    tell: Callable[[Sample, str], None],
    batch_size: int = 1,
) -> set[str]:
    """Make the entries; the names of those that could not be made come back.

    load: loads the encoder, while the first clips are already decoded. Raises StorageError when an entry cannot be written, Stopped
    when asked to.
    """
    broken: set[str] = set()
    with in_turn(work.store.root / kind, by_shape(jobs)) as ordered:
        link = open_link(work.device)
        ahead = Ahead(
            [job.request for job in ordered],
            processes=work.decoders,
            max_bytes=work.ahead_bytes,
            pinned=link.pinned,
            is_made=lambda index: work.store.state(kind, ordered[index].name) == "whole",  # by another process, meanwhile
            should_stop=work.should_stop,
        )
        with Writer(work, kind, total=len(ordered), phase=phase) as writer, ahead:
            encode = load()
            clock = _Clock(begun=time.perf_counter(), waited=ahead.seconds_waited)
            for batch in _batches(zip(ordered, ahead, strict=True), size=batch_size):
                writer.tell()
                work.check_stop()
                whole = [(job, found) for job, found in batch if isinstance(found, Decoded)]
                for job, found in batch:
                    if found is not None and not isinstance(found, Decoded):
                        broken.add(job.name)
                        tell(job.clip.sample, found.text)
                if whole:
                    entries, landing = link.run([found.array for _, found in whole], _of_batch(encode, whole))
                    made = dict(zip([job.name for job, _ in whole], entries, strict=True))
                else:
                    made, landing = {}, None
                for job, _ in batch:
                    file = job.clip.sample.name
                    writer.write(job.name, made.get(job.name), landing, source=file, item=file)
            writer.finish()
            busy, wall = link.busy_seconds(), time.perf_counter() - clock.begun
    waited = ahead.seconds_waited - clock.waited
    _tell_speed(work, PassMeasured(phase=phase, entries=len(ordered), seconds=wall, busy_seconds=busy, waited_seconds=waited))
    return broken


def by_shape(jobs: Iterable[Job]) -> list[Job]:
    """The jobs, those of one shape beside each other; shapes in the order in which they first come."""
    groups: dict[tuple[float, ...], list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.shape, []).append(job)
    return [job for group in groups.values() for job in group]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clock:
    begun: float
    waited: float


def _of_batch(encode: Encode, batch: Sequence[tuple[Job, Decoded]]) -> Callable[[Tensor], Sequence[Mapping[str, Tensor]]]:
    return lambda given: encode(given, [job for job, _ in batch], [found for _, found in batch])


def _batches(found: Iterable[tuple[Job, Found]], *, size: int) -> Iterator[list[tuple[Job, Found]]]:
    """As many decoded clips of one shape as `size` says, and what could not be decoded between them."""
    batch: list[tuple[Job, Found]] = []
    for job, one in found:
        if batch and batch[-1][0].shape != job.shape:
            yield batch
            batch = []
        batch.append((job, one))
        if sum(isinstance(decoded, Decoded) for _, decoded in batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _tell_speed(work: CachePass, measured: PassMeasured) -> None:
    work.emit(measured)
    device, seconds = "GPU" if work.device.type == "cuda" else "encoder", max(measured.seconds, 1e-9)
    text = (
        f"{measured.entries} in {seconds:.1f} s, {measured.entries / seconds:.2f} a second: the {device} was busy "
        f"{100 * measured.busy_seconds / seconds:.0f} % of the time, {100 * measured.waited_seconds / seconds:.0f} % went by waiting for "
        "clips to be decoded."
    )
    work.emit(Notice(code=f"{measured.phase}_speed", text=text))
