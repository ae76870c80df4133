"""Encoding and decoding in tiles on nano: on where it was asked for and is needed, of the picture only, and close to the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from engine_fixtures import FPS, write_clip

from ltx2core.caching.passes import CachePass
from ltx2core.caching.store import Store
from ltx2core.data.clip import Bucket, Clip, Sample
from ltx2core.models import components
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.latents import decode_video, encode_video
from ltx2core.models.nano import nano_checkpoint, nano_text_encoder
from ltx2core.models.vae_levers import OVERLAP, SPATIAL, TILE, VaeLevers, tile_and_stride
from ltx2core.validation.media import decode
from ltx2core.validation.sampling import SampledLatents

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn

TILED = VaeLevers(tiling=True)
WIDTH, HEIGHT, FRAMES = 544, 64, 9  # 17 latents wide: one more than a tile


@pytest.fixture(scope="module")
def vae() -> nn.Module:
    return components.load_video_vae(open_checkpoint(nano_checkpoint()), dtype=torch.float32)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    """A disc that moves over a ramp: [1, 3, F, H, W]."""
    x, y = torch.linspace(-1, 1, WIDTH), torch.linspace(-1, 1, HEIGHT)[:, None]
    frames = [torch.stack([x.expand(HEIGHT, -1), y.expand(-1, WIDTH), torch.zeros(HEIGHT, WIDTH)]) * 0.6 for _ in range(FRAMES)]
    for index, frame in enumerate(frames):
        inside = ((x - index / FRAMES + 0.5) * WIDTH / HEIGHT) ** 2 + y**2 < 0.3
        frame[:, inside] = torch.tensor([0.8, -0.5, -0.5])[:, None]
    return torch.stack(frames, dim=1)[None]


def _shapes_seen(part: nn.Module, work: Callable[[], object]) -> list[tuple[int, ...]]:
    """What `part` was called with: [frames, height, width] of each call."""
    seen: list[tuple[int, ...]] = []
    hook = part.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[2:])))
    try:
        work()
    finally:
        hook.remove()
    return seen


def test_a_clip_wider_than_a_tile_is_encoded_in_two_of_all_its_frames(vae: nn.Module, pixels: Tensor) -> None:
    assert _shapes_seen(vae.encoder, lambda: encode_video(vae, pixels)) == [(FRAMES, HEIGHT, WIDTH)]
    tiles = _shapes_seen(vae.encoder, lambda: encode_video(vae, pixels, levers=TILED))
    assert tiles == [(FRAMES, HEIGHT, 11 * SPATIAL), (FRAMES, HEIGHT, 8 * SPATIAL)]
    assert _shapes_seen(vae.encoder, lambda: encode_video(vae, pixels[..., :512], levers=TILED)) == [(FRAMES, HEIGHT, 512)]
    assert _shapes_seen(vae.encoder, lambda: encode_video(vae, pixels)) == [(FRAMES, HEIGHT, WIDTH)]  # off again


def test_tiles_give_nearly_the_latents_and_pixels_of_the_whole(vae: nn.Module, pixels: Tensor) -> None:
    whole, tiled = encode_video(vae, pixels), encode_video(vae, pixels, levers=TILED)
    assert tiled.shape == whole.shape
    assert 0 < float((tiled - whole).square().mean()) < 0.02 * float(whole.square().mean())
    seen = _shapes_seen(vae.decoder, lambda: decode_video(vae, whole, levers=TILED))
    assert seen == [(2, 2, 11), (2, 2, 8)]
    shown, cut = decode_video(vae, whole), decode_video(vae, whole, levers=TILED)
    assert cut.shape == shown.shape == pixels.shape
    assert 0 < float((cut - shown).square().mean()) < 4e-4  # a PSNR of 40 dB


def test_tiles_of_any_side_are_large_enough_to_pad_and_cover_it() -> None:
    for side in range(1, 141):  # 4480 pixels
        tile, stride = tile_and_stride(side)
        assert tile <= TILE
        starts = range(0, side, stride)  # as diffusers steps
        if side <= TILE:
            assert (tile, len(starts)) == (side, 1)
            continue
        assert tile - stride == OVERLAP
        assert min(side, starts[-1] + tile) == side
        assert side - starts[-1] >= 4


def test_a_side_that_fits_in_a_tile_is_left_whole_beside_one_that_does_not(vae: nn.Module) -> None:
    latents = torch.zeros(1, vae.config.latent_channels, 1, 15, 17)
    assert _shapes_seen(vae.decoder, lambda: decode_video(vae, latents, levers=TILED)) == [(1, 15, 11), (1, 15, 8)]


def test_the_cache_encodes_in_tiles_when_asked_and_under_another_name_only_what_is_tiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "clip.mp4", seed=0, sound=False)

    def samples() -> list[Sample]:
        clip = Clip(path=path, width=64, height=64, frames=FRAMES, fps=FPS, seconds=FRAMES / FPS)
        buckets = (Bucket(width=WIDTH, height=HEIGHT, frames=FRAMES), Bucket(width=64, height=64, frames=FRAMES))
        return [Sample(clip=clip, bucket=bucket, fps=FPS, captions=("a square",)) for bucket in buckets]

    seen: list[tuple[int, ...]] = []
    real = components.load_video_vae

    def watched(*args: object, **kwargs: object) -> nn.Module:
        module: nn.Module = real(*args, **kwargs)  # type: ignore[arg-type]
        module.encoder.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[2:])))  # type: ignore[union-attr]
        return module

    monkeypatch.setattr(components, "load_video_vae", watched)
    names = {}
    for tiled in (True, False):
        cached = CachePass(
            store=Store(tmp_path / "cache"),
            checkpoint=open_checkpoint(nano_checkpoint()),
            text_encoder=nano_text_encoder(),
            device=torch.device("cpu"),
            dtype=torch.float32,
            emit=lambda _: None,
            levers=VaeLevers(tiling=tiled),
        ).run(samples(), audio=False)
        names[tiled] = [clip.video for clip in cached.clips]
    assert seen == [(FRAMES, 64, 11 * 32), (FRAMES, 64, 8 * 32), (FRAMES, 64, 64), (FRAMES, 64, WIDTH)]
    assert names[True][0] != names[False][0]
    assert names[True][1] == names[False][1]


def test_a_sample_is_decoded_in_tiles_when_asked(monkeypatch: pytest.MonkeyPatch, vae: nn.Module) -> None:
    monkeypatch.setattr("ltx2core.validation.media.load_video_vae", lambda *_args, **_kwargs: vae)
    latents = SampledLatents(video=torch.zeros(1, vae.config.latent_channels, 2, 2, 17), audio=None)
    for tiled, calls in ((True, 2), (False, 1)):

        def work(tiled: bool = tiled) -> None:
            media = decode(
                open_checkpoint(nano_checkpoint()), latents, device=torch.device("cpu"), dtype=torch.float32, levers=VaeLevers(tiling=tiled)
            )
            assert media.frames.shape == (FRAMES, HEIGHT, WIDTH, 3)

        assert len(_shapes_seen(vae.decoder, work)) == calls


def test_the_key_reaches_the_sample() -> None:
    from ltx2core.config.train import TrainConfig
    from ltx2core.training.settings import sample_settings

    assert sample_settings(TrainConfig(vae_enable_tiling=True), audio=False).levers == TILED
    assert sample_settings(TrainConfig(), audio=False).levers == VaeLevers()
