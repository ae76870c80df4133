"""Keys of what the held-out loss decides: when a run ends, and which of its checkpoints becomes the LoRA."""

from __future__ import annotations

from typing import ClassVar, Literal

from ltx2core.config.keys import Keys, key


class HeldOutKeys(Keys):
    """What follows from the held-out loss. eval_steps_interval says how often it is measured."""

    group: ClassVar[str] = "Early stop and best checkpoint"

    eval_patience: int = key(
        0,
        "Patience",
        "End the run when so many measurements of the held-out loss in a row were no lower than the lowest before them. 0: train all "
        "max_train_steps.",
        ge=0,
        le=100_000,
    )
    lora_checkpoint: Literal["last", "best"] = key(
        "last",
        "LoRA of",
        "Which state becomes the LoRA file. last: that of the last step. best: that with the lowest held-out loss, for which a checkpoint "
        "is written whenever a measurement is the lowest so far. The checkpoint of the lowest loss is never deleted to make room for newer "
        "ones.",
    )
