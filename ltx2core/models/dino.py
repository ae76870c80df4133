"""DINOv2 as an image encoder: finding its weights on this machine, and the features of a clip's patches. Nothing is downloaded.

transformers' model is the code. Frames keep their shape: they are made as large as holds so many patches, and positions are interpolated.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ltx2core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

REPOSITORIES = {
    "dinov2_vits14": "facebook/dinov2-small",
    "dinov2_vitb14": "facebook/dinov2-base",
    "dinov2_vitl14": "facebook/dinov2-large",
    "dinov2_vitg14": "facebook/dinov2-giant",
}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which DINOv2 was trained with
_FILES = ("config.json", "model.safetensors")


def find_encoder(name: str, *, bases: Sequence[Path] = ()) -> Path:
    """The folder with a DINOv2 model: one of that name, else a repository's in the hub's cache. Raises ConfigError when there is none."""
    for folder in (Path(name), *(base / name for base in bases)):
        if folder.is_dir():
            if missing := [file for file in _FILES if not (folder / file).is_file()]:
                raise ConfigError(
                    [f"crepa_encoder = {name}: the folder {folder} lacks {' and '.join(missing)}."],
                    fix="Name a folder with a DINOv2 model as transformers saves it.",
                )
            return folder
    repository = REPOSITORIES.get(name, name if "/" in name else None)
    if repository is None:
        raise ConfigError(
            [f"crepa_encoder = {name}: there is no such folder, and no such DINOv2."],
            fix=f"Use one of {', '.join(REPOSITORIES)}, or name a folder.",
        )
    cached = _cached(repository)
    if cached is None:
        raise ConfigError(
            [f"crepa_encoder = {name}: {repository} is not in the hub's cache on this machine, and CREPA needs it."],
            fix=f"Run `hf download {repository} {' '.join(_FILES)}`, name a folder with it, or set crepa_feature_source to backbone.",
        )
    return cached


def _cached(repository: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(repository, file) for file in _FILES]
    return Path(found[0]).parent if all(isinstance(path, str) for path in found) else None  # type: ignore[arg-type]


class PatchEncoder:
    """A DINOv2 on a device. side: of the square whose patches a frame has as many of."""

    def __init__(self, folder: Path, *, side: int, frames_at_once: int, dtype: torch.dtype, device: torch.device) -> None:
        from transformers import Dinov2Model

        try:
            self._model: Any = Dinov2Model.from_pretrained(folder, dtype=dtype, local_files_only=True).to(device).eval()
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError([f"crepa_encoder: {folder} cannot be loaded: {error}"], fix="Name a DINOv2 model's folder.") from error
        self.width = int(self._model.config.hidden_size)
        self._patch = int(self._model.config.patch_size)
        self._side, self._at_once, self._dtype = side, frames_at_once, dtype
        self._mean, self._std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (_MEAN, _STD))

    @torch.no_grad()
    def of_clip(self, frames: Tensor, *, grid: tuple[int, int, int]) -> Tensor:
        """Features of latent tokens: float32 [f h w, D]. frames: uint8 [F, H, W, 3]; grid: f, h, w of the latents.

        A latent frame has the mean of its pixel frames, the first one alone, then eight each; a latent's place the mean of the patches
        over it. Patches are of length 1 before that, so that each counts alike.
        """
        latent_frames, height, width = grid
        parts = [self._patches(part, grid=(height, width)) for part in torch.split(frames, self._at_once)]
        each = torch.cat(parts)  # [F, h w, D]
        first, rest = each[:1], each[1:]
        if latent_frames == 1:
            return first.flatten(0, 1)
        later = rest.view(latent_frames - 1, -1, *rest.shape[1:]).mean(dim=1)
        return torch.cat([first, later]).flatten(0, 1)

    def _patches(self, frames: Tensor, *, grid: tuple[int, int]) -> Tensor:
        """[F, h w, D] of frames uint8 [F, H, W, 3]."""
        rows, columns = patch_grid(height=frames.shape[1], width=frames.shape[2], side=self._side, patch=self._patch)
        pictures = frames.permute(0, 3, 1, 2).float() / 255
        size = (rows * self._patch, columns * self._patch)
        pictures = nn.functional.interpolate(pictures, size=size, mode="bicubic", antialias=True).clamp(0, 1)
        found = self._model(pixel_values=((pictures - self._mean) / self._std).to(self._dtype)).last_hidden_state[:, 1:]
        patches = nn.functional.normalize(found.float(), dim=-1).transpose(1, 2)
        patches = patches.reshape(*patches.shape[:2], rows, columns)
        if rows >= grid[0] and columns >= grid[1]:
            pooled = nn.functional.adaptive_avg_pool2d(patches, grid)
        else:
            pooled = nn.functional.interpolate(patches, size=grid, mode="bilinear")
        return pooled.flatten(2).transpose(1, 2)


def patch_grid(*, height: int, width: int, side: int, patch: int) -> tuple[int, int]:
    """Rows and columns of patches of a frame's shape, about as many as a square of that side has."""
    across = side / patch
    shape = math.sqrt(width / height)
    return max(1, round(across / shape)), max(1, round(across * shape))
