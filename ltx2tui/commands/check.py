"""`ltx2tui check`: every clip of a folder, or of a dataset list, with its bucket and its problems; with --fix, mended copies."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2core.data.report import JsonReport, Summary, row_lines
from ltx2core.data.results import Results, default_results_file
from ltx2core.data.survey import Survey
from ltx2core.errors import DatasetError
from ltx2tui import words

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from ltx2core.data.buckets import BucketRule
    from ltx2core.data.children import Depth
    from ltx2core.data.media import Media
    from ltx2core.data.survey import Progress, Row
    from ltx2core.data.tokens import TokenCounter


@dataclass(frozen=True, slots=True)
class _Part:
    """A folder and the rule it is checked by."""

    folder: Path
    rule: BucketRule | None
    batch_size: int
    counter: TokenCounter
    media: Media = "video"


def run(arguments: argparse.Namespace) -> int:
    if arguments.out is not None and not arguments.fix:
        sys.stderr.write("--out is the folder for mended copies: give --fix with it.\n")
        return 2
    with Results(default_results_file(arguments.asked_root)) as results:
        if results.trouble:
            sys.stderr.write(f"{results.trouble}\n")
        depth: Depth = "header" if arguments.quick and not arguments.fix else "deep"
        surveys = [
            Survey(part.folder, results, rule=part.rule, depth=depth, batch_size=part.batch_size, counter=part.counter, media=part.media)
            for part in _parts(arguments.path)
        ]
        for survey in surveys:
            survey.measure(on_progress=_progress_line())
        return _tell(surveys, as_json=arguments.json) if not arguments.fix else _fix(surveys, results, arguments)


def _tell(surveys: list[Survey], *, as_json: bool, **more: object) -> int:
    summary = Summary()
    rows = _added((row for survey in surveys for row in survey.rows()), summary)
    if as_json:
        report = JsonReport(sys.stdout.write)
        for row in rows:
            report.add(row)
        report.close(summary, **more)
    else:
        for row in rows:
            sys.stdout.write("\n".join(row_lines(row)) + "\n")
        sys.stdout.write(f"\n{summary.closing_line()}\n")
    return 0 if summary.usable else 1


def _fix(surveys: list[Survey], results: Results, arguments: argparse.Namespace) -> int:
    """Mend each folder into a new one, say what became of every clip, and check the new one."""
    from ltx2core.data.repair.folder import mend_folder, mended_folder

    if arguments.out is not None and len(surveys) > 1:
        raise DatasetError(f"--out is one folder, the list has {len(surveys)}.", fix="Leave --out off: each is mended beside itself.")
    outcomes: list[dict[str, object]] = []
    mended: list[Survey] = []
    for survey in surveys:
        if survey.media != "video":
            sys.stderr.write(f"{survey.folder} holds pictures or sound, of which nothing is mended.\n")
            continue
        out = arguments.out or mended_folder(survey.folder)
        for outcome in mend_folder(survey, out):
            if arguments.json:
                outcomes.append(outcome.to_json())
            else:
                sys.stdout.write(outcome.line() + "\n")
        if not arguments.json:
            sys.stdout.write(f"\n{survey.folder} is as it was. The mended clips are in {out}:\n\n")
        mended.append(survey.over(out))
        mended[-1].measure(on_progress=_progress_line())
    return _tell(mended, as_json=arguments.json, **({"fixed": outcomes} if arguments.json else {}))


def _added(rows: Iterator[Row], summary: Summary) -> Iterator[Row]:
    for row in rows:
        summary.add(row)
        yield row


def _parts(path: Path) -> list[_Part]:
    """The folders to be checked: one, or every dataset of a list (or of the list that a config names) with its own rule."""
    from ltx2core.data.tokens import find_counter

    if path.suffix != ".json" or not path.is_file():
        return [_Part(path, None, 1, find_counter(None, base=Path()))]
    from ltx2core.config.load import load_part
    from ltx2core.data.dataset import MEDIA, bucket_rule

    loaded = load_part(path)
    counter = find_counter(loaded.config, base=loaded.base)
    return [
        _Part(
            loaded.base / dataset.instance_data_dir,
            bucket_rule(dataset, frame_rate=loaded.config.frame_rate, seed=loaded.config.seed, texts=loaded.datasets.text_embeds),
            1 if dataset.dataset_type == "eval" else dataset.train_batch_size or loaded.config.train_batch_size,
            counter,
            MEDIA[dataset.dataset_type],
        )
        for dataset in (*loaded.datasets.videos, *loaded.datasets.evals)
    ]


def _progress_line() -> Callable[[Progress], None] | None:
    """Draws one line over itself, where a person watches; the output itself stays clean for scripts."""
    if not sys.stderr.isatty():
        return None

    def draw(progress: Progress) -> None:
        sys.stderr.write("\r\x1b[K" + (progress_words(progress) if progress.done < progress.total else ""))
        sys.stderr.flush()

    return draw


def progress_words(progress: Progress) -> str:
    """`120 of 2,000 clips looked at, 80 known before, about 3 min left`."""
    known = f", {progress.known:,} known before" if progress.known else ""
    left = progress.seconds_left
    return f"{progress.done:,} of {words.count(progress.total, 'clip')} looked at{known}" + (
        f", about {words.duration(left)} left" if left else ""
    )
