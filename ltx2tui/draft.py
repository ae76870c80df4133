"""What the wizard has been told so far, kept in a file after every step, so that a dropped line loses nothing. No widgets here.

A draft holds only what the user set; the rest follows from the model: small values for nano, the config's own defaults otherwise.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from ltx2core.config.datasets import VideoDataset
    from ltx2core.config.load import LoadedConfig

Value = str | int | float | bool | list[str] | None

FORM: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Model", ("pretrained_model_name_or_path", "pretrained_gemma_model_name_or_path", "mixed_precision")),
    ("Training", ("max_train_steps", "learning_rate", "lr_scheduler", "lora_rank", "train_batch_size", "seed")),
    ("Captions", ("dataset.caption_strategy", "dataset.instance_prompt", "dataset.prepend_instance_prompt")),
    (
        "Clips",
        (
            "dataset.resolution",
            "dataset.video.num_frames",
            "dataset.video.segments",
            "frame_rate",
            "dataset.repeats",
            "dataset.audio.auto_split",
        ),
    ),
    (
        "Samples",
        (
            "validation_prompt",
            "validation_step_interval",
            "validation_resolution",
            "validation_num_video_frames",
            "validation_num_inference_steps",
            "validation_guidance",
        ),
    ),
    ("Safety", ("checkpoint_step_interval", "eval_steps_interval", "eval_split")),
)

# What a plan may set besides the form's keys: how weights and activations are held.
PLANNED = (
    "base_model_precision",
    "fp8_gradients",
    "gradient_checkpointing",
    "recompute_all_blocks",
    "musubi_blocks_to_swap",
    "ramtorch",
    "enable_group_offload",
    "gradient_accumulation_steps",
    "text_encoder_1_precision",
    "vae_enable_temporal_roll",
    "vae_enable_patch_conv",
)

NANO: dict[str, Value] = {
    "pretrained_model_name_or_path": "nano",
    "mixed_precision": "no",
    "max_train_steps": 200,
    "learning_rate": 0.001,
    "lora_rank": 16,
    "dataset.resolution": 128,
    "dataset.video.num_frames": 17,
    "validation_resolution": "128x128",
    "validation_num_video_frames": 17,
    "validation_num_inference_steps": 20,
    "validation_step_interval": 100,
    "checkpoint_step_interval": 100,
    "eval_steps_interval": 50,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The wizard's answers. `set_values` are by path: a config key, or `dataset.` and a key of the dataset's entry."""

    folder: str = ""
    set_values: dict[str, Value] = field(default_factory=dict)

    @property
    def is_nano(self) -> bool:
        return self.set_values.get("pretrained_model_name_or_path", "nano") == "nano"

    def value(self, path: str) -> Value:
        """What is set at a path, or what it is by itself."""
        if path in self.set_values:
            return self.set_values[path]
        return NANO[path] if self.is_nano and path in NANO else _default(path)

    def having(self, path: str, value: Value) -> Draft:
        """The draft with a value set; one that says what would be so anyway is not kept."""
        rest = {key: held for key, held in self.set_values.items() if key != path}
        bare = replace(self, set_values=rest)
        return bare if bare.value(path) == value else replace(self, set_values={**rest, path: value})

    def config(self) -> tuple[dict[str, object], list[dict[str, object]]]:
        """The draft as config.json and a dataset list would hold it."""
        paths = dict.fromkeys([*(NANO if self.is_nano else ()), *self.set_values])
        dataset: dict[str, object] = {"id": "clips", "dataset_type": "video", "type": "local", "instance_data_dir": self.folder}
        video: dict[str, object] = {}
        values: dict[str, object] = {}
        for path in paths:
            if path.startswith("dataset.video."):
                video[path.removeprefix("dataset.video.")] = self.value(path)
            elif path.startswith("dataset.") and not path.startswith("dataset.audio."):
                dataset[path.removeprefix("dataset.")] = self.value(path)
            elif not path.startswith("dataset."):
                values[path] = self.value(path)
        values.setdefault("pretrained_model_name_or_path", self.value("pretrained_model_name_or_path"))
        if video:
            dataset["video"] = video
        if self.value("dataset.audio.auto_split"):
            dataset["audio"] = {"auto_split": True}
        return values, [dataset]

    def dataset(self) -> VideoDataset:
        """The dataset's entry alone, which says how clips are captioned and placed. Raises pydantic's ValidationError."""
        from ltx2core.config.datasets import VideoDataset

        return VideoDataset.model_validate({**self.config()[1][0], "instance_data_dir": self.folder or "."})

    def loaded(self, base: Path) -> LoadedConfig:
        """The draft as a config that can be trained. Raises ConfigError with every problem."""
        from ltx2core.config.load import load_config_dict

        values, datasets = self.config()
        return load_config_dict(values, base=base, datasets=datasets)


def models() -> dict[str, type[BaseModel]]:
    """The config model that each prefix of a path belongs to."""
    from ltx2core.config.datasets import AudioSettings, VideoDataset, VideoSettings
    from ltx2core.config.train import TrainConfig

    return {"dataset.video.": VideoSettings, "dataset.audio.": AudioSettings, "dataset.": VideoDataset, "": TrainConfig}


def field_of(path: str) -> tuple[type[BaseModel], str, FieldInfo]:
    """(model, key, field) of a path."""
    prefix, model = next((prefix, model) for prefix, model in models().items() if path.startswith(prefix))
    name = path.removeprefix(prefix)
    return model, name, model.model_fields[name]


@cache
def _default(path: str) -> Value:
    default: Value = field_of(path)[2].default
    return default


def problem_with(path: str, value: Value) -> str:
    """Why a value cannot stand at a path, in a sentence; empty when it can."""
    from pydantic import ValidationError

    from ltx2core.config.wording import reword

    model, name, _ = field_of(path)
    rest: dict[str, object] = {"instance_data_dir": "."} if "instance_data_dir" in model.model_fields else {}
    try:
        model.model_validate({**rest, name: value})
    except ValidationError as error:
        if any(one["loc"][:1] == (name,) for one in error.errors()):
            said = reword(error, file="", model=model)[0].strip()
            return said.split(": ", 1)[-1]
    return ""


def draft_file() -> Path:
    """Where the draft is kept: the user's config folder."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "ltx2tui" / "draft.json"


def read_draft(path: Path) -> Draft:
    """The draft kept in a file; an empty one when there is none that can be read."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        known = {*PLANNED, *(key for _, keys in FORM for key in keys)}
        return Draft(folder=str(held["folder"]), set_values={key: value for key, value in held["set"].items() if key in known})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Draft()


def write_draft(path: Path, draft: Draft) -> None:
    """Keep a draft. Raises StorageError."""
    from ltx2core.runs.files import write_json

    write_json(path, {"folder": draft.folder, "set": draft.set_values})
