"""What comes before training: the model's file, the clips that can be used, and their cache. Shared by runs and `ltx2tui cache`.

Loads torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.caching.passes import CachePass, References
from ltx2core.caching.store import Store
from ltx2core.data.tokens import find_counter
from ltx2core.errors import ConfigError, Stopped
from ltx2core.hardware.device_memory import limit_device, spilling_driver
from ltx2core.models.checkpoint import find_checkpoint, open_checkpoint
from ltx2core.planning.several import EXCHANGE_BYTES
from ltx2core.planning.wishes import text_settings, vae_levers
from ltx2core.runs.events import Notice
from ltx2core.training.dataset import find_samples
from ltx2core.training.objective_settings import given_parts, references
from ltx2core.training.settings import feature_wish, find_text_encoder, pick_device
from ltx2core.validation.shots import check_inputs, check_prompts, plan_shots

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    import torch

    from ltx2core.caching.compare import Compared
    from ltx2core.caching.passes import Cached
    from ltx2core.config.load import LoadedConfig
    from ltx2core.config.train import TrainConfig
    from ltx2core.data.clip import Sample
    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.runs.events import Event
    from ltx2core.validation.shots import Shot

_MOST_NAMES = 20  # of samples in a line


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a config trains on. Nothing is encoded yet; `cache` does that."""

    checkpoint: Checkpoint
    device: torch.device
    dtype: torch.dtype
    samples: list[Sample]
    video: bool  # whether pictures are trained on
    audio: bool  # whether sound is
    shots: tuple[Shot, ...]  # the samples made while training
    negative_prompt: str
    passes: CachePass

    @property
    def store(self) -> Store:
        return self.passes.store

    @property
    def prompts(self) -> tuple[str, ...]:
        """All texts that samples need."""
        return (*dict.fromkeys(shot.prompt for shot in self.shots), self.negative_prompt)

    def cache(self) -> Cached:
        """Encode what the store lacks. Raises as CachePass.run does."""
        return self.passes.run(self.samples, audio=self.audio, prompts=self.prompts)

    def recall(self, names: Collection[str]) -> Cached:
        """What another process has cached by `cache`: names are those of its entries. Encodes nothing."""
        return self.passes.recall(self.samples, audio=self.audio, prompts=self.prompts, names=names)

    def compare(self, *, most: int) -> Iterator[Compared]:
        """How near the cached latents of so many clips are to the clips."""
        return self.passes.compare(self.samples, most=most)

    def names(self) -> set[str]:
        """The names of all entries that training reads, whether they exist or not."""
        return self.passes.names(self.samples, audio=self.audio, prompts=self.prompts)


def prepare(loaded: LoadedConfig, *, root: Path, emit: Callable[[Event], None], should_stop: Callable[[], bool]) -> Prepared:
    """Open the model and look at the clips. Raises Ltx2Error for what a user can mend, Stopped when asked to."""
    config = loaded.config
    device, dtype = pick_device(config)
    features = feature_wish(config, base=loaded.base)
    exchanged = EXCHANGE_BYTES if config.num_processes > 1 else 0
    if capped := limit_device(device, config.gpu_memory_limit_gib, spills=spilling_driver(), beside_bytes=exchanged):
        emit(Notice(code="gpu_memory_limit", text=capped))

    def tell(text: str) -> None:
        emit(Notice(code="model_download", text=text))
        if should_stop():
            raise Stopped("Stopped while the model was downloaded. The next start goes on with it.")

    checkpoint = open_checkpoint(
        find_checkpoint(
            config.pretrained_model_name_or_path,
            filename=config.ltx2_checkpoint_filename,
            base=loaded.base,
            revision=config.revision,
            tell=tell,
        )
    )
    samples = find_samples(
        loaded.datasets, base=loaded.base, frame_rate=config.frame_rate, emit=emit, should_stop=should_stop, seed=config.seed
    )
    audio = any(sample.has_sound and not sample.treatment.measured for sample in samples)
    video = any(sample.picture is not None and not sample.treatment.measured for sample in samples)
    samples = _measurable(samples, video=video, audio=audio, emit=emit)
    if not video:
        _tell_sound_alone(config, emit)
    elif config.validation_audio_only and not audio:
        text = "validation_audio_only has no effect, since sound is not trained: samples are pictures."
        emit(Notice(code="no_effect", level="warning", text=text))
    if not audio and any(dataset.audio is not None and dataset.audio.auto_split for dataset in loaded.datasets.videos):
        emit(Notice(code="no_sound", level="warning", text="No clip has sound, so this run trains video only."))
    if video and any(part.kind == "mask" for part in given_parts(config)) and all(sample.mask is None for sample in samples):
        text = "Masks are to be given, and no clip has one: nothing is."
        fix = "Name a conditioning dataset of type mask in conditioning_data."
        emit(Notice(code="no_masks", level="warning", text=text, fix=fix))
    if references(config) != References() and all(sample.reference is None for sample in samples):
        text = "A size or speed of references is set, and no clip has a reference: it has no effect."
        emit(Notice(code="no_references", level="warning", text=text))
    return Prepared(
        checkpoint=checkpoint,
        device=device,
        dtype=dtype,
        samples=samples,
        video=video,
        audio=audio,
        shots=_shots(loaded, samples, audio=audio, video=video, emit=emit),
        negative_prompt=config.validation_negative_prompt,
        passes=CachePass(
            store=Store(root / "cache"),
            checkpoint=checkpoint,
            text_encoder=find_text_encoder(config, checkpoint, base=loaded.base, tell=tell),
            device=device,
            dtype=dtype,
            emit=emit,
            should_stop=should_stop,
            levers=vae_levers(config),
            references=references(config),
            features=features,
            text=text_settings(config),
            vae_batch=config.vae_batch_size,
            text_batch=config.text_encoder_batch_size,
        ),
    )


