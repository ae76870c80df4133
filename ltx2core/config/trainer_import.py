"""The official LTX-2 trainer's YAML as ours: what was kept, changed and refused, key by key.

Written from its documented configuration. Latents and embeddings that it has prepared are not read: they are pickles of another layout,
so the clips themselves are needed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ltx2core.config.exchange import Exchange, Row, reason_of, said
from ltx2core.config.load import look_at
from ltx2core.config.train import TrainConfig
from ltx2core.config.wording import reword
from ltx2core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ltx2core.config.load import LoadedConfig

SECTIONS = (
    "model",
    "lora",
    "training_strategy",
    "optimization",
    "acceleration",
    "data",
    "validation",
    "checkpoints",
    "flow_matching",
    "hub",
    "wandb",
)
PLACEHOLDER = "datasets/videos"
_PIXELS = 32  # of a latent cell

# Keys that mean the same under another name.
_SAME = {
    "seed": "seed",
    "output_dir": "output_dir",
    "model.model_path": "pretrained_model_name_or_path",
    "model.text_encoder_path": "pretrained_gemma_model_name_or_path",
    "model.training_mode": "model_type",
    "lora.rank": "lora_rank",
    "lora.alpha": "lora_alpha",
    "lora.dropout": "lora_dropout",
    "lora.target_modules": "peft_lora_target_modules",
    "optimization.learning_rate": "learning_rate",
    "optimization.steps": "max_train_steps",
    "optimization.batch_size": "train_batch_size",
    "optimization.gradient_accumulation_steps": "gradient_accumulation_steps",
    "optimization.max_grad_norm": "max_grad_norm",
    "optimization.enable_gradient_checkpointing": "gradient_checkpointing",
    "acceleration.mixed_precision_mode": "mixed_precision",
    "validation.negative_prompt": "validation_negative_prompt",
    "validation.frame_rate": "frame_rate",
    "validation.seed": "validation_seed",
    "validation.inference_steps": "validation_num_inference_steps",
    "validation.skip_initial_validation": "disable_benchmark",
    "training_strategy.first_frame_conditioning_p": "ltx2_first_frame_conditioning_probability",
}

# Keys that have no meaning here, and why.
_NONE = {
    "model.video_vae_path": "every part comes from the checkpoint, or from the folders beside it that ComfyUI uses",
    "model.audio_vae_path": "every part comes from the checkpoint, or from the folders beside it that ComfyUI uses",
    "training_strategy.audio_latents_dir": "sound is read from the clips themselves",
    "training_strategy.reference_latents_dir": "references are clips of a conditioning dataset: add one to the dataset list",
    "optimization.scheduler_params": "lr_end, lr_power and lr_num_cycles shape the learning rate here",
    "acceleration.offload_optimizer_during_validation": "what a phase needs is loaded for it alone",
    "data.preprocessed_data_root": "prepared latents are not read, the clips are: name their folder with --clips",
    "data.num_dataloader_workers": "the program chooses how batches are read",
    "validation.audio_cfg_scale": "validation_guidance counts for sound too",
    "validation.video_stg_scale": "plain guidance is used",
    "validation.audio_stg_scale": "plain guidance is used",
    "validation.stg_blocks": "plain guidance is used",
    "validation.stg_scale": "plain guidance is used",
    "validation.stg_mode": "plain guidance is used",
    "validation.guidance_rescale": "plain guidance is used",
    "validation.video_modality_guidance_scale": "plain guidance is used",
    "validation.audio_modality_guidance_scale": "plain guidance is used",
    "validation.images": "samples are made from the prompt alone",
    "validation.reference_videos": "samples are made from the prompt alone",
    "validation.reference_downscale_factor": "samples are made from the prompt alone",
    "validation.include_reference_in_output": "samples are made from the prompt alone",
    "validation.generate_audio": "samples have sound when sound is trained",
    "validation.generate_video": "samples have a picture when pictures are trained",
    "checkpoints.no_resume": "a run goes on only when --resume asks for it",
    "checkpoints.save_training_state": "a checkpoint always holds everything that a run needs to go on",
    "flow_matching.timestep_sampling_params": "flow_sigmoid_scale and flow_shift_max_tokens shape the noise levels here",
}
_LATER = {"hub": "publishing to a hub is not built yet", "wandb": "reporting to trackers is not built yet; journal.jsonl has every number"}
_PRECISIONS = {"int8-quanto": "int8-quanto", "fp8-quanto": "fp8-quanto", "fp8uz-quanto": "fp8-quanto"}
_SCHEDULES = ("constant", "linear", "cosine", "cosine_with_restarts", "polynomial")


def read_yaml(path: Path) -> dict[str, object]:
    """The settings in a YAML file. Raises ConfigError with the line that is wrong."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError([f"{path.name}{where}: {getattr(error, 'problem', None) or 'this is not valid YAML'}."]) from None
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path} cannot be read: {getattr(error, 'strerror', None) or error}."]) from None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ConfigError([f"{path.name} holds no settings: a config of the LTX-2 trainer has groups such as model, lora and data."])
    return values


