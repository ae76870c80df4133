"""`ltx2tui attach`: the Run screen of a run of another process, or of the past."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.errors import RunError
from ltx2core.runs.folder import RunFolder, list_runs

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


def run(arguments: argparse.Namespace) -> int:
    folder = find_run(arguments.root, arguments.run)
    from ltx2tui.commands.app import open_app
    from ltx2tui.training import AttachedFeed

    return open_app(arguments.root, watch=AttachedFeed(folder))


def find_run(root: Path, name: str | None) -> RunFolder:
    """The run of a name; without one, the newest that trains, else the newest. Raises RunError with the names there are."""
    runs = list(list_runs(root))
    if name is None:
        if not runs:
            raise RunError(
                f"There are no runs in {(root / 'runs').absolute()}.", fix="`ltx2tui demo` makes one; --root DIR looks elsewhere."
            )
        return next((folder for folder in runs if folder.is_alive()), runs[0])
    folder = RunFolder(root / "runs" / name)
    if not folder.journal.exists():
        names = ", ".join(other.name for other in runs[:8]) or "none"
        raise RunError(f"There is no run {name!r} in {(root / 'runs').absolute()}.", fix=f"Runs there: {names}.")
    return folder
