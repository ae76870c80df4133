"""Keys of saving, resuming, and telling others about a run."""

from __future__ import annotations

from typing import ClassVar

from pydantic import JsonValue

from ltx2core.config.keys import Keys, Later, key, later

RESUME_ELSEWHERE = Later(name="resuming from a named checkpoint", instead="a resumed run goes on from its own newest checkpoint")
EPOCH_SAVES = Later(name="saving by epochs", instead="checkpoint_step_interval decides")
ROLLING_SAVES = Later(name="rolling safety checkpoints", instead="only the checkpoints of checkpoint_step_interval are written")
TEMPORARY_SAVES = Later(name="choosing how checkpoints are written", instead="each is always complete or absent")
DISK_GUARD = Later(name="the disk-space guard", instead="a full disk stops the run with its last checkpoint whole")
TRACKERS = Later(name="reporting to trackers", instead="the run's journal.jsonl holds every number", switch="report_to")
PUBLISHING = Later(name="publishing to a hub", instead="the LoRA file stays on this disk")
SCRIPTS = Later(name="calling scripts and webhooks", instead="nothing outside is called")


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
    report_to: str = later("none", TRACKERS, "Report to", "Trackers that get the run's numbers, such as tensorboard or wandb.", built=("",))
    tracker_project_name: str | None = later(None, TRACKERS, "Tracker project", "The project's name at the tracker.")
    tracker_run_name: str | None = later(None, TRACKERS, "Tracker run", "The run's name at the tracker.")
    push_to_hub: bool = later(False, PUBLISHING, "Publish", "Upload the LoRA when done.")
    push_checkpoints_to_hub: bool = later(False, PUBLISHING, "Publish checkpoints", "Upload each checkpoint.")
    hub_model_id: str | None = later(None, PUBLISHING, "Hub name", "The repository to upload to.")
    publishing_config: JsonValue = later(None, PUBLISHING, "Publishing", "Other places to upload to.")
    model_card_private: bool = later(False, PUBLISHING, "Private", "Whether the uploaded repository is private.")
    post_checkpoint_script: str | None = later(None, SCRIPTS, "After a checkpoint", "A command to run after each checkpoint.")
    post_upload_script: str | None = later(None, SCRIPTS, "After an upload", "A command to run after an upload.")
    webhook_config: JsonValue = later(None, SCRIPTS, "Webhook", "An address that is told what happens.")
