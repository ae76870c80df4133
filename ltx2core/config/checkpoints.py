"""Keys of saving, resuming, and telling others about a run."""

from __future__ import annotations

from typing import ClassVar

from pydantic import JsonValue, field_validator
from pydantic_core import PydanticCustomError

from ltx2core.config.keys import Keys, Later, key, later

RESUME_ELSEWHERE = Later(name="resuming from a named checkpoint", instead="a resumed run goes on from its own newest checkpoint")
EPOCH_SAVES = Later(name="saving by epochs", instead="checkpoint_step_interval decides")
ROLLING_SAVES = Later(name="rolling safety checkpoints", instead="only the checkpoints of checkpoint_step_interval are written")
TEMPORARY_SAVES = Later(name="choosing how checkpoints are written", instead="each is always complete or absent")
DISK_GUARD = Later(name="the disk-space guard", instead="a full disk stops the run with its last checkpoint whole")
PUBLISHING = Later(name="publishing in other ways", instead="push_to_hub uploads the finished LoRA")
SCRIPTS = Later(name="calling scripts and webhooks", instead="nothing outside is called")


_TRACKERS = ("tensorboard", "wandb")
_REPORTS = (*_TRACKERS, "none", "all", "simpletuner")  # the last: numbers kept beside the run, as the journal has them


class CheckpointKeys(Keys):
    """What is saved, and when."""

    group: ClassVar[str] = "Checkpoints"

    checkpoint_step_interval: int = key(
        500, "Save every", "Steps between checkpoints. 0: only at the end.", aliases=("checkpointing_steps",), ge=0, le=10_000_000
    )
    checkpoints_total_limit: int = key(
        5, "Keep", "How many checkpoints are kept; the oldest is deleted first. 0: all of them.", ge=0, le=1_000_000
    )
    resume_from_checkpoint: str = later(
        "",
        RESUME_ELSEWHERE,
        "Resume",
        "latest: go on from the newest checkpoint of the run with this name, if it has one. Empty: only when --resume asks for it.",
        built=("latest",),
    )
    checkpoint_epoch_interval: int | None = later(None, EPOCH_SAVES, "Save every epoch", "Epochs between checkpoints.", built=(0,))
    checkpointing_rolling_steps: int = later(0, ROLLING_SAVES, "Rolling saves", "Steps between short-lived safety checkpoints.")
    checkpoints_rolling_total_limit: int = later(1, ROLLING_SAVES, "Rolling saves kept", "How many safety checkpoints are kept.")
    checkpointing_use_tempdir: bool = later(
        False, TEMPORARY_SAVES, "Save via a temporary folder", "Write beside, then rename.", built=(True,)
    )
    disk_low_threshold: str | None = later(None, DISK_GUARD, "Disk limit", "The free space below which the guard acts.")
    disk_low_action: str | None = later(None, DISK_GUARD, "Disk action", "What the guard does.")
    disk_low_script: str | None = later(None, DISK_GUARD, "Disk script", "What the guard calls.")
    report_to: str = key(
        "none",
        "Report to",
        "Trackers that are told the run's numbers and samples: tensorboard (into the run's folder), wandb, both with a comma, or all. They "
        "need `pip install 'ltx2tui[trackers]'`. A key for wandb comes from its login or WANDB_API_KEY, never from here.",
    )
    tracker_project_name: str | None = key(None, "Tracker project", "The project's name at wandb. Empty: ltx2tui.")
    tracker_run_name: str | None = key(None, "Tracker run", "The run's name at wandb. Empty: its name here.")
    push_to_hub: bool = key(
        False,
        "Publish",
        "Upload the finished LoRA, a model card and its newest sample to the Hugging Face hub. The token is that of `hf auth login` or "
        "HF_TOKEN, never a key.",
    )
    push_checkpoints_to_hub: bool = later(False, PUBLISHING, "Publish checkpoints", "Upload each checkpoint.")
    hub_model_id: str | None = key(
        None, "Hub name", "The repository to upload to, such as me/my-lora. Empty: the run's name.", switch="push_to_hub"
    )
    publishing_config: JsonValue = later(None, PUBLISHING, "Publishing", "Other places to upload to.")
    model_card_private: bool = key(True, "Private", "Whether a repository that is made is private.", switch="push_to_hub")

    @field_validator("report_to")
    @classmethod
    def _known_trackers(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",") if name.strip()]
        if unknown := [name for name in names if name not in _REPORTS]:
            text = "{unknown} is not built; use {names}, or none"
            raise PydanticCustomError("unknown_tracker", text, {"unknown": ", ".join(unknown), "names": ", ".join(_TRACKERS)})
        return value

    post_checkpoint_script: str | None = later(None, SCRIPTS, "After a checkpoint", "A command to run after each checkpoint.")
    post_upload_script: str | None = later(None, SCRIPTS, "After an upload", "A command to run after an upload.")
    webhook_config: JsonValue = later(None, SCRIPTS, "Webhook", "An address that is told what happens.")
