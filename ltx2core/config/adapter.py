"""Keys of the LoRA itself: how wide it is, which layers it sits in, where it starts."""

from __future__ import annotations

import json
from typing import ClassVar, Literal

from pydantic import field_validator

from ltx2core.config.keys import Keys, Later, key, later

LYCORIS = Later(name="LyCORIS", instead="a standard LoRA is trained")
LORA_KINDS = Later(name="DoRA, SingLoRA and other starting values", instead="a standard LoRA with standard starting values is trained")
START_FROM_LORA = Later(name="starting from another LoRA", instead="the LoRA starts from nothing")
EMA = Later(name="an averaged copy of the LoRA (EMA)", instead="the LoRA of the last step is written", switch="use_ema")
LORA_FORMAT = Later(name="choosing the file's key names", instead="the official names are written, which ComfyUI and diffusers both read")


class AdapterKeys(Keys):
    """What is added to the model and trained."""

    group: ClassVar[str] = "LoRA"

    lora_rank: int = key(
        32, "Rank", "Width of the LoRA. Twice the rank is twice the file; 16 to 64 suits most styles and subjects.", ge=1, le=1024
    )
    lora_alpha: float | None = key(
        None, "Alpha", "Strength of the LoRA: it is scaled by alpha / rank. Empty: the same as the rank.", gt=0, le=65536
    )
    lora_dropout: float = key(
        0.0, "Dropout", "Share of the LoRA's inputs that is left out at random in training, against overfitting.", ge=0, lt=1
    )
    peft_lora_target_modules: list[str] | None = key(
        None,
        "Target layers",
        'Names of the layers that get a LoRA, for example ["attn1.to_q"]. Empty: the attention layers of video, and of sound where it is '
        "trained.",
        min_length=1,
    )
    lora_type: Literal["standard", "lycoris"] = later("standard", LYCORIS, "LoRA type", "The kind of adapter.")
    lycoris_config: str | None = later(None, LYCORIS, "LyCORIS settings", "The file with LyCORIS settings.")
    lora_init_type: str = later("default", LORA_KINDS, "Starting values", "How the LoRA's weights are drawn at the start.")
    use_dora: bool = later(False, LORA_KINDS, "DoRA", "Learn direction and length of the weights apart.")
    peft_lora_mode: Literal["standard", "singlora"] = later("standard", LORA_KINDS, "LoRA mode", "Two matrices, or one used twice.")
    init_lora: str | None = later(None, START_FROM_LORA, "Start from", "A LoRA file whose weights are the start.", built=("",))
    assistant_lora_path: str | None = later(None, START_FROM_LORA, "Assistant LoRA", "A LoRA that is taken away while training.")
    assistant_lora_strength: float = later(1.0, START_FROM_LORA, "Assistant strength", "How much of the assistant LoRA is applied.")
    lora_format: Literal["diffusers", "comfyui"] = later("comfyui", LORA_FORMAT, "File format", "Key names in the LoRA file.")
    use_ema: bool = later(False, EMA, "EMA", "Keep a running average of the LoRA.")
    ema_device: str = later("cpu", EMA, "EMA device", "Where the average is kept.")
    ema_decay: float = later(0.995, EMA, "EMA decay", "How slowly the average follows.")
    ema_update_interval: int | None = later(None, EMA, "EMA interval", "Steps between updates of the average.")
    ema_validation: str = later("comparison", EMA, "EMA samples", "Which of the two makes the samples.")
    slider_strength: float | None = later(None, LORA_KINDS, "Slider strength", "Train a LoRA that works in two directions.")

    @field_validator("peft_lora_target_modules", mode="before")
    @classmethod
    def _list_in_a_string(cls, value: object) -> object:
        """A list written as a string, as command lines need it, is read as the list."""
        if isinstance(value, str) and value.lstrip().startswith("["):
            try:
                parsed: object = json.loads(value)
            except (ValueError, RecursionError):
                return value
            return parsed
        return value