def _shots(loaded: LoadedConfig, samples: list[Sample], *, audio: bool, video: bool, emit: Callable[[Event], None]) -> tuple[Shot, ...]:
    """The samples to make, what they start from being looked at: a run must not fail at its first validation."""
    config = loaded.config
    drawn_video = video and not (audio and config.validation_audio_only)
    if config.validation_disable:  # one can still be asked for
        config = config.model_copy(update={"validation_using_datasets": False})
    shots = plan_shots(config, loaded.datasets, samples, audio=audio, video=drawn_video, emit=emit)
    shots = check_inputs(shots, seconds=config.validation_num_video_frames / config.frame_rate, emit=emit)
    for notice in check_prompts(shots, config.validation_negative_prompt, counter=find_counter(config, base=loaded.base)):
        emit(notice)
    if len(shots) > 1:
        text = f"{len(shots)} samples are made each time: {', '.join(shot.name for shot in shots[:_MOST_NAMES])}"
        text += f" and {len(shots) - _MOST_NAMES} more." if len(shots) > _MOST_NAMES else "."
        emit(Notice(code="samples_planned", text=text))
    return shots


def _measurable(samples: list[Sample], *, video: bool, audio: bool, emit: Callable[[Event], None]) -> list[Sample]:
    """The samples without those of eval datasets that are of something which this run does not train."""
    odd = [sample for sample in samples if sample.treatment.measured and not (video if sample.picture is not None else audio)]
    if odd:
        names = ", ".join(sample.name for sample in odd[:10]) + (f" and {len(odd) - 10} more" if len(odd) > 10 else "")
        what = "sound" if video else "pictures"
        text = f"{len(odd)} clips of eval datasets are not measured, since no {what} is trained: {names}."
        emit(Notice(code="eval_left_out", level="warning", text=text))
    return [sample for sample in samples if sample not in odd] if odd else samples


def _tell_sound_alone(config: TrainConfig, emit: Callable[[Event], None]) -> None:
    """What it means for a run that no clip's picture is trained. Raises ConfigError where nothing is left to train."""
    if config.audio_loss_weight == 0:
        raise ConfigError(["audio_loss_weight = 0: this run trains sound alone, so nothing would be learned."], fix="Use 1.0.")
    emit(Notice(code="sound_alone", text="This run trains sound alone: what the model has for pictures is not loaded."))
    if parts := [part.kind for part in given_parts(config) if part.modality == "video"]:
        text = f"Given parts of pictures ({', '.join(dict.fromkeys(parts))}) have no effect, since sound is trained alone."
        emit(Notice(code="no_effect", level="warning", text=text))
    if config.validation_step_interval and not config.validation_disable:
        emit(Notice(code="samples_of_sound", text="Samples are sound: sample.wav, and sample.mp4, which shows its spectrogram."))
