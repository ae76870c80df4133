"""`ltx2tui configure`: the wizard as plain questions, for terminals and people that like no full-screen app."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args, get_origin

from ltx2core.errors import Ltx2Error, Stopped, StorageError
from ltx2core.runs.files import write_json
from ltx2tui.draft import FORM, Draft, Value, field_of, problem_with
from ltx2tui.reading import read_value, shown

if TYPE_CHECKING:
    import argparse


class NoQuestionsError(Ltx2Error):
    """The command was called where nobody can answer."""

    exit_code = 2


def run(arguments: argparse.Namespace) -> int:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise NoQuestionsError(
            "The questions need a terminal.", fix="Write config.json by hand; `ltx2tui explain KEY` says what keys mean."
        )
    out: Path = arguments.out
    datasets = out.with_name("datasets.json")
    if taken := next((path for path in (out, datasets) if path.exists()), None):
        raise StorageError(f"{taken} exists already.", fix="Choose another file with --out, or move it away.")
    draft = ask_all()
    values, entries = draft.config()
    write_json(datasets, entries)
    write_json(out, {**values, "data_backend_config": datasets.name})
    sys.stdout.write(
        f"Written: {out} and {datasets}. Check them with `ltx2tui config check {out}`, train with `ltx2tui train --config {out}`.\n"
    )
    return 0


def ask_all() -> Draft:
    """Every question of the form; enter keeps the usual answer. Raises Stopped on Ctrl-C."""
    import questionary

    folder = questionary.path("Folder of clips", only_directories=True, validate=_is_folder).ask()
    if folder is None:
        raise Stopped("Nothing was written.")
    draft = Draft(folder=str(Path(folder).expanduser().absolute()))
    for group, paths in FORM:
        questionary.print(group, style="bold")
        for path in paths:
            draft = draft.having(path, _ask(path, draft.value(path)))
    return draft


def _ask(path: str, value: Value) -> Value:
    import questionary

    _, key, field = field_of(path)
    title = field.title or key

    def judge(text: str) -> bool | str:
        return problem_with(path, read_value(text, field.annotation)) or True

    if isinstance(value, bool):
        answer = questionary.confirm(title, default=value).ask()
    elif get_origin(field.annotation) is Literal:
        choices = [str(choice) for choice in get_args(field.annotation)]
        answer = questionary.select(f"{title}  ({key})", choices=choices, default=str(value)).ask()
    else:
        answer = questionary.text(title, default=shown(value), instruction=f"({key}) ", validate=judge).ask()
    if answer is None:
        raise Stopped("Nothing was written.")
    return answer if isinstance(answer, bool) else read_value(answer, field.annotation)


def _is_folder(text: str) -> bool | str:
    return Path(text).expanduser().is_dir() or "There is no such folder."
