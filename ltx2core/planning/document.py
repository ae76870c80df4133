"""A plan as a JSON document: the config it is for, what is predicted for it, and what is recommended. `ltx2tui export` reads it.

    {"schema": 1, "config": {...}, "datasets": [...], "hardware": {...}, "prediction": {...}, "recommendations": [...], "notices": [...]}

config and datasets are the given ones, or those of a goal that was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ltx2core.planning.hardware import GIB, Hardware
from ltx2core.planning.predict import Prediction, predict
from ltx2core.planning.recommend import Recommendation, recommend

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.config.load import LoadedConfig
    from ltx2core.planning.job import Version
    from ltx2core.planning.recommend import Goal

# What is planned where no config is given: the usual run on clips of the size and length that LTX-2 is mostly trained at.
STARTER: dict[str, Any] = {
    "pretrained_model_name_or_path": "Lightricks/LTX-2",
    "max_train_steps": 2000,
    "lora_rank": 32,
    "train_batch_size": 1,
    "base_model_precision": "no_change",
    "validation_resolution": "512x768",
    "validation_num_video_frames": 49,
}
STARTER_CLIPS: list[dict[str, Any]] = [
    {"id": "clips", "instance_data_dir": "clips", "resolution": 512, "video": {"num_frames": 49}, "audio": {}}
]
SCHEMA = 1  # raised when a key changes its meaning or goes


def plan_document(loaded: LoadedConfig, hardware: Hardware, *, goal: Goal | None = None) -> dict[str, Any]:
    """The plan of a config on a machine. goal: whose recommendation config and datasets follow. Raises ConfigError as `predict` does."""
    datasets = loaded.datasets if loaded.datasets.videos else None
    clips, version = count_clips(loaded), version_in_header(loaded)
    prediction = predict(loaded.config, hardware, clips=clips, datasets=datasets, version=version)
    advice = recommend(loaded.config, hardware, clips=clips, datasets=datasets, version=version)
    config, entries = _written(loaded)
    chosen = next((one for one in advice if one.goal == goal), None)
    if chosen is not None:
        config, entries = applied(chosen, config, entries)
        prediction = chosen.prediction
    return {
        "schema": SCHEMA,
        "config": config,
        **({"datasets": entries} if entries else {}),
        "goal": None if chosen is None else goal,
        "hardware": hardware_json(hardware),
        "prediction": prediction_json(prediction),
        "recommendations": [recommendation_json(one) for one in advice],
        "notices": [f"{notice.text} {notice.fix}".strip() for notice in loaded.notices],
    }


def applied(chosen: Recommendation, config: dict[str, Any], entries: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A config and the entries of its dataset list, with what is recommended."""
    trained = ("video", "image", "eval")
    found = []
    for entry in entries:
        own = dict(entry)
        for name, value in chosen.of_datasets.items() if own.get("dataset_type", "video") in trained else ():
            group, _, inner = name.rpartition(".")
            if group:
                own[group] = {**(own.get(group) or {}), inner: value}
            elif value is None:
                own.pop(name, None)
            else:
                own[name] = value
        found.append(own)
    return {**config, **chosen.values}, found


def prediction_json(found: Prediction) -> dict[str, Any]:
    """A prediction as plain JSON values."""
    plan, job = found.plan, found.job
    return {
        "fits": found.fits,
        "misfit": found.misfit,
        "clip": {"width": job.clip.width, "height": job.clip.height, "frames": job.clip.frames, "audio": job.audio, "batch": job.batch},
        "clips": job.clips,
        "steps": job.steps,
        "gpus": job.processes,
        "clips_an_update": job.clips_an_update,
        "step_seconds": round(found.step_seconds, 4),
        "clips_a_second": round(found.clips_a_second, 4),
        "epoch_seconds": None if found.epoch_seconds is None else round(found.epoch_seconds, 1),
        "total_seconds": round(found.total_seconds),
        "seconds_range": [round(one) for one in found.seconds_range],
        "vram_bytes": found.vram_bytes,
        "ram_bytes": found.ram_bytes,
        "layout": None
        if plan is None
        else {
            "storage": plan.storage,
            "products": plan.precision,
            "streamed": plan.streamed,
            "slots": plan.slots,
            "kept": plan.kept,
            "attention": plan.attention,
            "inputs_to_host": plan.inputs_to_host,
            "turned": plan.turned,
        },
        "phases": [
            {
                "name": phase.name,
                "vram_bytes": phase.vram_bytes,
                "ram_bytes": phase.ram_bytes,
                "seconds": None if phase.seconds is None else round(phase.seconds, 1),
                "vram": phase.vram,
                "ram": phase.ram,
            }
            for phase in found.phases
        ],
        "because": list(found.because),
    }


def recommendation_json(one: Recommendation) -> dict[str, Any]:
    """A recommendation as plain JSON values."""
    return {
        "goal": one.goal,
        "values": one.values,
        "of_datasets": one.of_datasets,
        "why": list(one.why),
        "binds": one.binds,
        "next_card": one.next_card,
        "prediction": prediction_json(one.prediction),
    }


def hardware_json(hardware: Hardware) -> dict[str, Any]:
    """The machine as plain JSON values."""
    return {
        "card": hardware.card,
        "cards": hardware.cards,
        "memory_gib": round(hardware.memory_bytes / GIB, 2),
        "free_bytes": hardware.free_bytes,
        "ram_bytes": hardware.ram_bytes,
        "capability": None if hardware.capability is None else list(hardware.capability),
        "rates": hardware.rates.as_json(),
        "correction": hardware.correction,
    }


def count_clips(loaded: LoadedConfig) -> int | None:
    """Files that are trained on, by their names; None where no folder of them is there."""
    from ltx2core.config.paths import find
    from ltx2core.data.scan import find_clips
    from ltx2core.errors import DatasetError

    found, there = 0, False
    for dataset in loaded.datasets.videos:
        place = find(str(dataset.instance_data_dir), (loaded.base,))
        if place is None:
            continue
        try:
            names, _ = find_clips(place, "image" if dataset.dataset_type == "image" else "video")
        except DatasetError:
            continue
        there = True
        found += min(len(names), dataset.max_num_samples or len(names))
    return found if there else None


def version_in_header(loaded: LoadedConfig) -> Version | None:
    """The version that a checkpoint on this disk says it is; None for a name of the hub, and for what is no checkpoint."""
    from ltx2core.errors import CheckpointError

    file = model_file(loaded.config.pretrained_model_name_or_path, loaded.config.ltx2_checkpoint_filename, loaded.base)
    if file is None:
        return None
    from ltx2core.models.names import version_by_keys
    from ltx2core.models.safetensors_header import read_header

    try:
        metadata, entries = read_header(file)
    except (CheckpointError, OSError):
        return None
    told = (metadata.get("model_version") or version_by_keys(entries))[:3]
    return told if told in ("2.0", "2.3", "2.5") else None  # type: ignore[return-value]


def model_file(name: str, filename: str | None, base: Path) -> Path | None:
    """The checkpoint that a config names, where it is a file on this disk."""
    place = base / name
    for path in (place, place / (filename or "ltx-2-19b-dev.safetensors")):
        if path.is_file() and path.suffix == ".safetensors":
            return path
    return None


def _written(loaded: LoadedConfig) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from ltx2core.config.exchange import own_files

    files = own_files(loaded)
    return files.config, files.datasets
