"""`ltx2tui train`: a config file, in the app or as plain lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.errors import RunError
from ltx2core.runs.folder import RunFolder
from ltx2tui.launches import file_launch, resume_launch, root_of

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from ltx2tui.training import Launch


class MissingArgumentError(RunError):
    """The call does not say what to train."""

    exit_code = 2


def run(arguments: argparse.Namespace) -> int:
    return begin(launch_for(arguments), headless=arguments.headless)


def launch_for(arguments: argparse.Namespace) -> Launch:
    """The run that was asked for. Raises RunError for a run to resume that is not there, ConfigError for a config that cannot be used."""
    from ltx2core.config.load import load_config

    # The config is loaded now, so that what is wrong with it is said before a screen opens.
    loaded = None if arguments.config is None else load_config(arguments.config)
    root = root_of(loaded, asked=arguments.asked_root)
    name: str | None = arguments.run
    if arguments.resume:
        name = name or _newest(root)
    if loaded is not None:
        return file_launch(root, arguments.config, loaded, name=name, resume=arguments.resume)
    if name is None or not arguments.resume:
        raise MissingArgumentError("No config was given.", fix="Use --config FILE, or --resume. `ltx2tui configure` writes a config.")
    folder = RunFolder(root / "runs" / name)
    if not folder.config.exists():
        raise RunError(
            f"The run {name!r} in {folder.path.parent} cannot be resumed: it has no config.",
            fix="`ltx2tui runs` lists the runs; or give --config.",
        )
    return resume_launch(folder)


def _newest(root: Path) -> str:
    from ltx2tui.summary import summaries

    runs = summaries(root)
    if not runs:
        raise RunError(f"There is no run to resume in {root / 'runs'}.", fix="Start one with `ltx2tui train --config FILE`.")
    return runs[0].folder.name


def begin(launch: Launch, *, headless: bool) -> int:
    """Train in the app, or with plain lines; the exit code."""
    if not headless:
        from ltx2tui.commands.app import open_app

        return open_app(launch.root, launch=launch)
    from ltx2tui.headless import see_to_end
    from ltx2tui.training import Training

    training = Training(launch)
    training.folder.create()
    survive_hang_up()
    training.start()
    return see_to_end(training)


def survive_hang_up() -> None:
    """A terminal that goes away does not end the run. Under nohup the signal is ignored already, and stays so."""
    import signal

    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        from ltx2tui.descriptors import Terminal, ignore_hang_up

        ignore_hang_up(Terminal())
