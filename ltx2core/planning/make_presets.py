"""Writes presets/*.json: `python -m ltx2core.planning.make_presets`. A test makes them again and compares.

For each size of card and goal, the most that trains in a night on a usual card of that size, held so that every such card can do it: its
memory is that of the smallest one, and 8-bit weights are widened, not multiplied, as any card can. Faster ways of a newer card are what
`ltx2tui plan` is for. Those for several GPUs of one machine (`4x24gb-style`) differ in what follows from an update of several clips, too:
fewer steps at a higher rate.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltx2core.config.load import look_at
from ltx2core.hardware.cards import CARDS
from ltx2core.planning.clips import ClipShape
from ltx2core.planning.hardware import GIB, Hardware, hardware_named
from ltx2core.planning.job import job_of
from ltx2core.planning.levers import BF16, INT8, Choice, Precision, Tried, try_choice
from ltx2core.planning.predict import Prediction, predict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ltx2core.planning.job import Job

NIGHT = 12 * 3600.0
RAM_GIB = {
    8: 32,
    10: 32,
    12: 32,
    16: 32,
    24: 64,
    32: 64,
    40: 64,
    48: 64,
    80: 128,
    96: 128,
    141: 128,
}  # by the card's GB: of a usual machine
SEVERAL_RAM_GIB = {(2, 24): 64, (4, 24): 128, (2, 48): 128, (4, 80): 512, (8, 80): 1024}  # by how many cards, and their GB
# A usual card of each size, whose rates decide what a night is enough for.
USUAL = {
    8: "GeForce RTX 4060",
    10: "GeForce RTX 3080 10GB",
    12: "GeForce RTX 4070",
    16: "GeForce RTX 4070 Ti SUPER",
    24: "GeForce RTX 4090",
    32: "GeForce RTX 5090",
    40: "A100 40GB",
    48: "RTX 6000 Ada",
    80: "H100",
    96: "RTX PRO 6000 Blackwell",
    141: "H200",
}
_CLIPS = 30  # that times are told for
_MORE_CLIPS = 1.25  # are shown where an update has several: it learns somewhat less from each


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What is learned. shapes: (height, width, frames), the most wanted first; keys: config keys with their values and sentences."""

    name: str
    words: str
    audio: bool
    shapes: tuple[tuple[int, int, int], ...]
    keys: dict[str, tuple[Any, str]]
    shape_why: str


