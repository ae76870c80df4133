"""Values that LTX-2 cannot take as they are written: the nearest that works is used, and a Notice says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from ltx2core.config.keys import Later, facts_of, switched_on
from ltx2core.config.media_keys import AudioSettings
from ltx2core.config.memory_checks import idle_notices
from ltx2core.config.method_checks import adjust_methods, changed
from ltx2core.config.validation import read_size
from ltx2core.config.wording import shown
from ltx2core.data.buckets import FRAME_STEP, MAX_SECONDS, SIDE_STEP, snap_frames, snap_size
from ltx2core.runs.events import Notice

if TYPE_CHECKING:
    from ltx2core.config.datasets import VideoDataset
    from ltx2core.config.media_keys import VideoSettings
    from ltx2core.config.train import TrainConfig

FRAME_RULE = "LTX-2 takes 8k + 1 frames"
SIZE_RULE = "LTX-2 takes multiples of 32 pixels"
SMALLEST_SAMPLE = 64  # pixels a side: the decoder pads by reflection, which a single latent cannot give
SAMPLE_RATE = 16000
CHANNELS = 2


def adjust_config(config: TrainConfig, *, file: str) -> tuple[TrainConfig, list[Notice]]:
    """The config with values that work, and what was changed or is unwise."""
    changes: dict[str, object] = {}
    notices: list[Notice] = []
    _sample_sizes(config, changes, notices, file)
    frames = snap_frames(config.validation_num_video_frames)
    if frames != config.validation_num_video_frames:
        changes["validation_num_video_frames"] = frames
        text = f"{file} validation_num_video_frames = {config.validation_num_video_frames}: {FRAME_RULE}; samples have {frames}."
        notices.append(Notice(code="frames_snapped", text=text, fix=f"Use {frames} or {frames + FRAME_STEP}."))
    notices += _guidance(config, file)
    if config.mixed_precision in ("fp16", "fp8"):
        changes["mixed_precision"] = "bf16"
        text = f"{file} mixed_precision = {config.mixed_precision}: LTX-2 overflows in fp16, and fp8 is not built yet; bf16 is used."
        notices.append(Notice(code="precision_changed", text=text, fix="Use bf16, or no for full float32."))
    if config.lr_scheduler == "constant" and config.lr_warmup_steps:
        text = f"{file} lr_warmup_steps = {config.lr_warmup_steps}: lr_scheduler constant has no warm-up; the rate is full from step 1."
        notices.append(Notice(code="no_warmup", level="warning", text=text, fix="Use constant_with_warmup."))
    if overruled := _overruled_sigmas(config):
        text = f"{file} {', '.join(overruled)}: no effect, since noise levels are drawn in another way."
        notices.append(Notice(code="no_effect", level="warning", text=text, fix="Remove what you do not want."))
    adjust_methods(config, changes, notices, file=file)
    notices += idle_notices(config, file=file)
    if config.flow_schedule_shift == 0:
        changes["flow_schedule_shift"] = None
    return config.model_copy(update=changes), notices


def _guidance(config: TrainConfig, file: str) -> list[Notice]:
    """What is unwise about the guidance of samples."""
    if config.validation_disable or is_distilled(config):
        return []
    ranges = {
        "validation_guidance": (2.0, 6.0, "samples tend to turn into noise or black", "5.0"),
        "ltx2_validation_audio_guidance": (1.0, 10.0, "sound tends to be harsh or cut off", "7.0"),
        "ltx2_validation_stg_scale": (0.0, 2.0, "samples tend to be oversharp and still", "1.0"),
        "ltx2_validation_modality_guidance": (1.0, 5.0, "picture and sound tend to be overdone", "3.0"),
    }
    notices = []
    for name, (low, high, what, usual) in ranges.items():
        value = getattr(config, name)
        if value is not None and not low <= value <= high:
            text = f"{file} {name} = {value:g}: outside {low:g} to {high:g} {what}."
            notices.append(Notice(code="guidance_unusual", level="warning", text=text, fix=f"Use {usual}."))
    if config.ltx2_validation_stg_blocks and not config.ltx2_validation_stg_scale:
        text = f"{file} ltx2_validation_stg_blocks has no effect, since ltx2_validation_stg_scale is 0."
        notices.append(Notice(code="no_effect", level="warning", text=text, fix="Set ltx2_validation_stg_scale to 1."))
    return notices


def is_distilled(config: TrainConfig) -> bool:
    """Whether samples are drawn with the noise levels of distilled weights."""
    if config.ltx2_validation_schedule != "auto":
        return config.ltx2_validation_schedule == "distilled"
    return has_distilled_weights(config)


def has_distilled_weights(config: TrainConfig) -> bool:
    """Whether the model is a distilled one, by its flavour or its file's name."""
    names = (config.model_flavour, config.ltx2_checkpoint_filename or "", config.pretrained_model_name_or_path)
    return any("distilled" in name.rpartition("/")[2].lower() for name in names)


