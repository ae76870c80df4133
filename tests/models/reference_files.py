"""What Lightricks' own code computed on tiny random checkpoints (tests/data/reference, or the folder that LTX2_REFERENCE_DIR names).

Sizes, seeds and cases are read from the files' headers, so that the same tests run on files of other sizes and seeds.
"""

from __future__ import annotations

import json
import os
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open

from ltx2core.models import components
from ltx2core.models.checkpoint import Checkpoint, open_checkpoint
from ltx2core.models.forward import predict_velocity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusers import LTX2VideoTransformer3DModel
    from torch import Tensor

    from ltx2core.models.text import TextEmbedding

FOLDER = Path(os.environ.get("LTX2_REFERENCE_DIR", Path(__file__).parent.parent / "data" / "reference"))
F32 = torch.float32


class Reference:
    """The files of one version: its checkpoint, the recorded inputs and outputs, and a LoRA."""

    def __init__(self, io_file: Path) -> None:
        self.io_file = io_file
        self.name = io_file.name.removesuffix(".io.safetensors")

    def __repr__(self) -> str:
        return self.name

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return open_checkpoint(self.io_file.with_name(f"{self.name}.safetensors"))

    @cached_property
    def cases(self) -> dict[str, Any]:
        with safe_open(self.io_file, framework="pt") as file:
            found: dict[str, Any] = json.loads(file.metadata()["cases"])
        return found

    @cached_property
    def io(self) -> dict[str, Tensor]:
        return read(self.io_file)

    @cached_property
    def lora(self) -> dict[str, Tensor]:
        return read(self.io_file.with_name(f"{self.name}.lora.safetensors"))

    @property
    def grid(self) -> tuple[int, int, int]:
        """Latent frames, rows and columns of the cases of groups a, g and h."""
        frames, height, width = self.cases["a"]["grid"]
        return frames, height, width

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with that, without it."""
        return {key.removeprefix(prefix): value for key, value in self.io.items() if key.startswith(prefix)}


def read(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict


REFERENCES = [Reference(path) for path in sorted(FOLDER.glob("*.io.safetensors"))]


@lru_cache(maxsize=9)
def transformer_of(reference: Reference, *, video: bool = True, audio: bool = True) -> LTX2VideoTransformer3DModel:
    return components.load_transformer(reference.checkpoint, dtype=F32, video=video, audio=audio)


each_version = pytest.mark.parametrize("reference", REFERENCES, ids=repr)


def each_case(group: str) -> list[Any]:
    """pytest parameters: every version with every case of a group."""
    return [pytest.param(reference, case, id=f"{reference}-{case}") for reference in REFERENCES for case in reference.cases[group]["cases"]]


def assert_close(found: Tensor | None, expected: Tensor, tolerance: float) -> None:
    """The largest difference, as a part of the largest value."""
    assert found is not None
    assert found.shape == expected.shape
    error = float((found.detach() - expected).abs().max() / expected.abs().max())
    assert error <= tolerance, f"relative error {error:.1e} > {tolerance:.0e}"


def predict(
    transformer: LTX2VideoTransformer3DModel, given: Mapping[str, Tensor], text: TextEmbedding, grid: tuple[int, int, int]
) -> tuple[Tensor | None, Tensor | None]:
    """The velocities for recorded inputs. A recorded case without a keyframes mask is one where the official code got none."""
    if "video.latent" not in given:
        return predict_velocity(
            transformer,
            audio=given["audio.latent"],
            audio_timesteps=given["audio.timesteps"],
            audio_sigma=given["audio.sigma"],
            text=text,
        )
    video = given["video.latent"]
    return predict_velocity(
        transformer,
        video=video,
        video_timesteps=given["video.timesteps"],
        video_sigma=given["video.sigma"],
        audio=given.get("audio.latent"),
        audio_timesteps=given.get("audio.timesteps"),
        audio_sigma=given.get("audio.sigma"),
        text=text,
        grid=grid,
        fps=rates(given),
        keyframes=given.get("video.keyframes_mask", torch.zeros(*video.shape[:2], 1)),
    )


def rates(given: Mapping[str, Tensor]) -> Tensor:
    """Frames a second of each sample: the first latent frame is one frame long."""
    return (1 / given["video.positions"][:, 0, 0, 1]).round(decimals=3)
