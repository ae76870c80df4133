"""The clips of the Dataset page as its table shows them: a few facts each, sorted and filtered. No widgets here; 100,000 fit."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ltx2core.data.survey import Row

SortKey = Literal["clip", "size", "frames", "fps", "length", "sound", "tokens", "bucket", "notes"]
SORT_KEYS: tuple[SortKey, ...] = ("clip", "size", "frames", "fps", "length", "sound", "tokens", "bucket", "notes")
ALL, LEFT_OUT, WARNED = "", "left out", "warned"  # filters beside the codes
_RANKS = {"error": 0, "warning": 1, "info": 2}


class ClipFacts(NamedTuple):
    """One line of the table. Of what could not be read, numbers are 0."""

    number: int  # among the paths of the folder, which is also its place in the order of paths
    name: str  # below the folder
    width: int
    height: int
    frames: int
    fps: float
    seconds: float
    hertz: int  # of its sound; 0 without
    tokens: int
    bucket: str  # empty when it is left out
    codes: tuple[str, ...]  # the worst first
    level: str  # of the worst: error, warning, info, or empty

    @property
    def usable(self) -> bool:
        return bool(self.bucket)


def facts_of(row: Row, name: str) -> ClipFacts:
    """What the table shows of a row. name: of the clip, below its folder."""
    clip = row.clip
    ranked = sorted(clip.problems, key=lambda problem: _RANKS[problem.level])
    return ClipFacts(
        number=row.number,
        name=name,
        width=clip.width,
        height=clip.height,
        frames=clip.frames,
        fps=clip.fps,
        seconds=clip.seconds,
        hertz=clip.audio.sample_rate if clip.audio is not None else 0,
        tokens=row.tokens,
        bucket=sys.intern(row.bucket.label if row.bucket is not None else ""),
        codes=tuple(sys.intern(problem.code) for problem in ranked),
        level=ranked[0].level if ranked else "",
    )


class ClipList:
    """All clips found so far, and the ones on show in their order."""

    def __init__(self) -> None:
        self._facts: dict[int, ClipFacts] = {}  # by number
        self.shown: list[int] = []  # numbers, as sorted and filtered
        self.sort_key: SortKey = "clip"
        self.reverse = False
        self.filter = ALL
        self.usable = 0
        self.seconds = 0.0  # of the usable ones
        self.codes: Counter[str] = Counter()
        self.buckets: Counter[str] = Counter()
        self.warned = 0

    def __len__(self) -> int:
        return len(self._facts)

    def __getitem__(self, number: int) -> ClipFacts:
        return self._facts[number]

    def get(self, number: int) -> ClipFacts | None:
        return self._facts.get(number)

    def put(self, arrived: Iterable[ClipFacts]) -> None:
        """Take clips in, or other facts about known ones. `arrange` brings them into what is shown."""
        for facts in arrived:
            if (before := self._facts.get(facts.number)) is not None:
                self._count(before, -1)
            self._facts[facts.number] = facts
            self._count(facts, 1)

    def arrange(self) -> None:
        """Sort and filter anew."""
        numbers = [number for number, facts in self._facts.items() if self._passes(facts)]
        numbers.sort()  # by path, which is what equal ones are left in
        if self.sort_key != "clip":
            numbers.sort(key=lambda number: _sort_value(self._facts[number], self.sort_key), reverse=self.reverse)
        elif self.reverse:
            numbers.reverse()
        self.shown = numbers

    def sort_by(self, key: SortKey) -> None:
        """Sort by a column; by the same one again, the other way round."""
        self.reverse = not self.reverse if key == self.sort_key else False
        self.sort_key = key
        self.arrange()

    def filter_by(self, wanted: str) -> None:
        """Show only the clips of a code, ALL, LEFT_OUT or WARNED."""
        self.filter = wanted
        self.arrange()

    def counted(self) -> list[tuple[str, int]]:
        """How many clips have each problem, the most frequent first; in the order of names where they are equal."""
        return sorted(((code, count) for code, count in self.codes.items() if count > 0), key=lambda one: (-one[1], one[0]))

    def place_of(self, number: int | None) -> int:
        """The place of a clip among those shown; 0 when it is not there."""
        try:
            return self.shown.index(number) if number is not None else 0
        except ValueError:
            return 0

    def _passes(self, facts: ClipFacts) -> bool:
        if self.filter == ALL:
            return True
        if self.filter == LEFT_OUT:
            return not facts.usable
        return facts.level in ("error", "warning") if self.filter == WARNED else self.filter in facts.codes

    def _count(self, facts: ClipFacts, by: int) -> None:
        for code in set(facts.codes):
            self.codes[code] += by
        self.warned += by * (facts.level in ("error", "warning"))
        if facts.usable:
            self.usable += by
            self.seconds += by * facts.seconds
            self.buckets[facts.bucket] += by


def _sort_value(facts: ClipFacts, key: SortKey) -> tuple[object, ...]:
    if key == "bucket":
        return (not facts.bucket, facts.bucket)
    if key == "notes":
        return (_RANKS.get(facts.level, 3), facts.codes[:1])
    values: dict[str, float] = {
        "size": facts.width * facts.height,
        "frames": facts.frames,
        "fps": facts.fps,
        "length": facts.seconds,
        "sound": facts.hertz,
        "tokens": facts.tokens,
    }
    return (values[key],)
