"""Features of patches: which pixel frames a latent frame stands for, the shape of frames, and an encoder that is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from tiny_dino import save_tiny_dino

from ltx2core.errors import ConfigError
from ltx2core.models.dino import PatchEncoder, find_encoder, patch_grid

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PatchEncoder:
    folder = save_tiny_dino(tmp_path_factory.mktemp("dino"))
    return PatchEncoder(folder, side=56, frames_at_once=4, dtype=torch.float32, device=torch.device("cpu"))


def _frames(count: int, *, height: int = 64, width: int = 96) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 255, (count, height, width, 3), generator=generator, dtype=torch.uint8)


def test_a_latent_frame_has_the_mean_of_its_own_pixel_frames(encoder: PatchEncoder) -> None:
    frames = _frames(17)
    found = encoder.of_clip(frames, grid=(3, 2, 3)).view(3, 6, 32)
    alone = torch.stack([encoder.of_clip(frame[None], grid=(1, 2, 3)) for frame in frames])
    for latent, span in enumerate([slice(0, 1), slice(1, 9), slice(9, 17)]):
        torch.testing.assert_close(found[latent], alone[span].mean(dim=0), rtol=1e-4, atol=1e-5)


def test_places_are_those_of_the_picture(encoder: PatchEncoder) -> None:
    """A change in one corner changes the features there most, and the picture is not turned or mirrored."""
    frames = _frames(1)
    other = frames.clone()
    other[:, :32, 64:] = 255 - other[:, :32, 64:]
    moved = (encoder.of_clip(frames, grid=(1, 2, 3)) - encoder.of_clip(other, grid=(1, 2, 3))).norm(dim=1)
    assert int(moved.argmax()) == 2  # above, right


def test_patches_are_not_one_vector_a_frame(encoder: PatchEncoder) -> None:
    found = encoder.of_clip(_frames(1), grid=(1, 2, 3))
    assert float((found - found.mean(dim=0)).norm(dim=1).min()) > 0.01


def test_frames_keep_their_shape_with_about_as_many_patches() -> None:
    assert patch_grid(height=512, width=512, side=518, patch=14) == (37, 37)
    assert patch_grid(height=512, width=768, side=518, patch=14) == (30, 45)
    rows, columns = patch_grid(height=1280, width=704, side=224, patch=14)
    assert rows > columns
    assert abs(rows * columns - 256) < 20


def test_an_encoder_that_is_not_there_is_told_with_what_would_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"facebook/dinov2-giant is not in the hub's cache") as error:
        find_encoder("dinov2_vitg14")
    assert "hf download facebook/dinov2-giant" in str(error.value.fix)
    with pytest.raises(ConfigError, match="no such DINOv2"):
        find_encoder("dinov3")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"lacks config.json and model.safetensors"):
        find_encoder("empty", bases=(tmp_path,))
    assert find_encoder("dino", bases=(save_tiny_dino(tmp_path / "dino").parent,)) == tmp_path / "dino"
