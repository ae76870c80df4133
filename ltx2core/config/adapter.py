"""Keys of the LoRA itself: how wide it is, which layers it sits in, where it starts."""

from __future__ import annotations

import json
from typing import ClassVar, Literal

from pydantic import field_validator

from ltx2core.config.keys import Keys, Later, key, later

LYCORIS = Later(name="LyCORIS", instead="a standard LoRA is trained")
LORA_KINDS = Later(name="DoRA, SingLoRA and other starting values", instead="a standard LoRA with standard starting values is trained")
ASSISTANT = Later(name="an assistant LoRA", instead="the model is trained as it is")
EMA_SAMPLES = Later(name="samples of the average", instead="samples are made with the LoRA of their step")


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
    init_lora: str | None = key(
        None,
        "Start from",
        "A LoRA file whose weights are the start, in any layout. lora_rank must be its rank or more; what is added learns from nothing. "
        "Only a new run reads it: a resumed one goes on from its checkpoint.",
    )
    assistant_lora_path: str | None = later(None, ASSISTANT, "Assistant LoRA", "A LoRA that is taken away while training.")
    assistant_lora_strength: float = later(1.0, ASSISTANT, "Assistant strength", "How much of the assistant LoRA is applied.")
    lora_format: Literal["comfyui", "diffusers"] = key(
        "comfyui",
        "File format",
        "Key names in the LoRA file. comfyui: the official names, which ComfyUI, diffusers and Lightricks' own code read. diffusers: its "
        "own names, which only diffusers reads. `ltx2tui lora convert` makes one from the other.",
    )
    lora_dtype: Literal["bf16", "fp32"] = key(
        "bf16", "File precision", "Numbers in the LoRA file. bf16 is what models are run in; fp32 keeps every digit in twice the bytes."
    )
    use_ema: bool = key(
        False, "EMA", "Keep a running average of the LoRA as well, which is often steadier, and write it to a second file, <name>-ema."
    )
    ema_device: Literal["cpu", "accelerator"] = key(
        "cpu",
        "EMA device",
        "Where the average is kept. cpu: in RAM; each update copies the LoRA there. accelerator: on the GPU, four bytes for each number of "
        "the LoRA, and no copies.",
    )
    ema_decay: float = key(0.995, "EMA decay", "How slowly the average follows: 0.995 remembers about 200 updates.", ge=0, lt=1)
    ema_update_interval: int = key(1, "EMA interval", "Steps between updates of the average.", ge=1, le=10_000_000)
    ema_validation: str = later("none", EMA_SAMPLES, "EMA samples", "Which of the two makes the samples.")
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
