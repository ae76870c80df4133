"""Keys of the training loop: how long, how fast, with which optimizer and loss."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from ltx2core.config.keys import Keys, Later, key, later, read_json
from ltx2core.config.optimizers import EIGHT_BIT_ADAM, RULES, is_known

SMALLER_STATES = Later(name="AdamW with a state in 4 bits or fp8", instead="AdamW with 8-bit state is used")
MASKED_LOSS = Later(
    name="limiting the loss by masks now and then", instead="a mask says what is given, by ltx2_mask_conditioning_probability"
)
PERTURBATION = Later(name="input perturbation", instead="noise is drawn as usual")
PREFETCH = Later(name="choosing how far to read ahead", instead="the program chooses how batches are read")
FLOAT_MODES = Later(name="choosing TF32", instead="PyTorch's default is kept")
SHORT_EPOCHS = Later(name="ignoring the last epochs", instead="training ends with its last step")


class OptimisationKeys(Keys):
    """How the LoRA is trained."""

    group: ClassVar[str] = "Training"

    output_dir: Path | None = key(
        None, "Output folder", "The folder that gets runs/ and cache/, unless --root or LTX2TUI_HOME names one. Empty: the current folder."
    )
    seed: int = key(
        42, "Seed", "The number all random choices start from. The same seed and settings give the same LoRA.", ge=0, le=2**63 - 1
    )
    max_train_steps: int = key(
        2000,
        "Steps",
        "How many times the LoRA is updated. 0: num_train_epochs decides. Only one of the two can be set.",
        ge=0,
        le=10_000_000,
    )
    num_train_epochs: int = key(
        0,
        "Epochs",
        "How many times all clips are gone through. 0: max_train_steps decides. Only one of the two can be set.",
        ge=0,
        le=1_000_000,
    )
    train_batch_size: int = key(
        1, "Batch size", "Clips looked at together. 1 fits most GPUs; 2 needs nearly twice the memory.", ge=1, le=1024
    )
    gradient_accumulation_steps: int = key(
        1, "Gradient accumulation", "Batches added up before an update: works like a larger batch, without its memory.", ge=1, le=4096
    )
    learning_rate: float = key(
        1e-4, "Learning rate", "How far each update goes. 1e-4 suits LoRAs; too high gives noise, too low learns nothing.", gt=0, le=1
    )
    audio_learning_rate: float | None = key(
        None,
        "Learning rate of sound",
        "A learning rate of its own for the layers whose values go into sound; it follows the same shape over the run. A tenth to a third "
        "of learning_rate helps where sound is learned too fast. Empty: the same. 0: those layers stay as they are.",
        ge=0,
        le=1,
    )
    learning_rate_pattern: dict[str, Annotated[float, Field(ge=0, le=1000)]] = key(
        {},
        "Learning rates of layers",
        'What the learning rate of layers is multiplied by, by their names or whole parts of them: {"attn2": 0.5}. The longest name that '
        "fits counts.",
    )
    lr_scheduler: Literal["constant_with_warmup", "constant", "linear", "cosine", "cosine_with_restarts", "polynomial", "sine"] = key(
        "constant_with_warmup", "Learning rate shape", "How the learning rate changes over the run."
    )
    lr_warmup_steps: int = key(
        0, "Warm-up steps", "Steps over which the learning rate rises from nothing to its full value.", ge=0, le=10_000_000
    )
    lr_end: float = key(0.0, "Last learning rate", "Where a falling learning rate ends.", ge=0, le=1)
    lr_num_cycles: int = key(1, "Cycles", "How often cosine_with_restarts and sine go up and down.", ge=1, le=10_000)
    lr_power: float = key(0.8, "Power", "The bend of the polynomial shape; 1 is a straight line.", gt=0, le=100)
    optimizer: str = later(
        "adamw",
        SMALLER_STATES,
        "Optimizer",
        "The rule that turns gradients into updates. adamw: the fastest, updates are skipped without asking the host. adamw_8bit "
        "(bnb-adamw8bit and ao-adamw8bit mean the same): the same with its state in 8 bits, a third less memory for the LoRA while it "
        "trains, steps a little slower. adafactor, came: less memory still. prodigy: finds the learning rate itself; learning_rate "
        "multiplies it, so leave it at 1.0. adamw_schedulefree: no schedule; use lr_scheduler constant_with_warmup. muon: orthogonal "
        "updates. came, prodigy and adamw_schedulefree need `pip install 'ltx2tui[optimizers]'`. SimpleTuner's other names of the same "
        "rules work too.",
        built=(*RULES, *EIGHT_BIT_ADAM),
    )
    adam_beta1: float = key(0.9, "Adam beta 1", "How long AdamW remembers the direction of past gradients.", ge=0, lt=1)
    adam_beta2: float = key(0.999, "Adam beta 2", "How long AdamW remembers the size of past gradients.", ge=0, lt=1)
    adam_weight_decay: float = key(0.01, "Weight decay", "How strongly weights are pulled towards zero.", ge=0, le=10)
    adam_epsilon: float = key(1e-8, "Adam epsilon", "Keeps AdamW from dividing by zero.", gt=0, le=1)
    max_grad_norm: float = key(
        1.0,
        "Gradient limit",
        "A gradient longer than this is shortened to it, so that one odd clip cannot ruin the LoRA. 0: no limit.",
        ge=0,
    )
    grad_clip_method: Literal["norm", "value"] = key(
        "norm", "Limit by", "What max_grad_norm limits: the length of the whole gradient, or each of its numbers alone."
    )
    caption_dropout_probability: float = key(
        0.0, "Caption dropout", "Share of steps that train without a caption, so that the style also shows without its words.", ge=0, le=1
    )
    audio_loss_weight: float = key(
        1.0,
        "Weight of sound",
        "How much sound counts against picture. Less than 1 when sound improves at the picture's cost.",
        ge=0,
        le=1000,
    )
    loss_type: Literal["l2", "huber", "smooth_l1"] = key(
        "l2",
        "Loss",
        "How errors are measured while training. l2: squared. huber: squared where they are small, straight beyond, so that odd clips "
        "count less. smooth_l1: the same, divided by huber_c. The held-out loss is always squared.",
    )
    huber_schedule: Literal["snr", "exponential", "constant"] = key(
        "snr",
        "Huber schedule",
        "How the width of the Huber loss follows the noise level: 1 at a clean clip and huber_c at pure noise (snr, exponential), or "
        "huber_c everywhere (constant).",
    )
    huber_c: float = key(
        0.1,
        "Huber width",
        "The error at which the Huber loss turns from square to straight, at pure noise. Smaller: closer to l1.",
        gt=0,
        le=1,
    )
    snr_gamma: float | None = key(
        None,
        "SNR gamma",
        "Min-SNR: weigh noise levels by min((1 - sigma)^2, gamma sigma^2), so that almost clean and almost pure noise count little. The "
        "paper uses 5. Empty: all levels count alike, as in the official trainer.",
        gt=0,
        le=1000,
    )
    masked_loss_probability: float = later(1.0, MASKED_LOSS, "Masked loss", "How often a mask limits where errors count.")
    input_perturbation: float = later(0.0, PERTURBATION, "Input perturbation", "Extra noise on the input.")
    input_perturbation_steps: int = later(0, PERTURBATION, "Perturbation steps", "Steps over which that noise fades.")
    dataloader_prefetch: bool = later(False, PREFETCH, "Read ahead", "Read batches before they are needed.")
    dataloader_prefetch_qlen: int = later(10, PREFETCH, "Read-ahead length", "How many batches are read ahead.")
    allow_tf32: bool = later(False, FLOAT_MODES, "Allow TF32", "Let float32 products use TF32.")
    disable_tf32: bool = later(False, FLOAT_MODES, "Forbid TF32", "Forbid TF32 in float32 products.")
    ignore_final_epochs: bool = later(False, SHORT_EPOCHS, "Ignore last epochs", "Go on past the last epoch until the steps are done.")

    @field_validator("optimizer")
    @classmethod
    def _known_rule(cls, value: str) -> str:
        if not is_known(value):
            raise PydanticCustomError(
                "unknown_optimizer", "no such optimizer is built here; use one of {names}", {"names": ", ".join(RULES)}
            )
        return value

    @field_validator("learning_rate_pattern", mode="before")
    @classmethod
    def _rates_in_a_string(cls, value: object) -> object:
        return read_json(value)
