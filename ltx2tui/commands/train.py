"""`ltx2tui train`: a config file, in the app or as plain lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.errors import RunError
from ltx2core.runs.folder import RunFolder
from ltx2tui.launches import file_launch, resume_launch

if TYPE_CHECKING:
    import argparse

    from ltx2tui.training import Launch


class MissingArgumentError(RunError):
    """The call does not say what to train."""

    exit_code = 2


def run(arguments: argparse.Namespace) -> int:
    return begin(launch_for(arguments), headless=arguments.headless)


def launch_for(arguments: argparse.Namespace) -> Launch:
    """The run that was asked for. Raises RunError for a run to resume that is not there, ConfigError for a config that cannot be used."""
    name: str | None = arguments.run
    if arguments.resume:
        from ltx2tui.summary import summaries

        runs = summaries(arguments.root)
        if name is None:
            if not runs:
                raise RunError("There is no run to resume.", fix="Start one with `ltx2tui train --config FILE`.")
            name = runs[0].folder.name
        folder = RunFolder(arguments.root / "runs" / name)
        if arguments.config is None:
            if not folder.config.exists():
                raise RunError(
                    f"The run {name!r} cannot be resumed: it has no config.", fix="`ltx2tui runs` lists the runs; or give --config."
                )
            return resume_launch(folder)
    if arguments.config is None:
        raise MissingArgumentError("No config was given.", fix="Use --config FILE, or --resume. `ltx2tui configure` writes a config.")
    launch = file_launch(arguments.root, arguments.config, name=name, resume=arguments.resume)
    loaded = launch.prepare()  # now, so that a wrong config is said before a screen opens
    from dataclasses import replace

    return replace(launch, prepare=lambda: loaded)


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
