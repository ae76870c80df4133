"""Building settings without a file: what the wizard's answers and the demo come to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ltx2core.config.load import LoadedConfig, load_config_dict

if TYPE_CHECKING:
    from collections.abc import Mapping


def config_for_folder(
    folder: Path,
    *,
    model: str = "nano",
    text_encoder: str | None = None,
    prompt: str | None = None,
    resolution: int = 512,
    num_frames: int = 49,
    frame_rate: float = 25.0,
    steps: int = 2000,
    rank: int = 32,
    repeats: int = 0,
    audio: bool = True,
    sample_size: tuple[int, int] | None = None,
    more: Mapping[str, object] | None = None,
    more_of_dataset: Mapping[str, object] | None = None,
) -> LoadedConfig:
    """Settings that train a LoRA on one folder of clips; sizes that LTX-2 cannot take become the nearest, with a Notice.

    resolution: shorter edge in pixels. sample_size: (height, width) of samples, a square of `resolution` if None. `more` and
    `more_of_dataset` hold further keys of config.json and of the dataset's entry. Raises ConfigError, as for a file.
    """
    height, width = sample_size or (resolution, resolution)
    values: dict[str, object] = {
        "model_family": "ltxvideo2",
        "model_type": "lora",
        "pretrained_model_name_or_path": model,
        "pretrained_gemma_model_name_or_path": text_encoder,
        "max_train_steps": steps,
        "lora_rank": rank,
        "frame_rate": frame_rate,
        "validation_prompt": prompt,
        "validation_resolution": f"{height}x{width}",
        "validation_num_video_frames": num_frames,
    }
    dataset: dict[str, object] = {
        "id": "clips",
        "instance_data_dir": str(folder),
        "resolution": resolution,
        "repeats": repeats,
        "video": {"num_frames": num_frames},
        "audio": {} if audio else None,
    }
    return load_config_dict(values | dict(more or {}), base=Path.cwd(), datasets=[dataset | dict(more_of_dataset or {})])