def _overruled_sigmas(config: TrainConfig) -> list[str]:
    """Keys of noise levels that are set and not read. The ways to draw them, the first that is set being used, and what each reads."""
    ways = {
        "flow_custom_timesteps": ("flow_timesteps_mode",),
        "flux_fast_schedule": (),
        "mixflow_enabled": ("flow_schedule_shift", "mixflow_gamma"),
        "flow_cubic_schedule_weights": ("flow_schedule_shift",),
        "flow_use_uniform_schedule": ("flow_schedule_shift",),
        "flow_use_beta_schedule": ("flow_schedule_shift", "flow_beta_schedule_alpha", "flow_beta_schedule_beta"),
        "flow_schedule_shift": ("flow_schedule_shift", "flow_sigmoid_scale"),
    }
    way = next((name for name in ways if getattr(config, name)), None)
    read = {way, *ways[way]} if way else {"flow_sigmoid_scale", "flow_shift_max_tokens"}
    every = {*ways, *(name for names in ways.values() for name in names), "flow_sigmoid_scale", "flow_shift_max_tokens"}
    return changed(config, sorted(every - read))


def adjust_dataset(dataset: VideoDataset, *, file: str, path: str, frame_rate: float) -> tuple[VideoDataset, list[Notice]]:
    """The same for an entry of the dataset list; what is left empty there is filled in."""
    notices: list[Notice] = []
    video = dataset.video
    if dataset.dataset_type in ("video", "eval"):
        video, notices = _video(video, f"{file} {path}.video", frame_rate)
    edge = snap_size(dataset.resolution)
    if dataset.dataset_type != "audio" and dataset.resolution_type == "pixel" and edge != dataset.resolution:
        text = f"{file} {path}.resolution = {dataset.resolution:g}: {SIZE_RULE}; the shorter edge becomes {edge}."
        notices.append(Notice(code="size_snapped", text=text, fix=_side_choice(dataset.resolution)))
        dataset = dataset.model_copy(update={"resolution": float(edge)})
    audio, told = _audio(dataset.audio, f"{file} {path}.audio", alone=dataset.dataset_type == "audio")
    return dataset.model_copy(update={"video": video, "audio": audio}), notices + told


def not_built(model: BaseModel, *, file: str, prefix: str = "", written: dict[str, str] | None = None) -> list[Notice]:
    """One Notice for each feature that the settings ask for and that is not built yet; nested models included."""
    asked: dict[Later, list[str]] = {}
    for name, field in type(model).model_fields.items():
        value, facts = getattr(model, name), facts_of(field)
        path = f"{prefix}.{name}" if prefix else (written or {}).get(name, name)
        if facts.later is not None and value not in facts.built and switched_on(model, facts.later):
            asked.setdefault(facts.later, []).append(f"{path} = {shown(value)}")
    notices = [
        Notice(code="not_built_yet", level="warning", text=f"{file} {', '.join(keys)}: {later.name} is not built yet; {later.instead}.")
        for later, keys in asked.items()
    ]
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            notices += not_built(value, file=file, prefix=f"{prefix}.{name}" if prefix else name)
    return notices


def _sample_sizes(config: TrainConfig, changes: dict[str, object], notices: list[Notice], file: str) -> None:
    sizes = []
    for written in config.validation_resolution.split(","):
        size, told = _sample_size(written.strip(), file=file, times=2 if config.ltx2_validation_pipeline_mode == "spatial-upscale" else 1)
        notices += told
        sizes.append(size)
    if (text := ",".join(dict.fromkeys(sizes))) != config.validation_resolution:
        changes["validation_resolution"] = text


