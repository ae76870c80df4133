"""The official LTX-2 trainer's YAML as ours: what was kept, changed and refused, key by key.

Written from its documented configuration. Latents and embeddings that it has prepared are not read: they are pickles of another layout,
so the clips themselves are needed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ltx2core.config.exchange import Exchange, Row, reason_of, said
from ltx2core.config.load import look_at
from ltx2core.config.train import TrainConfig
from ltx2core.config.trainer_keys import DEFAULTS, NONE, SAME, SECTIONS
from ltx2core.config.wording import reword
from ltx2core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ltx2core.config.load import LoadedConfig

PLACEHOLDER = "datasets/videos"
_PIXELS = 32  # of a latent cell
_PROMPTS = "prompts.json"  # the file of further prompts
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
        if section in SECTIONS and isinstance(group, dict):
            for name, value in group.items():
                reading.take(f"{section}.{name}", _as_number(value))
        else:
            reading.take(section, group)
    if reading.parts:
        reading.config["ltx2_intrinsic_conditioning"] = reading.parts
    dataset = reading.dataset(clips)
    loaded = look_at(reading.config, base=base, datasets=[dataset])
    config = reading.settled(loaded)
    reading.defaults(values)
    files = {}
    if reading.prompts_of:  # not before: the file is not there yet
        config["user_prompt_library"] = _PROMPTS
        files[_PROMPTS] = json.dumps(reading.prompts_of, indent=2, ensure_ascii=False) + "\n"
    return Exchange(config=config, datasets=[dataset], rows=tuple(reading.rows), files=files)


@dataclass
class _Reading:
    config: dict[str, object] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    sources: dict[str, tuple[str, str]] = field(default_factory=dict)  # our name: the setting as the file has it, and why it changed
    parts: list[dict[str, object]] = field(default_factory=list)
    prompts_of: dict[str, str] = field(default_factory=dict)  # further ones, by names of their own
    sound: bool = False
    picture: bool = True

    def take(self, path: str, value: object) -> None:
        """One setting of the file, by the path of its key."""
        if value is None and path not in ("validation.interval", "checkpoints.interval"):
            return
        if path in _OWN_WAY:
            _OWN_WAY[path](self, path, value)
        elif path in SAME:
            self.put(SAME[path], value, said(path, value))
        else:
            self.refuse(said(path, value), NONE.get(path, "the LTX-2 trainer has no such key"))

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
        """The first prompt stands in the config, further ones in a file."""
        for index, item in enumerate(value if isinstance(value, list) else []):
            sample = item if isinstance(item, dict) else {"prompt": item}
            prompt, source = sample.get("prompt"), f"{path}[{index}]"
            for name in sample.keys() - {"prompt"}:
                self.refuse(said(f"{source}.{name}", sample[name]), "all samples have one size and seed, and start from their prompt")
            if not isinstance(prompt, str) or not prompt.strip():
                self.refuse(said(source, item), "a prompt is text")
            elif "validation_prompt" not in self.config:
                self.put("validation_prompt", prompt, said(source, prompt))
            else:
                self.prompts_of[f"sample-{index + 1}"] = prompt
                target = said("user_prompt_library", _PROMPTS)
                self.rows.append(Row(verdict="changed", source=said(source, prompt), target=target, why="further prompts are in a file"))

    def sound_like_picture(self, path: str, value: object) -> None:
        """Guidance of sound that has no key of its own here."""
        ours = SAME[path.replace("audio_", "video_")]
        if value == self.config.get(ours):
            self.rows.append(Row(verdict="kept", source=said(path, value), target=f"{ours}, which counts for both"))
        else:
            self.refuse(said(path, value), f"{ours}, that of the picture, counts for both")

    def drawn(self, path: str, value: object) -> None:
        """Whether samples have a picture, or sound."""
        if value is True:
            self.rows.append(Row(verdict="kept", source=said(path, value), target="samples have what is trained"))
        elif path.endswith("video"):
            self.put("validation_audio_only", True, said(path, value), "said the other way round")
        else:
            self.refuse(said(path, value), "samples have sound where sound is trained")

    def tracker(self, path: str, value: object) -> None:
        self.put("report_to", "wandb" if value is True else "none", said(path, value), "named by report_to")

    def tracked_videos(self, path: str, value: object) -> None:
        if value is True:
            self.rows.append(Row(verdict="kept", source=said(path, value), target="samples are told to the tracker"))
        else:
            self.refuse(said(path, value), "samples are always told to the tracker")

    def defaults(self, values: dict[str, object]) -> None:
        """Keys that the file leaves out, where what holds without them differs."""
        for path, (theirs, name) in DEFAULTS.items():
            section, _, key = path.partition(".")
            group, ours = values.get(section), TrainConfig.model_fields[name].default
            if name not in self.config and not (isinstance(group, dict) and key in group) and theirs != ours:
                self.rows.append(Row(verdict="default", source=said(path, theirs), target=said(name, ours), why="not in the file"))

    def dims(self, path: str, value: object) -> None:
        """Width, height and frames of a sample."""
        if not (isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(side, int) for side in value)):
            self.refuse(said(path, value), "it is width, height and frames")
            return
        width, height, frames = value
        self.put("validation_resolution", f"{height}x{width}", said(path, value), "here it is height x width")
        self.put("validation_num_video_frames", frames, said(path, value))

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
    "validation.audio_stg_scale": _Reading.sound_like_picture,
    "validation.audio_modality_guidance_scale": _Reading.sound_like_picture,
    "validation.generate_audio": _Reading.drawn,
    "validation.generate_video": _Reading.drawn,
    "wandb.enabled": _Reading.tracker,
    "wandb.log_validation_videos": _Reading.tracked_videos,
    "validation.interval": _Reading.interval,
    "checkpoints.interval": _Reading.interval,
    "checkpoints.keep_last_n": _Reading.keep,
    "checkpoints.precision": _Reading.precision,
    "flow_matching.timestep_sampling_mode": _Reading.noise,
}