AIMS = (
    Aim(
        name="style",
        words="the look of pictures",
        audio=False,
        shapes=(
            (1088, 1920, 49),
            (704, 1280, 49),
            (576, 1024, 49),
            (512, 768, 49),
            (512, 768, 33),
            (384, 576, 33),
            (320, 480, 25),
            (256, 384, 25),
        ),
        keys={
            "lora_rank": (32, "A look is a broad change of small depth: 32 holds it, and the file stays small."),
            "max_train_steps": (2000, "Enough for 20 to 50 clips; the held-out loss says when it was."),
            "caption_dropout_probability": (
                0.1,
                "A tenth of the steps go without a caption, so that the look also shows without its words.",
            ),
        },
        shape_why="A look is in single pictures: pixels before frames.",
    ),
    Aim(
        name="character",
        words="a person or a thing",
        audio=False,
        shapes=(
            (1088, 1920, 49),
            (704, 1280, 49),
            (576, 1024, 49),
            (512, 768, 49),
            (512, 768, 33),
            (384, 576, 33),
            (320, 480, 25),
            (256, 384, 25),
        ),
        keys={
            "lora_rank": (32, "A face needs detail, not width; more than 32 learns the clips' backgrounds, too."),
            "max_train_steps": (1500, "A face is learned early, and what comes later is the clips by heart."),
            "caption_dropout_probability": (0.0, "Every caption names the character, so that its name calls it and its absence does not."),
        },
        shape_why="A face wants pixels; two seconds show it from enough sides.",
    ),
    Aim(
        name="motion",
        words="a way of moving",
        audio=False,
        shapes=(
            (704, 1280, 121),
            (512, 768, 121),
            (512, 768, 89),
            (384, 576, 89),
            (384, 576, 65),
            (320, 480, 65),
            (320, 480, 49),
            (256, 384, 49),
        ),
        keys={
            "lora_rank": (64, "Motion changes how frames attend to each other in every block; 32 often blurs it."),
            "max_train_steps": (3000, "Motion is learned after looks are."),
            "caption_dropout_probability": (0.0, "Captions tell motion apart from what moves."),
            "ltx2_first_frame_conditioning_probability": (
                0.1,
                "The first frame is given now and then, so that pictures can be set in motion.",
            ),
        },
        shape_why="Motion is between frames: length before pixels.",
    ),
    Aim(
        name="audio-video",
        words="pictures and sound",
        audio=True,
        shapes=(
            (704, 1280, 121),
            (512, 768, 121),
            (512, 768, 89),
            (384, 576, 89),
            (320, 480, 89),
            (256, 384, 89),
            (256, 384, 49),
        ),
        keys={
            "lora_rank": (32, "Each of the six attentions gets it, so that picture, sound and what ties them learn."),
            "max_train_steps": (2500, "Sound is learned somewhat slower than pictures."),
            "caption_dropout_probability": (0.05, "A few steps without a caption keep sound from hanging on single words."),
            "audio_loss_weight": (1.0, "Sound counts as much as the picture; lower it where only the picture improves."),
        },
        shape_why="Sound needs time: words and beats are longer than two seconds.",
    ),
)
_BASICS: dict[str, tuple[Any, str]] = {
    "model_family": ("ltxvideo2", "The only kind of model here."),
    "model_flavour": ("2.0", "The version that these sizes and times are for; 2.3 and 2.5 need about as much."),
    "model_type": ("lora", "A LoRA: the model itself stays as it is."),
    "pretrained_model_name_or_path": ("Lightricks/LTX-2", "The released model; name a file or folder instead if you have it on disk."),
    "mixed_precision": ("bf16", "What the model was trained in; it overflows in fp16."),
    "seed": (42, "Any number; the same one makes the same LoRA again."),
    "frame_rate": (25.0, "What LTX-2 knows best; clips of other rates are resampled."),
    "train_batch_size": (1, "A clip at a time leaves the room to larger and longer clips."),
    "gradient_accumulation_steps": (1, "An update after every clip: most updates in the time."),
    "learning_rate": (1e-4, "The usual rate for LoRAs; halve it if samples fall apart."),
    "lr_scheduler": ("constant_with_warmup", "Steady, so that training longer is only a matter of more steps."),
    "lr_warmup_steps": (100, "The first steps go gently while AdamW learns how large gradients are."),
    "max_grad_norm": (1.0, "One odd clip does not throw the LoRA far."),
    "validation_step_interval": (250, "A sample eight times a run or so: often enough to see it turn."),
    "validation_num_inference_steps": (30, "Fine enough to judge; 20 would be coarser and faster."),
    "validation_guidance": (5.0, "Between 2 and 6, where samples neither wash out nor burn."),
    "eval_steps_interval": (250, "The loss on clips never trained on tells learning from memorising."),
    "eval_split": (0.1, "A tenth of the clips is enough to measure on."),
    "checkpoint_step_interval": (250, "What is lost when the power fails is a tenth of a run."),
    "checkpoints_total_limit": (4, "The last four; each takes up to a few gigabytes."),
}


def make_presets() -> dict[str, dict[str, Any]]:
    """Every preset by its file's name."""
    found = {f"{size}gb-{aim.name}": _preset(size, aim) for size in RAM_GIB for aim in AIMS}
    found |= {f"{gpus}x{size}gb-{aim.name}": _preset(size, aim, gpus) for gpus, size in SEVERAL_RAM_GIB for aim in AIMS}
    return {**found, "quickstart": _quickstart()}