def _as_number(value: object) -> object:
    """YAML 1.1 takes 1e-4 for text: it has no point."""
    if isinstance(value, str):
        try:
            return float(value) if value[:1].isdigit() and "e" in value.lower() else value
        except ValueError:
            return value
    return value


def is_trainer_config(values: dict[str, object]) -> bool:
    """Whether these are settings of the official trainer."""
    return isinstance(values.get("model"), dict) and any(isinstance(values.get(name), dict) for name in ("optimization", "data", "lora"))


def import_trainer(values: dict[str, object], *, base: Path, clips: str | None = None) -> Exchange:
    """What the settings of the official trainer come to here. clips: the folder of clips, which its settings do not name."""
    reading = _Reading()
    for section, group in values.items():
        if section in _LATER:
            reading.later(section, group)
        elif section in SECTIONS and isinstance(group, dict):
            for name, value in group.items():
                reading.take(f"{section}.{name}", _as_number(value))
        else:
            reading.take(section, group)
    if reading.parts:
        reading.config["ltx2_intrinsic_conditioning"] = reading.parts
    dataset = reading.dataset(clips)
    loaded = look_at(reading.config, base=base, datasets=[dataset])
    return Exchange(config=reading.settled(loaded), datasets=[dataset], rows=tuple(reading.rows))


