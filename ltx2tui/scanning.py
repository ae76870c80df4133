"""The Dataset page's scan and mending, run in its worker threads: the same code as `ltx2tui check`. No widgets here.

Facts come in three rounds: what earlier scans know, at once; every file's header; then pictures and sound. What is wrong with clips
beside each other comes last.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2core.errors import Ltx2Error, Stopped
from ltx2tui.clip_list import facts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ltx2core.data.buckets import BucketRule
    from ltx2core.data.children import Depth, Reading
    from ltx2core.data.clip import Problem
    from ltx2core.data.repair.folder import Outcome
    from ltx2core.data.results import Results
    from ltx2core.data.survey import Progress, Row, Survey
    from ltx2core.data.tokens import TokenCounter
    from ltx2tui.clip_list import ClipFacts
    from ltx2tui.draft import Draft

_SECONDS = 0.25  # between two messages to the screen


@dataclass(frozen=True, slots=True)
class Found:
    """What a scan tells the screen, now and then."""

    facts: list[ClipFacts]
    depth: Depth = "header"
    progress: Progress | None = None
    beside: dict[int, tuple[Problem, ...]] | None = None  # once, at the end
    done: bool = False
    trouble: Ltx2Error | None = None
    note: str = ""  # why results are not kept


@dataclass
class Scan:
    """One scan of a folder. `run` is for a worker; `row` may be called from another one at any time after the first facts came."""

    folder: Path
    draft: Draft
    results_file: Path | None
    stopped: Callable[[], bool]
    tell: Callable[[Found], None]
    rule: BucketRule | None = None  # this and the next ones are there once it runs
    counter: TokenCounter | None = None
    survey: Survey | None = None
    kept_in: Path | None = None
    beside: dict[int, tuple[Problem, ...]] = field(default_factory=dict)
    _waiting: list[ClipFacts] = field(default_factory=list)
    _told: float = 0.0

    def run(self) -> None:
        """Scan, telling facts as they come; the last word is `done`, or the trouble that ended it."""
        from ltx2core.data.dataset import bucket_rule
        from ltx2core.data.results import Results

        self.counter = counter_of(self.draft)
        try:
            rate, seed = float(str(self.draft.value("frame_rate"))), int(str(self.draft.value("seed")))
            self.rule = bucket_rule(self.draft.dataset(), frame_rate=rate, seed=seed)  # reads the captions' table, if there is one
            with Results(self.results_file) as results:
                self.kept_in = results.file
                if results.trouble:
                    self.tell(Found([], note=results.trouble))
                self._run(results)
                self._hold(results)
        except Ltx2Error as error:
            if not self.stopped():
                self.tell(Found([], done=True, trouble=error))

    def _run(self, results: Results) -> None:
        survey, headers = self._survey(results, "deep"), self._survey(results, "header")
        self.survey = survey
        for number, reading in enumerate(results.read(survey.paths)):
            if self.stopped():
                raise Stopped("The scan was stopped.")
            if reading is not None or survey.is_known(number):
                self._add(survey.row(number, reading))
                self._tell("header")
        for one, depth in ((headers, "header"), (survey, "deep")):
            self._measure(one, results, depth)  # type: ignore[arg-type]
        self.beside = survey.beside_others()
        for number, reading in zip(self.beside, results.read([survey.paths[number] for number in self.beside]), strict=True):
            self._add(self._with_others(survey.row(number, reading)))
        self.tell(Found(self._waiting, depth="deep", beside=self.beside, done=True))
        self._waiting = []

    def _survey(self, results: Results, depth: Depth) -> Survey:
        from ltx2core.data.survey import Survey
        from ltx2core.data.tokens import ESTIMATE

        batch_size = int(str(self.draft.value("train_batch_size")))
        return Survey(self.folder, results, rule=self.rule, depth=depth, batch_size=batch_size, counter=self.counter or ESTIMATE)

    def _measure(self, one: Survey, results: Results, depth: Depth) -> None:
        assert self.survey is not None
        rows = self.survey

        def arrived(readings: list[tuple[int, Reading]]) -> None:
            for number, reading in readings:
                self._add(rows.row(number, reading))

        def progress(now: Progress) -> None:
            if time.monotonic() - self._told > _SECONDS or now.done == now.total:
                results.commit()  # so that the panel beside the table can read what the table shows
                self._tell(depth, now, always=True)

        one.measure(on_readings=arrived, on_progress=progress, should_stop=self.stopped)

    def _hold(self, results: Results) -> None:
        """Keep temporary results for as long as the page is open."""
        while results.is_temporary and not self.stopped():
            time.sleep(0.2)

    def _add(self, row: Row) -> None:
        self._waiting.append(facts_of(row, os.path.relpath(row.clip.path, self.folder)))

    def _tell(self, depth: Depth, progress: Progress | None = None, *, always: bool = False) -> None:
        now = time.monotonic()
        if always or (self._waiting and now - self._told > _SECONDS):
            self.tell(Found(self._waiting, depth=depth, progress=progress))
            self._waiting, self._told = [], now

    def row(self, number: int) -> Row | None:
        """All that is known of a clip, read anew from what is kept and from its caption file; None before anything is known."""
        from ltx2core.data.results import Results

        if self.survey is None or self.kept_in is None:
            return None
        with Results(self.kept_in) as results:
            reading = next(results.read([self.survey.paths[number]]))
        if reading is None and not self.survey.is_known(number):
            return None
        return self._with_others(self.survey.row(number, reading))

    def _with_others(self, row: Row) -> Row:
        from dataclasses import replace

        extra = self.beside.get(row.number, ())
        return replace(row, clip=row.clip.having(*extra)) if extra else row

    def mend(self, out: Path) -> Iterator[Outcome]:
        """Make the mended folder; what became of each clip, as it is done."""
        from ltx2core.data.repair.folder import mend_folder
        from ltx2core.data.results import Results

        with Results(self.kept_in) as results:
            survey = self._survey(results, "deep")
            survey.measure(should_stop=self.stopped)
            yield from mend_folder(survey, out, should_stop=self.stopped)


def facts_again(scan: Scan, row: Row, *, done: bool) -> Found:
    """The facts of one clip, for when its caption was edited."""
    return Found([facts_of(row, os.path.relpath(row.clip.path, scan.folder))], done=done)


def counter_of(draft: Draft) -> TokenCounter:
    """The token counter of the model that a draft names, as far as this machine has it."""
    from ltx2core.data.tokens import find_counter
    from ltx2core.errors import ConfigError

    try:
        config = draft.loaded(Path()).config
    except ConfigError:  # it is not finished yet
        config = None
    return find_counter(config, base=Path())