def _sample_size(written: str, *, file: str, times: int) -> tuple[str, list[Notice]]:
    """A size that works, as the file writes sizes, and what was changed or may be meant the other way round. times: it is upsampled."""
    notices: list[Notice] = []
    height, width = read_size(written) or (0, 0)  # checked when it was read
    snapped = (max(snap_size(height / times), SMALLEST_SAMPLE) * times, max(snap_size(width / times), SMALLEST_SAMPLE) * times)
    where = f"{file} validation_resolution = {written}"
    if times > 1 and snapped != (height, width):
        text = f"{where}: upsampled samples are multiples of {SIDE_STEP * times}; they are {snapped[0]} high and {snapped[1]} wide."
        notices.append(Notice(code="size_snapped", text=text, fix=f"Use {snapped[0]}x{snapped[1]}."))
        return f"{snapped[0]}x{snapped[1]}", notices
    if snapped != (height, width):
        wrong = next(side for side, fits in zip((height, width), snapped, strict=True) if side != fits)
        small = wrong < SMALLEST_SAMPLE
        rule = f"{SIZE_RULE}, and samples at least {SMALLEST_SAMPLE}" if small else SIZE_RULE
        text = f"{where}: {rule}; samples are {snapped[0]} high and {snapped[1]} wide."
        fix = f"Use {SMALLEST_SAMPLE} instead of {wrong}." if small else _side_choice(wrong)
        notices.append(Notice(code="size_snapped", text=text, fix=fix))
    if height > width:
        text = f"{where} is read as height x width: samples are upright, {snapped[0]} high and {snapped[1]} wide."
        notices.append(Notice(code="size_upright", text=text, fix=f"For a wide picture write {width}x{height}."))
    return f"{snapped[0]}x{snapped[1]}", notices


def _video(video: VideoSettings, where: str, frame_rate: float) -> tuple[VideoSettings, list[Notice]]:
    if video.bucket_strategy == "resolution_frames" and video.max_frames is None and "num_frames" not in video.model_fields_set:
        video = video.model_copy(update={"num_frames": snap_frames(int(MAX_SECONDS * (video.frame_rate or frame_rate)))})
    frames = snap_frames(video.num_frames)
    minimum = None if video.min_frames is None else snap_frames(video.min_frames)
    notices: list[Notice] = []
    if frames != video.num_frames:
        text = f"{where}.num_frames = {video.num_frames}: {FRAME_RULE}; clips are trained with {frames}."
        if minimum != video.min_frames:
            text += f" min_frames = {video.min_frames} becomes {minimum} as well."
        notices.append(Notice(code="frames_snapped", text=text, fix=_frame_choice(frames)))
    elif minimum is not None and minimum != video.min_frames:
        text = f"{where}.min_frames = {video.min_frames}: {FRAME_RULE}; clips of {minimum} frames and more are used."
        notices.append(Notice(code="frames_snapped", text=text, fix=_frame_choice(minimum)))
    changes = {"num_frames": frames, "min_frames": minimum, "frame_rate": video.frame_rate or frame_rate}
    return video.model_copy(update=changes), notices


def _audio(audio: AudioSettings | None, where: str, *, alone: bool) -> tuple[AudioSettings | None, list[Notice]]:
    """alone: the dataset holds sound and nothing else, so that it always has these settings."""
    if audio is None:
        return AudioSettings() if alone else None, []
    if not audio.auto_split and not audio.audio_only and not alone:
        text = f"{where}.auto_split = false: the clips' own sound is not used; only pictures are trained."
        return None, [Notice(code="audio_off", text=text, fix="Set auto_split to true to train sound as well.")]
    notices: list[Notice] = []
    if audio.channels != CHANNELS:
        how = "mono is doubled to stereo" if audio.channels == 1 else "sound is mixed down to stereo"
        text = f"{where}.channels = {audio.channels}: LTX-2 hears stereo; {how}."
        notices.append(Notice(code="audio_stereo", text=text, fix="Use 2."))
    if audio.sample_rate != SAMPLE_RATE:
        text = f"{where}.sample_rate = {audio.sample_rate}: LTX-2 hears {SAMPLE_RATE} samples a second; sound is converted."
        notices.append(Notice(code="audio_resampled", text=text, fix=f"Use {SAMPLE_RATE}."))
    return audio.model_copy(update={"channels": CHANNELS, "sample_rate": SAMPLE_RATE}), notices


def _frame_choice(frames: int) -> str:
    return f"Use {frames}, or {frames + FRAME_STEP} where clips are long enough."


def _side_choice(pixels: float) -> str:
    """The multiples of 32 on both sides, the nearer one first."""
    nearest = snap_size(pixels)
    other = nearest + SIDE_STEP if nearest < pixels else nearest - SIDE_STEP
    return f"Use {nearest} or {other} instead of {pixels:g}." if other > 0 else f"Use {nearest} instead of {pixels:g}."