@dataclass
class _Reading:
    config: dict[str, object] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    sources: dict[str, tuple[str, str]] = field(default_factory=dict)  # our name: the setting as the file has it, and why it changed
    parts: list[dict[str, object]] = field(default_factory=list)
    sound: bool = False
    picture: bool = True

    def take(self, path: str, value: object) -> None:
        """One setting of the file, by the path of its key."""
        if value is None and path not in ("validation.interval", "checkpoints.interval"):
            return
        if path in _OWN_WAY:
            _OWN_WAY[path](self, path, value)
        elif path in _SAME:
            self.put(_SAME[path], value, said(path, value))
        else:
            self.refuse(said(path, value), _NONE.get(path, "the LTX-2 trainer has no such key"))

    def put(self, name: str, value: object, source: str, why: str = "") -> None:
        """Take a value for a key of ours, unless it is one that cannot be."""
        from pydantic import ValidationError

        from ltx2core.config.keys import facts_of

        try:
            read = getattr(TrainConfig.model_validate({name: value}), name)
        except ValidationError as error:
            self.refuse(source, reword(error, file="", model=TrainConfig)[0].strip().split(": ", 1)[-1].rstrip("."))
            return
        facts = facts_of(TrainConfig.model_fields[name])
        if facts.later is not None and read not in facts.built:
            self.refuse(source, f"{facts.later.name} is not built yet; {facts.later.instead}")
            return
        self.config[name] = value
        self.sources[name] = (source, why)

    def refuse(self, source: str, why: str) -> None:
        self.rows.append(Row(verdict="refused", source=source, why=why))

    def later(self, section: str, group: object) -> None:
        if isinstance(group, dict) and any(group.get(name) for name in ("push_to_hub", "enabled")):
            self.refuse(said(section, group), _LATER[section])

    def load_checkpoint(self, path: str, value: object) -> None:
        self.put("init_lora", value, said(path, value), "a LoRA that training starts from")

    def strategy(self, path: str, value: object) -> None:
        kept = value in ("text_to_video", "flexible")
        why = "" if kept else "references are clips of a conditioning dataset: add one to the dataset list"
        self.rows.append(
            Row(verdict="kept" if kept else "refused", source=said(path, value), target="LoRA training" if kept else "", why=why)
        )

    def with_audio(self, path: str, value: object) -> None:
        self.sound = bool(value)
        self.rows.append(Row(verdict="kept", source=said(path, value), target='"audio": {} in the dataset' if self.sound else "no sound"))

    def modality(self, path: str, value: object) -> None:
        """A group of the flexible strategy: whether a modality is learned, and what of it is given."""
        kind = path.rpartition(".")[2]
        if not isinstance(value, dict):
            self.refuse(said(path, value), "a group of keys belongs here")
            return
        learned = value.get("is_generated", True) is True
        if kind == "audio":
            self.sound = learned
        else:
            self.picture = learned
        if learned:
            self.rows.append(Row(verdict="kept", source=f"{path}.is_generated = true", target=f"{kind} is trained"))
        else:
            self.refuse(f"{path}.is_generated = false", f"{kind} that is given in full and not learned is not built yet")
        if "latents_dir" in value:
            self.refuse(said(f"{path}.latents_dir", value["latents_dir"]), "latents are made from the clips")
        conditions = value.get("conditions") or []
        for index, condition in enumerate(conditions if isinstance(conditions, list) else []):
            self.condition(f"{path}.conditions[{index}]", condition, kind)

    def condition(self, path: str, value: object, kind: str) -> None:
        """An entry of conditions: what is given now and then."""
        if not isinstance(value, dict):
            self.refuse(said(path, value), "an entry is a group of keys")
            return
        form, probability = value.get("type"), value.get("probability", 1.0)
        source = said(path, value)
        if form in ("first_frame", "prefix", "suffix"):
            part = {"type": form, "probability": probability, "modality": kind}
            if form != "first_frame":
                part["temporal_boundary"] = value.get("temporal_boundary", 1)
            self.part(part, source)
        elif form == "spatial_crop":
            region = value.get("spatial_region")
            if not isinstance(region, list) or len(region) != 4 or not all(isinstance(edge, int) for edge in region):
                self.refuse(source, "spatial_region is y1, x1, y2, x2 in pixels")
                return
            cells = [edge // _PIXELS for edge in region]
            self.part(
                {"type": form, "probability": probability, "spatial_region": cells}, source, f"regions are latent cells of {_PIXELS} pixels"
            )
        elif form == "mask":
            self.refuse(source, "masks are files: add a conditioning dataset, and ltx2_mask_conditioning_probability")
        elif form == "reference":
            self.refuse(source, "references are clips: add a conditioning dataset with conditioning_type reference_strict")
        else:
            self.refuse(source, "there is no such condition")

    def part(self, part: dict[str, object], source: str, why: str = "") -> None:
        self.parts.append(part)
        target = said("ltx2_intrinsic_conditioning[]", part)
        self.rows.append(Row(verdict="changed" if why else "kept", source=source, target=target, why=why))

    def optimizer(self, path: str, value: object) -> None:
        if value == "adamw8bit":
            self.put("optimizer", "adamw_8bit", said(path, value))
            return
        same = value == "adamw"
        why = "" if same else "AdamW with float32 state is used"
        self.rows.append(Row(verdict="kept" if same else "changed", source=said(path, value), target='optimizer = "adamw"', why=why))

    def schedule(self, path: str, value: object) -> None:
        if value in _SCHEDULES:
            self.put("lr_scheduler", value, said(path, value))
        else:
            self.put("lr_scheduler", "linear", said(path, value), "there are no steps of halved rates; linear falls as far")

    def quantization(self, path: str, value: object) -> None:
        name = _PRECISIONS.get(str(value))
        if name is None:
            self.refuse(said(path, value), "of kinds with fewer bits than 8 there is nf4-bnb alone; int8-quanto is nearer to the model")
        else:
            self.put("base_model_precision", name, said(path, value), "" if name == value else "one kind of fp8 stands for both")

    def text_in_8_bit(self, path: str, value: object) -> None:
        if value is True:
            self.put("text_encoder_1_precision", "int8-torchao", said(path, value))

    def prompts(self, path: str, value: object) -> None:
        """The first prompt; samples of the others are not made."""
        found = [item.get("prompt") if isinstance(item, dict) else item for item in value] if isinstance(value, list) else []
        prompts = [item for item in found if isinstance(item, str)]
        for index, prompt in enumerate(prompts):
            if index:
                self.refuse(said(f"{path}[{index}]", prompt), "one sample is made each time, of the first prompt")
            else:
                self.put("validation_prompt", prompt, said(f"{path}[0]", prompt))

    def dims(self, path: str, value: object) -> None:
        """Width, height and frames of a sample."""
        if not (isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(side, int) for side in value)):
            self.refuse(said(path, value), "it is width, height and frames")
            return
        width, height, frames = value
        self.put("validation_resolution", f"{height}x{width}", said(path, value), "here it is height x width")
        self.put("validation_num_video_frames", frames, said(path, value))

    def guidance(self, path: str, value: object) -> None:
        self.put("validation_guidance", value, said(path, value))

    def interval(self, path: str, value: object) -> None:
        name = {"validation": "validation_step_interval", "checkpoints": "checkpoint_step_interval"}[path.partition(".")[0]]
        self.put(name, 0 if value is None else value, said(path, value), "0 stands for none" if value is None else "")

    def keep(self, path: str, value: object) -> None:
        everything = value == -1
        self.put("checkpoints_total_limit", 0 if everything else value, said(path, value), "0 stands for all" if everything else "")

    def precision(self, path: str, value: object) -> None:
        self.put("lora_dtype", {"bfloat16": "bf16", "float32": "fp32"}.get(str(value), value), said(path, value))

    def noise(self, path: str, value: object) -> None:
        if value == "shifted_logit_normal":
            self.rows.append(Row(verdict="kept", source=said(path, value), target="the official rule, which is the default"))
        elif value == "uniform":
            self.put("flow_use_uniform_schedule", True, said(path, value))
        else:
            self.refuse(said(path, value), "noise levels are drawn by the official rule")

    def dataset(self, clips: str | None) -> dict[str, object]:
        """The entry of the dataset list: the clips, and whether their sound is trained."""
        entry: dict[str, object] = {"id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": clips or PLACEHOLDER}
        frames, size = self.config.get("validation_num_video_frames"), self.config.get("validation_resolution")
        if isinstance(frames, int):
            entry["video"] = {"num_frames": max(1, (frames - 1) // 8 * 8 + 1)}
        if isinstance(size, str):
            entry["resolution"] = max(32, min(int(side) for side in size.split("x")) // 32 * 32)
        if self.sound:
            entry["audio"] = {"audio_only": True} if not self.picture else {}
        if frames or size:
            why = "the trainer's clips have the size they were prepared in, which its settings do not tell; samples' is taken"
            self.rows.append(
                Row(verdict="default", source="size of the clips", target=said("resolution", entry.get("resolution")), why=why)
            )
        return entry

    def settled(self, loaded: LoadedConfig) -> dict[str, object]:
        """The config as it will be used; a row for each key that was taken."""
        written: dict[str, object] = {}
        for name, value in self.config.items():
            if name not in self.sources:
                written[name] = value
                continue
            source, why = self.sources[name]
            used, before = getattr(loaded.config, name), getattr(TrainConfig.model_validate({name: value}), name)
            changed = used != before and not name.startswith(("pretrained_", "init_", "output_"))
            reason = "; ".join(filter(None, [why, reason_of(name, loaded.notices) if changed else ""]))
            written[name] = used if changed else value
            self.rows.append(Row(verdict="changed" if reason else "kept", source=source, target=said(name, written[name]), why=reason))
        return written


_OWN_WAY: dict[str, Callable[[_Reading, str, object], None]] = {
    "model.load_checkpoint": _Reading.load_checkpoint,
    "training_strategy.name": _Reading.strategy,
    "training_strategy.with_audio": _Reading.with_audio,
    "training_strategy.video": _Reading.modality,
    "training_strategy.audio": _Reading.modality,
    "optimization.optimizer_type": _Reading.optimizer,
    "optimization.scheduler_type": _Reading.schedule,
    "acceleration.quantization": _Reading.quantization,
    "acceleration.load_text_encoder_in_8bit": _Reading.text_in_8_bit,
    "validation.samples": _Reading.prompts,
    "validation.prompts": _Reading.prompts,
    "validation.video_dims": _Reading.dims,
    "validation.video_cfg_scale": _Reading.guidance,
    "validation.guidance_scale": _Reading.guidance,
    "validation.interval": _Reading.interval,
    "checkpoints.interval": _Reading.interval,
    "checkpoints.keep_last_n": _Reading.keep,
    "checkpoints.precision": _Reading.precision,
    "flow_matching.timestep_sampling_mode": _Reading.noise,
}
