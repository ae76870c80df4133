"""Keys of the sample videos made while training, and of the held-out loss."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import field_validator
from pydantic_core import PydanticCustomError

from ltx2core.config.keys import Keys, Later, key, later

OTHER_SCHEDULES = Later(
    name="choosing when samples are made in another way",
    instead="one is made every validation_step_interval",
)
LYCORIS = Later(name="samples with LyCORIS adapters", instead="samples use LoRAs")
UNCONDITIONAL = Later(name="a sample of the empty prompt", instead="samples of prompts are made")
EVALUATIONS = Later(name="other measurements of samples", instead="the held-out loss is measured")
ELSEWHERE = Later(name="sampling elsewhere", instead="this process makes the samples on the training device")

_SIZE = re.compile(r"\s*(\d{1,5})\s*(?:[xX×*]\s*(\d{1,5})\s*)?")


def read_size(text: str) -> tuple[int, int] | None:
    """(height, width) of `512x768`, or of `512` for a square; None for anything else."""
    match = _SIZE.fullmatch(text)
    if match is None or int(match[1]) == 0 or (match[2] is not None and int(match[2]) == 0):
        return None
    return int(match[1]), int(match[2] or match[1])


class SampleReferenceKeys(Keys):
    """An entry of validation_ltx2_video_conditioning."""

    group: ClassVar[str] = "A reference of samples"

    path: Path = key(..., "File", "A clip that lasts as long as the samples, or a picture.")
    strength: float = key(1.0, "Strength", "How strictly it is kept: always 1, since LTX-2 is trained with clean references.", ge=1, le=1)


class AdapterFileKeys(Keys):
    """One LoRA of a set."""

    group: ClassVar[str] = "A further LoRA of samples"

    path: str = key(..., "File", "A LoRA file, or owner/repository:file of the hub.", min_length=1)
    strength: float = key(1.0, "Strength", "How much of it is applied: 1 as it was trained.", ge=-10, le=10)
    target_stage: Literal["both", "stage1", "stage2"] = key(
        "both", "Stage", "In which stages it is applied where samples are upsampled; there are no others otherwise."
    )


class SampleAdapterKeys(Keys):
    """An entry of validation_adapter_config: LoRAs that are applied together."""

    group: ClassVar[str] = "A set of further LoRAs of samples"

    label: str = key("", "Name", "What samples with them are called. Empty: the first file's name.")
    adapters: tuple[AdapterFileKeys, ...] = key(..., "LoRAs", "The LoRAs of the set, each with path and strength.", min_length=1)


class ValidationKeys(Keys):
    """What is made and measured while training."""

    group: ClassVar[str] = "Samples and held-out loss"

    validation_disable: bool = key(False, "No samples", "Make no sample videos while training.")
    validation_prompt: str | None = key(
        None, "Prompt", "What the sample video shows. Empty: the caption of the first clip.", aliases=("validation_prompts",)
    )
    validation_negative_prompt: str = key(
        "blurry, low quality, distorted, watermark", "Negative prompt", "What the sample video should not look or sound like."
    )
    validation_step_interval: int = key(
        100, "Sample every", "Steps between sample videos. 0: none while training.", aliases=("validation_steps",), ge=0, le=10_000_000
    )
    validation_num_inference_steps: int = key(
        30, "Sampling steps", "Denoising steps of a sample: more is finer and takes longer. 20 to 40 is usual.", ge=1, le=1000
    )
    validation_guidance: float = key(
        5.0, "Guidance", "How strictly a sample follows its prompt. Below 2 or above 6 it tends to turn into noise or black.", ge=0, le=100
    )
    validation_resolution: str = key(
        "512x768",
        "Sample size",
        "Height x width of the sample video in pixels, each a multiple of 32; a single number is a square. Several, with commas between "
        "them, make a sample of each size.",
    )
    validation_num_video_frames: int = key(
        49, "Sample frames", "Length of the sample video. LTX-2 makes 8k + 1 frames: 33, 41, 49, 57, 65, ...", ge=1, le=100_000
    )
    validation_seed: int = key(
        42, "Sample seed", "The noise samples start from, the same each time so that they compare.", ge=0, le=2**63 - 1
    )
    eval_steps_interval: int = key(
        100,
        "Held-out loss every",
        "Steps between measurements of the loss on clips never trained on: the curve that tells learning from memorising. 0: never.",
        ge=0,
        le=10_000_000,
    )
    eval_split: float = key(0.1, "Held-out share", "Share of the clips kept out of training to measure that loss on.", ge=0, le=0.5)
    validation_prompt_library: bool = key(
        False, "Prompt library", "Also make a sample of each of ten built-in prompts: people, speech, animals, places, camera moves."
    )
    user_prompt_library: Path | None = key(
        None, "Own prompt library", 'A JSON file of prompts to make samples of, as {"a name": "a prompt"} or as a list of prompts.'
    )
    num_validation_images: int = key(
        1, "Samples of a prompt", "How many videos are made of a prompt each time, from the seed and those after it.", ge=1, le=100
    )
    validation_epoch_interval: int | None = later(None, OTHER_SCHEDULES, "Sample every epoch", "Epochs between samples.", built=(0,))
    validation_on_startup: bool = key(
        False, "Sample at start", "Make a sample before the first step. Here that is always so, unless disable_benchmark says no."
    )
    disable_benchmark: bool = key(False, "No base sample", "Make no sample of the untrained model, which later ones are compared with.")
    validation_using_datasets: bool = key(
        False,
        "Sample from clips",
        "Make samples that start from clips of a dataset: image-to-video from a clip's first frame, or sound-to-video from its sound, with "
        "the clip's caption as prompt. They take the place of validation_prompt.",
    )
    eval_dataset_id: str | None = key(
        None, "Dataset for samples", "The dataset those clips come from. Empty: the eval datasets, or those that are trained on."
    )
    num_eval_images: int = key(4, "Clips for samples", "How many clips are taken from it.", ge=1, le=1000)
    validation_dataset_gives: Literal["auto", "picture", "sound", "both"] = key(
        "auto",
        "What a clip gives",
        "What samples take from those clips. picture: the first frame. sound: the sound, which the picture then follows. both. auto: the "
        "sound where the dataset is of sound or has its sound linked by s2v_datasets, else the picture.",
    )
    validation_audio_only: bool = key(
        False, "Sound only", "Make samples of sound without picture: sample.wav, and an mp4 that shows its spectrogram."
    )
    validation_ltx2_video_conditioning: tuple[SampleReferenceKeys, ...] = key(
        (),
        "Reference",
        'The clip or picture that samples of an IC-LoRA are made beside, as a list of one: [{"path": "edges.mp4"}]. Empty: a '
        "reference of the dataset, where it has some.",
        max_length=1,
    )
    validation_seed_source: str = later("cpu", ELSEWHERE, "Seed source", "The device that draws the samples' noise.")
    validation_guidance_rescale: float = key(
        0.0, "Guidance rescale", "How far the contrast that guidance adds is taken back, 0 to 1. LTX-2's own samples use 0.7.", ge=0, le=1
    )
    validation_disable_unconditional: bool = later(
        False, UNCONDITIONAL, "No empty prompt", "Make no sample of the empty prompt; here none is made anyway.", built=(True,)
    )
    ltx2_validation_audio_guidance: float | None = key(
        None, "Guidance of sound", "A guidance of its own for sound; LTX-2's own samples use 7. Empty: validation_guidance.", ge=0, le=100
    )
    ltx2_validation_stg_scale: float = key(
        0.0,
        "Spatio-temporal guidance",
        "How far samples are moved away from what the model draws when a block does not look around: steadier motion and shapes, at one "
        "more forward a step. LTX-2's own samples use 1. 0: off.",
        ge=0,
        le=100,
    )
    ltx2_validation_stg_blocks: tuple[int, ...] = key(
        (), "Its blocks", "The blocks that do not look around, counted from 0. Empty: 29 of LTX-2 2.0, 28 of later ones."
    )
    ltx2_validation_modality_guidance: float = key(
        1.0,
        "Guidance between picture and sound",
        "How far samples are moved away from what the model draws when picture and sound do not see each other: the two fit better, "
        "at one more forward a step. LTX-2's own samples use 3. 1: off.",
        ge=0,
        le=100,
    )
    ltx2_validation_schedule: Literal["auto", "full", "distilled"] = key(
        "auto",
        "Noise levels of samples",
        "full: validation_num_inference_steps of the official schedule. distilled: its 8 steps for distilled weights, without guidance, a "
        "fifteenth of the time; it needs a distilled model, or a distilled LoRA in validation_adapter_path. auto: distilled where "
        "model_flavour or the model's file says so.",
    )
    ltx2_validation_pipeline_mode: Literal["trained-stage", "spatial-upscale"] = key(
        "trained-stage",
        "Sampling stages",
        "trained-stage: samples are made at their size. spatial-upscale: at half of it, then upsampled and drawn on in three steps; sizes "
        "are multiples of 64. Those steps are made for distilled weights: add a distilled LoRA with target_stage stage2.",
    )
    ltx2_validation_spatial_upsampler_model: str = key(
        "Lightricks/LTX-2",
        "Upsampler",
        "What upsamples: a file, a folder, or a hub repository that holds the file of that name.",
        min_length=1,
    )
    ltx2_validation_spatial_upsampler_filename: str = key(
        "ltx-2-spatial-upscaler-x2-1.0.safetensors",
        "Upsampler file",
        "Its file in a folder or repository.",
        min_length=1,
    )
    evaluation_type: str = later("none", EVALUATIONS, "Evaluation", "A score of the samples, such as clip.", built=("",))
    eval_timesteps: int = later(28, EVALUATIONS, "Levels of the held-out loss", "How many noise levels the held-out loss is measured at.")
    validation_preview: bool = later(False, EVALUATIONS, "Preview", "Show a sample while it is made.")
    validation_multigpu: str = later("batch-parallel", ELSEWHERE, "Samples on several GPUs", "How samples are spread over GPUs.")
    validation_method: str = later("simpletuner-local", ELSEWHERE, "Sampling by", "What makes the samples.")
    validation_adapter_path: str | None = key(
        None,
        "Further LoRA",
        "A LoRA that samples are made with beside the one that is trained: a file, or owner/repository:file of the hub, downloaded once.",
    )
    validation_adapter_name: str | None = key(None, "Its name", "What samples with it are called. Empty: its file's name.")
    validation_adapter_strength: float = key(1.0, "Its strength", "How much of it is applied: 1 as it was trained.", ge=-10, le=10)
    validation_adapter_mode: Literal["adapter_only", "comparison", "none"] = key(
        "adapter_only",
        "Its use",
        "adapter_only: every sample is made with it. comparison: with it and without. none: it is not used.",
    )
    validation_adapter_config: tuple[SampleAdapterKeys, ...] = key(
        (), "Sets of further LoRAs", "More than one: each entry is a set of LoRAs, with which every sample is made once."
    )
    validation_lycoris_strength: float = later(1.0, LYCORIS, "LyCORIS strength", "How much of a LyCORIS adapter is applied.")

    @field_validator("validation_resolution", mode="before")
    @classmethod
    def _height_x_width(cls, value: object) -> object:
        """Text of one or more sizes. A bare number is a square."""
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str) and any(read_size(part) is None for part in value.split(",")):
            raise PydanticCustomError("not_a_size", "a size is height x width in pixels")
        return value

    @property
    def sample_adapters(self) -> tuple[SampleAdapterKeys, ...]:
        """Sets of LoRAs that samples are made with beside this run's own; empty where none are used."""
        if self.validation_adapter_mode == "none":
            return ()
        one: tuple[SampleAdapterKeys, ...] = ()
        if self.validation_adapter_path:
            file = AdapterFileKeys(path=self.validation_adapter_path, strength=self.validation_adapter_strength)
            one = (SampleAdapterKeys(label=self.validation_adapter_name or "", adapters=(file,)),)
        return one + self.validation_adapter_config

    @property
    def sound_guidance(self) -> float:
        """The guidance of samples' sound."""
        return self.validation_guidance if self.ltx2_validation_audio_guidance is None else self.ltx2_validation_audio_guidance

    @property
    def validation_sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each size that samples have, in pixels; checked when they were read."""
        sizes = [read_size(part) for part in self.validation_resolution.split(",")]
        return tuple(dict.fromkeys(size for size in sizes if size is not None))

    @property
    def validation_size(self) -> tuple[int, int]:
        """The first of them."""
        return self.validation_sizes[0]
