"""Our settings as files that SimpleTuner's parser accepts: config.json and multidatabackend.json, and what has no equivalent there."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from pydantic import BaseModel

from ltx2core.config.exchange import Exchange, Row, Verdict, said
from ltx2core.config.keys import facts_of
from ltx2core.config.simpletuner_keys import ALWAYS, AS_TEXT, DATASET_KEYS, KEYS, VALUES
from ltx2core.errors import ConfigError

if TYPE_CHECKING:
    from ltx2core.config.datasets import TextEmbeds, VideoDataset
    from ltx2core.config.load import LoadedConfig
    from ltx2core.config.train import TrainConfig

LIST_FILE = "multidatabackend.json"
FILTER_FILE = "caption_filter.txt"
_NO_SUCH_KEY = "SimpleTuner has no such key"
# The official rule: the mean of the logit-normal that noise levels come from, by a clip's tokens.
_MEAN_AT_0, _MEAN_PER_TOKEN = 0.5833, 3.5807e-4
_MOST_SWAPPED = 47
_ASPECT = 1.5  # of a clip, where only its shorter edge is known


def simpletuner_files(loaded: LoadedConfig) -> Exchange:
    """The settings for SimpleTuner. Raises ConfigError for nano, which it does not have."""
    if loaded.config.pretrained_model_name_or_path == "nano":
        raise ConfigError(["nano comes with this program; SimpleTuner cannot train it."], fix="Set pretrained_model_name_or_path to LTX-2.")
    config, rows = _config(loaded)
    datasets, of_datasets, files = _datasets(loaded)
    if datasets:
        config["data_backend_config"] = LIST_FILE
    return Exchange(config=config, datasets=datasets, rows=(*rows, *of_datasets), files=files)


def _config(loaded: LoadedConfig) -> tuple[dict[str, object], list[Row]]:
    ours, theirs, rows = loaded.config, dict[str, object](), list[Row]()
    dumped = ours.model_dump(mode="json", exclude_none=True)
    for name, field in type(ours).model_fields.items():
        if name in ("data_backend_config", *_TRANSLATED) or dumped.get(name) in (None, [], ()):
            continue
        value, default = getattr(ours, name), field.default
        if name not in KEYS:
            if value != default:
                rows.append(Row(verdict="refused", source=said(name, dumped[name]), why=_why_not(name)))
        elif facts_of(field).later is None or value != default:
            theirs[name] = json.dumps(dumped[name]) if name in AS_TEXT else _number(VALUES.get(name, {}).get(value, dumped[name]))
            changed = name in VALUES and value in VALUES[name]
            why = "SimpleTuner's name for it" if changed else ""
            verdict: Verdict = "changed" if changed else "kept"
            rows.append(Row(verdict=verdict, source=said(name, dumped[name]), target=said(name, theirs[name]), why=why))
    for name, value in ALWAYS.items():
        if name not in theirs:
            theirs[name] = value
            rows.append(Row(verdict="kept", source=said(name, getattr(ours, name)), target=said(name, value)))
    rows += _translate(loaded, theirs)
    rows += _offload(ours, theirs)
    return theirs, rows


_OFFLOAD = (
    "enable_group_offload",
    "group_offload_type",
    "group_offload_blocks_per_group",
    "group_offload_use_stream",
    "group_offload_text_encoder",
    "musubi_blocks_to_swap",
)
_TRANSLATED = (
    *_OFFLOAD,
    "frame_rate",
    "validation_resolution",
    "flow_schedule_shift",
    "ltx2_checkpoint_filename",
    "num_train_epochs",
    "max_train_steps",
    "tread_config",
)


def _translate(loaded: LoadedConfig, theirs: dict[str, object]) -> list[Row]:
    """Keys that mean the same under another name, in another unit or by another rule there."""
    ours = loaded.config
    height, width = ours.validation_size
    rows = [
        _put(theirs, "frame_rate", ours.frame_rate, "framerate", _number(ours.frame_rate), "SimpleTuner's parser knows this name only"),
        _put(
            theirs,
            "validation_resolution",
            ours.validation_resolution,
            "validation_resolution",
            f"{width}x{height}",
            "SimpleTuner writes width x height",
        ),
        _shift(loaded, theirs),
    ]
    theirs["num_train_epochs"] = ours.num_train_epochs
    if ours.max_train_steps:  # an epoch count of 0 is written as well: its own default, 1, would exclude the steps
        theirs["max_train_steps"] = ours.max_train_steps
    name, amount = ("max_train_steps", ours.max_train_steps) if ours.max_train_steps else ("num_train_epochs", ours.num_train_epochs)
    rows.append(Row(verdict="kept", source=said(name, amount), target=said(name, amount)))
    if ours.ltx2_checkpoint_filename:
        why = "SimpleTuner's parser refuses it: name the file itself as pretrained_model_name_or_path"
        rows.append(Row(verdict="refused", source=said("ltx2_checkpoint_filename", ours.ltx2_checkpoint_filename), why=why))
    if ours.tread_config is not None:
        why = f"SimpleTuner's TREAD ends in an error on LTX-2, and has no tread_share_of_steps, {ours.tread_share_of_steps:g} here"
        rows.append(Row(verdict="refused", source=said("tread_config", ours.tread_config), why=why))
    return rows


def _offload(ours: TrainConfig, theirs: dict[str, object]) -> list[Row]:
    """Blocks that wait in RAM: all of them by RamTorch, since SimpleTuner 4.10 has no group offload, else some by block swap."""
    fields = type(ours).model_fields
    set_here = {name: getattr(ours, name) for name in _OFFLOAD if getattr(ours, name) != fields[name].default}
    stream, text = ours.group_offload_use_stream, ours.group_offload_text_encoder
    rows: list[Row] = []
    if ours.enable_group_offload:
        theirs |= {"ramtorch_target_modules": "transformer_blocks.*", "ramtorch_transformer_percent": 100, "musubi_blocks_to_swap": 0}
        why = "SimpleTuner 4.10 has no group offload; RamTorch keeps all blocks in RAM too"
        rows = [
            _put(theirs, "enable_group_offload", True, "ramtorch", True, why),
            _put(theirs, "group_offload_use_stream", stream, "ramtorch_disable_extensions", not stream, "RamTorch's way to copy ahead"),
        ]
        if text:
            rows.append(_put(theirs, "group_offload_text_encoder", text, "ramtorch_text_encoder", True, "by RamTorch too"))
    elif ours.musubi_blocks_to_swap:
        blocks = min(ours.musubi_blocks_to_swap, _MOST_SWAPPED)
        theirs["musubi_blocks_to_swap"] = blocks
        why = "" if blocks == ours.musubi_blocks_to_swap else "SimpleTuner keeps one block on the GPU"
        source, target = (said("musubi_blocks_to_swap", number) for number in (ours.musubi_blocks_to_swap, blocks))
        rows = [Row(verdict="changed" if why else "kept", source=source, target=target, why=why)]
    told = {row.source.partition(" = ")[0] for row in rows}
    why = "all blocks are in RAM already" if ours.enable_group_offload else "no effect without enable_group_offload"
    return [*rows, *(Row(verdict="refused", source=said(name, value), why=why) for name, value in set_here.items() if name not in told)]


def _put(theirs: dict[str, object], name: str, value: object, other: str, written: object, why: str) -> Row:
    theirs[other] = written
    return Row(verdict="changed", source=said(name, value), target=said(other, written), why=why)


def _shift(loaded: LoadedConfig, theirs: dict[str, object]) -> Row:
    """A fixed shift as it is; in place of the official rule the fixed shift that it gives for these clips."""
    fixed = loaded.config.flow_schedule_shift
    if fixed is not None:
        theirs["flow_schedule_shift"] = _number(fixed)
        return Row(
            verdict="kept", source=said("flow_schedule_shift", fixed), target=said("flow_schedule_shift", theirs["flow_schedule_shift"])
        )
    tokens = _tokens(loaded)
    shift = round(math.exp(_MEAN_AT_0 + _MEAN_PER_TOKEN * tokens), 2)
    why = f"SimpleTuner's shift does not follow a clip's length: this is the official one for clips of {tokens:,} tokens"
    return _put(theirs, "flow_schedule_shift", None, "flow_schedule_shift", shift, why)


def _tokens(loaded: LoadedConfig) -> int:
    """Tokens of the longest clips that are trained, taken to be 3 : 2; of the samples where no dataset is known."""
    counts = []
    for dataset in loaded.datasets.videos:
        edge = dataset.resolution if dataset.resolution_type != "area" else math.sqrt(dataset.resolution * 1e6 / _ASPECT)
        frames = dataset.video.num_frames if dataset.dataset_type == "video" else 1
        counts.append(round(edge / 32) * round(edge * _ASPECT / 32) * ((frames + 7) // 8))
    height, width = loaded.config.validation_size
    return max(counts, default=height // 32 * (width // 32) * ((loaded.config.validation_num_video_frames + 7) // 8))


def _why_not(name: str) -> str:
    reasons = {
        "audio_loss_weight": "SimpleTuner's parser refuses it; sound weighs 1 there",
        "eval_split": "SimpleTuner holds nothing out: add a dataset of dataset_type eval",
        "lora_dtype": "SimpleTuner writes the precision it trains in",
        "max_tokens_per_batch": "SimpleTuner's batches have train_batch_size clips",
    }
    return reasons.get(name, _NO_SUCH_KEY)


def _datasets(loaded: LoadedConfig) -> tuple[list[dict[str, object]], list[Row], dict[str, str]]:
    listed = loaded.datasets
    folders = (*listed.videos, *listed.evals, *listed.sounds, *listed.conditioning)
    if not folders:
        return [], [], {}
    entries, rows = [], list[Row]()
    for dataset in folders:
        entry, told = _entry(dataset, loaded.config)
        entries.append(entry)
        rows += told
    texts, files = _text_embeds(listed.text_embeds)
    return [*entries, texts], rows, files


def _entry(dataset: VideoDataset, config: TrainConfig) -> tuple[dict[str, object], list[Row]]:
    rows: list[Row] = []
    entry = _known(dataset, "", f"dataset {dataset.id}: ", rows)
    entry |= {"id": dataset.id, "type": "local", "dataset_type": dataset.dataset_type, "instance_data_dir": str(dataset.instance_data_dir)}
    if dataset.dataset_type != "conditioning" or dataset.conditioning_type != "mask":
        entry["cache_dir_vae"] = f"cache/vae/{config.model_family}/{dataset.id}"
    if entry.get("caption_strategy") in ("csv", "jsonl"):
        why = "SimpleTuner reads captions of local files from .txt files, names or a Parquet table only: write .txt files beside the clips"
        rows.append(Row(verdict="refused", source=f"dataset {dataset.id}: " + said("caption_strategy", entry["caption_strategy"]), why=why))
        entry["caption_strategy"] = "textfile"
    video = entry.get("video")
    if dataset.dataset_type == "video" and isinstance(video, dict) and video.get("min_frames") != dataset.video.num_frames:
        video["min_frames"] = dataset.video.num_frames
        why = "SimpleTuner takes no clip shorter than num_frames: shorter ones are left out there"
        source = f"dataset {dataset.id}: " + said("video.min_frames", dataset.video.min_frames)
        rows.append(Row(verdict="changed", source=source, target=said("video.min_frames", dataset.video.num_frames), why=why))
    if dataset.dataset_type not in ("video", "eval"):
        entry.pop("video", None)
    return entry, rows


def _known(model: BaseModel, path: str, where: str, rows: list[Row]) -> dict[str, object]:
    """The keys of an entry that are set to something, as far as SimpleTuner has them; a row for each that it has not."""
    entry: dict[str, object] = {}
    dumped = model.model_dump(mode="json", exclude_none=True)
    for name, field in type(model).model_fields.items():
        value, default = getattr(model, name), field.default
        if name not in dumped or (value == default and name not in model.model_fields_set and not isinstance(value, BaseModel)):
            continue
        if isinstance(value, BaseModel) and name in ("video", "audio"):
            entry[name] = _known(value, f"{path}{name}.", where, rows)
        elif path + name in DATASET_KEYS:
            entry[name] = {"crop_style": {"centre": "center"}}.get(name, {}).get(str(value), _number(dumped[name]))
        elif value != default:
            rows.append(Row(verdict="refused", source=where + said(path + name, dumped[name]), why=_NO_SUCH_KEY))
    return entry


def _text_embeds(texts: TextEmbeds) -> tuple[dict[str, object], dict[str, str]]:
    """The entry of cached captions, which SimpleTuner insists on, and the file of its caption filter."""
    entry: dict[str, object] = {
        "id": texts.id,
        "type": "local",
        "dataset_type": "text_embeds",
        "default": True,
        "cache_dir": "cache/text/ltxvideo2",
        "disabled": False,
    }
    lines = texts.caption_filter_list
    if not lines:
        return entry, {}
    entry["caption_filter_list"] = FILTER_FILE
    return entry, {FILTER_FILE: "\n".join(lines if isinstance(lines, list) else [lines]) + "\n"}


def _number(value: object) -> object:
    """A whole number without its point, as people write it and every parser takes it."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value
