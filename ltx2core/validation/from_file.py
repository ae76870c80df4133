"""A sample video with a LoRA file, from a prompt and from files, outside of any run. Loads torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ltx2core.data.clip import Bucket
from ltx2core.errors import DatasetError
from ltx2core.hardware.device_memory import limit_device, spilling_driver
from ltx2core.hardware.free_memory import free_memory
from ltx2core.lora.verify import refuse_misfit
from ltx2core.models.checkpoint import find_checkpoint, open_checkpoint
from ltx2core.models.latents import latent_grid, pack_video
from ltx2core.models.named_file import find_named_file
from ltx2core.models.text import load_text_models
from ltx2core.models.upsampler import check_upsampler
from ltx2core.planning.wishes import text_settings
from ltx2core.runs.events import Notice
from ltx2core.training.objective_settings import references as references_of
from ltx2core.training.reference import Reference
from ltx2core.training.sample_reference import encode_reference
from ltx2core.training.settings import find_text_encoder, find_upsampler, pick_device, sample_settings
from ltx2core.validation.decoding import SampleDecoder
from ltx2core.validation.drawing import draw_take
from ltx2core.validation.inputs import beside, make_takes, sizes_of
from ltx2core.validation.media import write_media
from ltx2core.validation.sample_model import sample_model
from ltx2core.validation.shots import Moment, Shot, check_inputs, find_adapters

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    from ltx2core.config.load import LoadedConfig
    from ltx2core.config.train import TrainConfig
    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.runs.events import Event
    from ltx2core.validation.media import SampleSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenFiles:
    """What a sample is made from beside its prompt: a picture or clip for the first frame, a sound, a reference of an IC-LoRA."""

    image: Path | None = None
    audio: Path | None = None
    reference: Path | None = None


NO_FILES = GivenFiles()


def sample_with_lora(
    loaded: LoadedConfig,
    *,
    prompt: str,
    lora: Path | None,
    folder: Path,
    given: GivenFiles = NO_FILES,
    on_step: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write sample.mp4 of a prompt into `folder` with the config's model, sizes, seed and guidance; its path.

    lora: a LoRA file of any layout, None for the model as it is. given: files that the sample is made from. tell: is given sentences
    about a download, a limit of memory, and what is done to those files. Raises CheckpointError when model or LoRA cannot be used,
    DatasetError when one of the files cannot, RunError when it does not fit.
    """
    config = loaded.config
    device, dtype = pick_device(config)
    if capped := limit_device(device, config.gpu_memory_limit_gib, spills=spilling_driver()):
        tell(capped)
    shot = _shot(config, prompt, given, tell=tell)
    checkpoint = open_checkpoint(
        find_checkpoint(
            config.pretrained_model_name_or_path,
            filename=config.ltx2_checkpoint_filename,
            base=loaded.base,
            revision=config.revision,
            tell=tell,
        )
    )
    if lora is not None:  # before minutes of loading
        refuse_misfit(lora, checkpoint)
    shot = _with_adapters(loaded, shot, checkpoint, tell=tell)
    if (upsampler := find_upsampler(loaded, tell=tell)) is not None:
        check_upsampler(upsampler, checkpoint)
    encoder = find_text_encoder(config, checkpoint, base=loaded.base, tell=tell)
    models = load_text_models(checkpoint, encoder, settings=text_settings(config), dtype=dtype, device=device)
    texts = models.embed([prompt, config.validation_negative_prompt])
    del models
    free_memory(device)
    settings = replace(sample_settings(config, audio=True), upsampler=upsampler)
    (take,) = make_takes(checkpoint, (shot,), settings, device=device, dtype=dtype)
    if given.reference is not None:
        references = {
            size: _reference(config, checkpoint, given.reference, settings, size=size, device=device, dtype=dtype)
            for size in sizes_of((shot,), settings)
        }
        (take,) = beside((take,), references)
    grids = [latent_grid(width=width, height=height, frames=settings.frames) for width, height in sizes_of((shot,), settings)]
    tokens = max(map(math.prod, grids))
    with sample_model(config, checkpoint, lora=lora, tokens=2 * tokens, device=device, dtype=dtype, tell=tell) as (model, extras):
        take = replace(take, extras=(*take.extras, *extras))
        latents = draw_take(model, checkpoint, take, text=texts[0], negative=texts[1], on_step=on_step)
    del model
    free_memory(device)
    decoder = SampleDecoder(checkpoint=checkpoint, device=device, dtype=dtype, levers=settings.levers, lend=None, tell=tell)
    return write_media(folder, decoder(latents), take.settings)


def _shot(config: TrainConfig, prompt: str, given: GivenFiles, *, tell: Callable[[str], None]) -> Shot:
    """The sample, its files having been looked at: before minutes of loading."""

    def say(event: Event) -> None:
        if isinstance(event, Notice):
            tell(event.text)

    height, width = config.validation_size
    shot = Shot(
        name="",
        prompt=prompt,
        width=width,
        height=height,
        seed=config.validation_seed,
        first_frame=None if given.image is None else Moment(path=given.image),
        sound=None if given.audio is None else Moment(path=given.audio),
    )
    (checked,) = check_inputs((shot,), seconds=config.validation_num_video_frames / config.frame_rate, emit=say)
    if given.reference is not None and not given.reference.is_file():
        raise DatasetError(f"{given.reference}: there is no such file.", fix="Name a clip or picture that exists.")
    return checked


def _with_adapters(loaded: LoadedConfig, shot: Shot, checkpoint: Checkpoint, *, tell: Callable[[str], None]) -> Shot:
    """The sample with the config's first set of further LoRAs."""

    def find(name: str) -> Path:
        return find_named_file(name, base=loaded.base, key="validation_adapter_path", tell=tell)

    files = next((one.files for one in find_adapters(loaded.config, find=find) if one.files), ())
    for file in files:
        refuse_misfit(file.path, checkpoint)
    return replace(shot, adapters=files)


def _reference(
    config: TrainConfig,
    checkpoint: Checkpoint,
    path: Path,
    settings: SampleSettings,
    *,
    size: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype,
) -> Reference:
    seen = references_of(config)
    bucket = seen.bucket(Bucket(width=size[0], height=size[1], frames=settings.frames))
    latents = encode_reference(
        checkpoint, path, bucket=bucket, fps=seen.fps(settings.fps), device=device, dtype=dtype, levers=settings.levers
    )
    return Reference(
        tokens=pack_video(latents), grid=latent_grid(width=bucket.width, height=bucket.height, frames=bucket.frames), seen=seen
    )
