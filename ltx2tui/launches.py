"""The kinds of run that can be started: the demo, a config file, a draft of the wizard, a run that goes on. Loads nothing heavy."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2tui.training import Launch

if TYPE_CHECKING:
    from ltx2core.config.load import LoadedConfig
    from ltx2core.runs.folder import RunFolder
    from ltx2tui.draft import Draft


def new_name(kind: str) -> str:
    """A run name that sorts by time: `demo-0131-1405`."""
    return f"{kind}-{time.strftime('%m%d-%H%M%S')}"


def demo_launch(root: Path, *, steps: int | None = None) -> Launch:
    """The demo: clips made here, trained on nano, with a verdict at the end."""

    def prepare() -> LoadedConfig:
        from ltx2core.demo import prepare_demo

        return prepare_demo(root / "demo", steps=steps)

    def verdict(folder: RunFolder) -> list[str]:
        from ltx2core.demo import demo_verdict

        return demo_verdict(folder)

    return Launch(root=root, name=new_name("demo"), prepare=prepare, when_finished=verdict)


def root_of(loaded: LoadedConfig | None, *, asked: Path | None) -> Path:
    """Where runs/ and cache/ lie: what --root or LTX2TUI_HOME asked for, else the config's output_dir, else the current folder."""
    return asked or (loaded.config.output_dir if loaded is not None else None) or Path()


def file_launch(root: Path, config: Path, loaded: LoadedConfig, *, name: str | None, resume: bool) -> Launch:
    """A config file, as it was loaded."""
    return Launch(root=root, name=name or new_name(_fit(config.stem)), prepare=lambda: loaded, resume=resume)


def draft_launch(root: Path, draft: Draft, *, name: str) -> Launch:
    """What the wizard was told."""
    return Launch(root=root, name=name, prepare=lambda: draft.loaded(Path.cwd()))


def resume_launch(folder: RunFolder) -> Launch:
    """A run that goes on from its last checkpoint, with the config it was started with."""

    def prepare() -> LoadedConfig:
        from ltx2core.config.load import load_config

        return load_config(folder.config)

    return Launch(root=folder.path.parent.parent, name=folder.name, prepare=prepare, resume=True)


def _fit(stem: str) -> str:
    """A file's stem as the start of a run name."""
    kept = "".join(character if character.isascii() and (character.isalnum() or character in "._-") else "-" for character in stem)
    return kept.strip("._-")[:40] or "run"
