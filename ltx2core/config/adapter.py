"""Keys of the LoRA itself: how wide it is, which layers it sits in, where it starts."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from ltx2core.config.keys import Keys, Later, key, later, read_json

LORA_KINDS = Later(name="SingLoRA and other starting values", instead="a standard LoRA with standard starting values is trained")
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
    lora_rank_pattern: dict[str, Annotated[int, Field(ge=1, le=1024)]] = key(
        {},
        "Ranks of layers",
        'Other ranks for layers by their names, or whole parts of them: {"attn1": 64, "ff.net.0.proj": 8}. The longest name that fits '
        "counts. Without lora_alpha the alpha of such a layer is its rank.",
    )
    lora_alpha_pattern: dict[str, Annotated[float, Field(gt=0, le=65536)]] = key(
        {}, "Alphas of layers", "Other alphas for layers, named as in lora_rank_pattern."
    )
    use_rslora: bool = key(
        False,
        "rsLoRA",
        "Scale the LoRA by alpha / sqrt(rank) instead of alpha / rank, so that high ranks learn as fast as low ones (rank-stabilised). "
        "With alpha = rank it is far stronger: set lora_alpha to the square root of the rank, or lower the learning rate.",
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
    lora_type: Literal["standard", "lycoris"] = key(
        "standard",
        "LoRA type",
        "standard: two matrices a layer. lycoris: a LoKr, a Kronecker product, small for what it changes; trained by the reference path, "
        "and exported with the names that ComfyUI reads.",
    )
    lycoris_config: str | None = key(
        None,
        "LyCORIS settings",
        "The JSON file with LyCORIS settings: algo (lokr), linear_dim, linear_alpha, factor, decompose_both, full_matrix and "
        "apply_preset.target_module. Empty: a LoKr of whole matrices with factor 16.",
    )
    lora_init_type: str = later("default", LORA_KINDS, "Starting values", "How the LoRA's weights are drawn at the start.")
    use_dora: bool = key(
        False,
        "DoRA",
        "Learn the length of each row of a weight apart from its direction: closer to a full fine-tune at low ranks. Trained by the "
        "reference path, which is slower.",
    )
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

    @field_validator("peft_lora_target_modules", "lora_rank_pattern", "lora_alpha_pattern", mode="before")
    @classmethod
    def _patterns_in_a_string(cls, value: object) -> object:
        """A list or a group of keys written as a string, as command lines need it, is read as what it says."""
        return read_json(value)