def smallest_of(size: int, gpus: int = 1) -> Hardware:
    """So many cards with the least memory that is sold as this size, in a usual machine for them."""
    same = [card.memory_gib for card in CARDS if 0.93 * size < card.memory_gib < 1.04 * size]
    return hardware_named(USUAL[size], gpu_memory_gib=min(same), ram_gib=_ram_gib(size, gpus), cards=gpus)


def _ram_gib(size: int, gpus: int) -> int:
    return RAM_GIB[size] if gpus == 1 else SEVERAL_RAM_GIB[gpus, size]


def _preset(size: int, aim: Aim, gpus: int = 1) -> dict[str, Any]:
    hardware = smallest_of(size, gpus)
    job = _job(aim, gpus)
    found = list(_tried(job, aim, hardware))
    if not found:
        raise ValueError(f"{size} GB: nothing fits for {aim.name}")
    best = next((one for one in found if one.prediction.total_seconds <= NIGHT), None)
    best = best or min(found, key=lambda one: one.prediction.total_seconds)
    keys = dict(_keys(best, aim, _ram_gib(size, gpus)))
    clip = best.job.clip
    datasets, of_datasets = _clips(clip, aim)
    return {
        "for": {"gpus": gpus, "gpu_memory_gb": size, "ram_gb": _ram_gib(size, gpus), "goal": aim.name, "learns": aim.words},
        "config": {name: value for name, (value, _) in keys.items()},
        "datasets": datasets,
        "why": {name: why for name, (_, why) in keys.items()} | of_datasets,
        "predicted": _predicted(best.prediction, hardware),
    }


def _job(aim: Aim, gpus: int) -> Job:
    """The job of an aim at its most wanted shape."""
    values = {name: value for name, (value, _) in (_BASICS | aim.keys | _of_several(aim, gpus)).items() if value is not None}
    height, width, frames = aim.shapes[0]
    datasets, _ = _clips(ClipShape(width=width, height=height, frames=frames), aim)
    values |= {"validation_resolution": f"{height}x{width}", "validation_num_video_frames": frames}
    loaded = look_at(values, base=Path(), datasets=datasets)
    return job_of(loaded.config, datasets=loaded.datasets, clips=_CLIPS)


def _tried(job: Job, aim: Aim, hardware: Hardware) -> Iterator[Tried]:
    """For each shape that fits, the faster of bf16 and int8; bf16 where it is hardly slower."""
    for height, width, frames in aim.shapes:
        clip = replace(job.clip, width=width, height=height, frames=frames)
        plain, rounded = (_at(job, clip, precision, hardware) for precision in (BF16, INT8))
        if plain is not None and (rounded is None or plain.prediction.total_seconds <= 1.1 * rounded.prediction.total_seconds):
            yield plain
        elif rounded is not None:
            yield rounded


def _at(job: Job, clip: ClipShape, precision: Precision, hardware: Hardware) -> Tried | None:
    sample = None if job.sample is None else job.sample.with_clip(clip)
    choice = Choice(precision=precision, clip=clip, audio=job.audio, batch=1, accumulation=1, processes=job.processes)
    return try_choice(replace(job, clip=clip, sample=sample), choice, hardware)


