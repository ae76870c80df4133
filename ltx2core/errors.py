"""The errors that reach a user. Each has a text (where, what was found, the rule) and a fix: the pair that a Notice shows.

    Ltx2Error
    ├── ConfigError       a config or dataset list that cannot be used; carries every problem found, not the first
    ├── DatasetError      clips that cannot be trained on
    ├── CheckpointError   model files that are missing, damaged or of another model
    ├── DoesNotFit        too little memory, of the machine or of the GPU, for what would come next
    ├── StorageError      a folder that cannot be written, a full disk
    ├── RunError          a run folder that is locked, damaged or cannot be resumed
    └── Stopped           the user, or a signal, asked the run to stop: not a failure

`ValueError` stays for wrong arguments inside the code, `assert` for the impossible.
"""

from __future__ import annotations


class Ltx2Error(Exception):
    """A problem with a way out: `text` says where, what and why, `fix` says what would work."""

    exit_code = 1

    def __init__(self, text: str, *, fix: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.text} {self.fix}".strip()


class ConfigError(Ltx2Error):
    """A file of settings that cannot be used. `problems` holds every line; `text` is all of them."""

    def __init__(self, problems: list[str], *, fix: str = "") -> None:
        super().__init__("\n".join(problems), fix=fix)
        self.problems = problems


class DatasetError(Ltx2Error):
    """No clip, or not one usable clip, to train on."""


class CheckpointError(Ltx2Error):
    """A model file that is missing, damaged, or not the model that was asked for."""


class DoesNotFit(Ltx2Error):  # noqa: N818 - the words that a caller reads: what it catches does not fit
    """Memory has no room for what is about to be loaded or computed. The text has both amounts."""


class StorageError(Ltx2Error):
    """A place that cannot be written to, or has no room."""


class RunError(Ltx2Error):
    """A run that cannot be started, resumed or attached to."""


class Stopped(Ltx2Error):  # noqa: N818 - it is not an error, only the way out of a phase
    """Asked to stop. The run folder holds a checkpoint of the last finished step."""

    exit_code = 130
