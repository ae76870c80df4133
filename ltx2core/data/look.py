"""What a clip looks like in a kilobyte, and which clips of many look alike, without comparing each with each.

Four pictures, at an eighth, three, five and seven eighths of the clip, so that copies in another size, rate or codec agree. Of each a
perceptual hash (signs of the lowest frequencies of a cosine transform, 64 bits) and the picture itself at 16 x 16. Hashes find
candidates, pictures confirm them: two takes of one scene have like hashes, but not like pictures.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from av.video.reformatter import Interpolation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter
    from numpy.typing import NDArray

PICTURES = 4
SIDE = 32  # of the picture that is hashed
THUMB = 16
BITS = 64 * PICTURES
# Candidates share one of 16 pieces of 16 bits. Copies in other codecs and sizes differ in up to 20 of 256 bits (measured: 2 to 14 with
# H.264 at half the size and crf 35); with 20 bits in random places all sixteen pieces are hit in 1 of 200 cases.
PIECES = 16
MOST_BITS = 20
# Copies differ by 1 to 3 of 255 on average and 15 in the worst cell; two takes from one tripod by 25 and more in some cell.
MOST_MEAN, MOST_CELL = 5.0, 22
PLAIN = 4.0  # a picture whose cells spread less than this has no look: its hash is noise
_NEIGHBOURS = 64  # that a clip is compared with when very many share a piece


@dataclass(frozen=True, slots=True)
class Look:
    """hashes: uint64 [4]; thumbs: uint8 [4, 16, 16], as bytes, which is how they are kept."""

    hashes: bytes
    thumbs: bytes

    @classmethod
    def of(cls, pictures: Sequence[NDArray[np.uint8]]) -> Look | None:
        """The look of grey pictures of 32 x 32; None when one is missing or too plain to tell."""
        if len(pictures) != PICTURES or any(float(picture.std()) < PLAIN for picture in pictures):
            return None
        hashes = np.array([_hash(picture) for picture in pictures], dtype=np.uint64)
        half = SIDE // THUMB
        thumbs = np.stack([picture.reshape(THUMB, half, THUMB, half).mean(axis=(1, 3)) for picture in pictures]).round().astype(np.uint8)
        return cls(hashes.tobytes(), thumbs.tobytes())


def look_at(frames: int) -> tuple[int, ...]:
    """The numbers of the four frames that make the look of a clip with so many; fewer for a clip of one to three."""
    return tuple(sorted({min(int(frames * (2 * number + 1) / (2 * PICTURES)), max(frames - 1, 0)) for number in range(PICTURES)}))


def look_of(reformatter: VideoReformatter, frame: VideoFrame) -> NDArray[np.uint8]:
    """A frame as it is hashed: uint8 [32, 32], grey."""
    picture = reformatter.reformat(frame, width=SIDE, height=SIDE, format="gray", interpolation=Interpolation.AREA, threads=1)
    return picture.to_ndarray().astype(np.uint8, copy=False)


@cache
def _cosines() -> NDArray[np.float64]:
    """The eight lowest cosines but the constant one: [8, 32]."""
    return np.cos(np.pi * np.arange(1, 9)[:, None] * (2 * np.arange(SIDE) + 1) / (2 * SIDE))


def _hash(picture: NDArray[np.uint8]) -> int:
    """64 bits: which of the 8 x 8 lowest frequencies are above their median."""
    waves = _cosines() @ picture.astype(np.float64) @ _cosines().T
    bits = (waves > np.median(waves)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes())


def find_alike(looks: Iterable[tuple[int, Look]]) -> dict[int, int]:
    """For each clip that looks like an earlier one, that one: {number: the first number of its kind}. Numbers come in rising order.

    Memory: 1.1 kB a clip. Time grows with the number of clips, not with its square.
    """
    numbers, hashes, thumbs = _gather(looks)
    if len(numbers) < 2:
        return {}
    parents = np.arange(len(numbers))
    for one, other in _candidates(hashes):
        first, second = _root(parents, one), _root(parents, other)
        if first != second and _same(thumbs[one], thumbs[other]):
            parents[max(first, second)] = min(first, second)
    found = ((index, _root(parents, index)) for index in range(len(numbers)))
    return {int(numbers[index]): int(numbers[root]) for index, root in found if root != index}


def _gather(looks: Iterable[tuple[int, Look]]) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint8]]:
    numbers: list[int] = []
    hashes, thumbs = bytearray(), bytearray()
    for number, look in looks:
        numbers.append(number)
        hashes += look.hashes
        thumbs += look.thumbs
    count = len(numbers)
    return (
        np.array(numbers, dtype=np.int64),
        np.frombuffer(bytes(hashes), dtype=np.uint64).reshape(count, PICTURES),
        np.frombuffer(bytes(thumbs), dtype=np.uint8).reshape(count, PICTURES * THUMB * THUMB),
    )


def _candidates(hashes: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Pairs with at most MOST_BITS different bits that share a piece; a pair may come more than once."""
    pieces = hashes.view(np.uint16).reshape(len(hashes), PIECES)
    whole = np.lexsort(hashes.T)  # equal hashes lie side by side, so that of a thousand copies only neighbours are compared
    equal = (hashes[whole[1:]] == hashes[whole[:-1]]).all(axis=1)
    for place in np.flatnonzero(equal).tolist():
        yield int(whole[place]), int(whole[place + 1])
    distinct = np.sort(whole[np.concatenate([[True], ~equal])])
    for piece in range(PIECES):
        order = distinct[np.argsort(pieces[distinct, piece], kind="stable")]
        values = pieces[order, piece]
        ends = np.flatnonzero(np.diff(values)) + 1
        for group in np.split(order, ends):
            if len(group) > 1:
                yield from _close(group, hashes)


def _close(group: NDArray[np.int64], hashes: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Pairs of a group that are close. A very large group is sorted and each compared with its neighbours only."""
    if len(group) > 4 * _NEIGHBOURS:
        group = group[np.lexsort(hashes[group].T)]
    for place in range(len(group) - 1):
        others = group[place + 1 : place + 1 + 4 * _NEIGHBOURS]
        bits = np.bitwise_count(hashes[group[place]] ^ hashes[others]).sum(axis=1)
        for other in others[bits <= MOST_BITS].tolist():
            yield int(group[place]), int(other)


def _same(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether the pictures themselves agree, apart from their brightness as a whole."""
    difference = one.astype(np.float32).reshape(PICTURES, -1) - other.astype(np.float32).reshape(PICTURES, -1)
    difference = np.abs(difference - difference.mean(axis=1, keepdims=True))
    return bool(difference.mean() <= MOST_MEAN and difference.max() <= MOST_CELL)


def _root(parents: NDArray[np.int64], index: int) -> int:
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = int(parents[index])
    return index


def group_by_first(alike: dict[int, int]) -> dict[int, list[int]]:
    """The copies of each first one, in order."""
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for number in sorted(alike):
        groups[alike[number]].append(number)
    return dict(groups)