def _of_several(aim: Aim, gpus: int) -> dict[str, tuple[Any, str]]:
    """The keys that follow from an update of a clip on each of several GPUs; none for one."""
    if gpus == 1:
        return {}
    alone, usual = int(aim.keys["max_train_steps"][0]), float(_BASICS["learning_rate"][0])
    steps, rate = 10 * round(_MORE_CLIPS * alone / gpus / 10), float(f"{usual * gpus**0.5:.2g}")
    every = 10 * max(1, round(steps / 80))
    return {
        "num_processes": (gpus, f"A process on each of the {gpus} GPUs. Weights that wait in RAM are there once for all of them."),
        "gradient_accumulation_steps": (1, f"An update has {gpus} clips already, one of each GPU."),
        "learning_rate": (
            rate,
            f"{usual:g} times the root of {gpus}: the mean over {gpus} clips is that much steadier. {usual:g} again if samples fall apart.",
        ),
        "lr_warmup_steps": (max(20, 100 // gpus), "The first steps go gently while AdamW learns how large gradients are."),
        "max_train_steps": (
            steps,
            f"One GPU takes {alone:,}; {alone // gpus:,} updates of {gpus} clips show as many, and there are a quarter more.",
        ),
        "validation_step_interval": (every, _BASICS["validation_step_interval"][1]),
        "eval_steps_interval": (every, _BASICS["eval_steps_interval"][1]),
        "checkpoint_step_interval": (every, _BASICS["checkpoint_step_interval"][1]),
    }


def _keys(best: Tried, aim: Aim, ram_gib: int) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Every key with its value and sentence."""
    job, clip, plan = best.job, best.job.clip, best.prediction.plan
    assert plan is not None
    for name, (value, why) in (_BASICS | aim.keys | _of_several(aim, job.processes)).items():
        if value is not None:
            yield name, (value, why)
    weights = f"{plan.streamed} of 48 blocks wait in RAM" if plan.streamed else "all 48 blocks stay on the card"
    if job.wish.storage == "bf16":
        yield "base_model_precision", ("no_change", f"The weights as they are: {weights}, and 8 bits would hardly be faster.")
    else:
        text = f"Half the memory at 41 dB above its rounding error: {weights}. A card that multiplies in fp8 is faster with fp8-torchao."
        yield "base_model_precision", ("int8-torchao", text)
    yield "gradient_checkpointing", (True, "Blocks are computed twice where memory asks for it, and only there.")
    yield "step_engine", ("auto", "Compiled and captured steps on any GPU; the plan of blocks is made when the run starts.")
    if job.text.int8:
        yield "text_encoder_1_precision", ("int8-torchao", f"In 16 bits the text encoder does not fit into {ram_gib} GB of RAM.")
    yield "offload_during_startup", (True, "VAE and text encoder are never on the card together; here that is always so.")
    for lever, effect in (("temporal_roll", "a few frames at a time"), ("patch_conv", "layer by layer, a few rows at a time")):
        on = getattr(job.levers, lever)
        if on:
            why = f"The VAE works {effect}: without it {clip} would not fit."
        elif job.levers.temporal_roll or job.levers.patch_conv:
            why = f"Not needed: {clip} fit with the other of the two, which is faster alone."
        elif best.prediction.decoded:
            why = f"There is room to encode {clip} at once, which is faster. Samples are decoded in parts: a run sees to that by itself."
        else:
            why = f"There is room for {clip} at once, which is faster."
        yield f"vae_enable_{lever}", (on, why)
    yield "vae_enable_tiling", (False, "Tiles change values where they meet; the two levers above do not.")
    yield "validation_resolution", (f"{clip.height}x{clip.width}", "Samples as large as the clips: what is trained is what is seen.")
    yield "validation_num_video_frames", (clip.frames, "As long as the clips.")


def _clips(clip: ClipShape, aim: Aim) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The dataset list and its sentences."""
    entry: dict[str, Any] = {
        "id": "clips",
        "type": "local",
        "dataset_type": "video",
        "instance_data_dir": "clips",
        "caption_strategy": "textfile",
        "resolution": clip.height,
        "video": {"num_frames": clip.frames},
    }
    why = {
        "datasets.instance_data_dir": "The folder of your clips, a .txt caption beside each.",
        "datasets.resolution": f"{aim.shape_why} {clip.height} is the shorter edge.",
        "datasets.video.num_frames": f"{clip.frames} frames are {clip.frames / 25:.1f} s; LTX-2 takes 8k + 1.",
    }
    if aim.audio:
        entry["audio"] = {"auto_split": True}
        why["datasets.audio"] = "The clips' own sound is learned with them."
    else:
        why["datasets.audio"] = "Left out: without sound a third of the weights is not needed, and steps are faster."
    return [entry], why


def _predicted(found: Prediction, hardware: Hardware) -> dict[str, Any]:
    """What is told of it: for a usual card, rounded to what is known."""
    return {
        "card": hardware.card,
        "clips": _CLIPS,
        "step_seconds": float(f"{found.step_seconds:.2g}"),
        "hours": round(found.total_seconds / 3600, 1),
        "gpu_memory_gib": round(found.vram_bytes / GIB, 1),
        "ram_gib": round(found.ram_bytes / GIB),
    }


_QUICKSTART: dict[str, tuple[Any, str]] = {
    "lora_rank": (32, "A usual width; the quickstart names none."),
    "max_train_steps": (2000, "A usual length; the quickstart names none."),
    "base_model_precision": (
        "no_change",
        "The weights as they are. They are in RAM, so the card needs none of their room: 40 GB of RAM must be free.",
    ),
    "gradient_checkpointing": (True, "Blocks are computed twice: those that travel cannot keep what they computed."),
    "enable_group_offload": (True, "As in the quickstart: every block waits in RAM. Without it as many stay on the card as fit, faster."),
    "group_offload_type": ("block_level", "As in the quickstart: whole blocks travel."),
    "group_offload_blocks_per_group": (1, "As in the quickstart: one block is copied while one computes."),
    "group_offload_use_stream": (True, "As in the quickstart, and it matters: without it nothing computes while a block is copied."),
    "musubi_blocks_to_swap": (
        0,
        "The quickstart swaps 4 to 8 blocks as well. Group offload lets all 48 travel, so there are none left to swap; to swap 6 of them "
        "instead, set this to 6 and enable_group_offload to false, on a card with 40 GB or more.",
    ),
    "offload_during_startup": (True, "As in the quickstart; here VAE and text encoder are never on the card together."),
    "vae_enable_temporal_roll": (True, "As in the quickstart: the VAE works a few frames at a time, with the same values."),
    "vae_enable_patch_conv": (True, "As in the quickstart: and a few rows at a time."),
    "vae_enable_tiling": (
        False,
        "The quickstart turns tiling on; tiles change values where they meet, and the two levers above save as much.",
    ),
    "validation_resolution": ("512x768", "As in the quickstart."),
    "validation_num_video_frames": (49, "The quickstart has 61; LTX-2 takes 8k + 1 frames, and 49 is what it names for small cards."),
}


def _quickstart() -> dict[str, Any]:
    """SimpleTuner's quickstart for LTX-2, corrected where the model needs it."""
    keys = {name: pair for name, pair in (_BASICS | _QUICKSTART).items() if pair[0] is not None}
    aim = next(aim for aim in AIMS if aim.audio)
    datasets, why = _clips(ClipShape(width=768, height=512, frames=49), aim)
    why["datasets.resolution"] = "As in the quickstart: the shorter edge."
    why["datasets.video.num_frames"] = "The quickstart has 61, which LTX-2 cannot take: 57 and 65 are the nearest, 49 the frugal one."
    config = {name: value for name, (value, _) in keys.items()}
    hardware = hardware_named(None, gpu_memory_gib=12, ram_gib=64)
    loaded = look_at(config, base=Path(), datasets=datasets)
    found = predict(loaded.config, hardware, datasets=loaded.datasets, clips=_CLIPS)
    if not found.fits:
        raise ValueError(f"the quickstart does not fit: {found.misfit}")
    return {
        "for": {
            "gpus": 1,
            "gpu_memory_gb": 12,
            "ram_gb": 64,
            "goal": "quickstart",
            "learns": "pictures and their sound, as SimpleTuner's quickstart",
        },
        "config": config,
        "datasets": datasets,
        "why": {name: text for name, (_, text) in keys.items()} | why,
        "predicted": _predicted(found, hardware),
    }


def as_text(preset: dict[str, Any]) -> str:
    """A preset as its file holds it."""
    return json.dumps(preset, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    from ltx2core.config.sources import presets_folder
    from ltx2core.runs.files import write_text

    folder = presets_folder()
    made = make_presets()
    for name, preset in made.items():
        write_text(folder / f"{name}.json", as_text(preset))
    for path in folder.glob("*.json"):
        if path.stem not in made:
            path.unlink()
    sys.stdout.write(f"{len(made)} presets in {folder}.\n")


if __name__ == "__main__":
    main()
