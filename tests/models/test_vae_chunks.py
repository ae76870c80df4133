"""The chunked levers give what the whole VAE gives, hold less while they do, and leave the module as it was."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from diffusers import AutoencoderKLLTX2Video

from ltx2core.config.train import TrainConfig
from ltx2core.models import components, header, vae_chunks
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.latents import decode_video, encode_video
from ltx2core.models.nano import nano_checkpoint
from ltx2core.models.released import released_config
from ltx2core.models.vae_chunks import chunked, unit_range
from ltx2core.models.vae_levers import VaeLevers
from ltx2core.training.settings import sample_settings

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor

PATCH, ROLL, BOTH = VaeLevers(patch_conv=True), VaeLevers(temporal_roll=True), VaeLevers(patch_conv=True, temporal_roll=True)
HEIGHT, WIDTH = 64, 96


def released_vae(version: str, *, narrower: int = 8, decoder_causal: bool = False) -> AutoencoderKLLTX2Video:
    """A release's structure with one layer a block and random weights; all widths divided by `narrower`."""
    arguments = header.video_vae_arguments(released_config(version))
    for name in ("layers_per_block", "decoder_layers_per_block"):
        arguments[name] = (1,) * len(arguments[name])
    for name in ("block_out_channels", "decoder_block_out_channels"):
        arguments[name] = tuple(width // narrower for width in arguments[name])
    torch.manual_seed(0)
    latent_channels = arguments["latent_channels"] // narrower
    vae = AutoencoderKLLTX2Video(**arguments | {"latent_channels": latent_channels, "decoder_causal": decoder_causal})
    return vae.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=["nano", "2.0.0", "2.3.0", "2.0.0 with a causal decoder"])
def vae(request: pytest.FixtureRequest) -> AutoencoderKLLTX2Video:
    if request.param == "nano":
        return components.load_video_vae(open_checkpoint(nano_checkpoint()), dtype=torch.float32)
    return released_vae(request.param[:5], decoder_causal="causal" in request.param)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of one or two frames and patches of a few rows, at the size of these clips."""
    monkeypatch.setattr(vae_chunks, "WINDOW_BYTES", 1 << 16)
    monkeypatch.setattr(vae_chunks, "PATCH_BYTES", 1 << 14)
    monkeypatch.setattr(vae_chunks, "DECODED_LATENTS", 1)


def clip(frames: int, *, batch: int = 1) -> Tensor:
    return torch.randint(0, 256, (batch, 3, frames, HEIGHT, WIDTH), dtype=torch.uint8, generator=torch.Generator().manual_seed(frames))


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("levers", [PATCH, ROLL, BOTH], ids=["patch_conv", "temporal_roll", "both"])
@pytest.mark.parametrize("frames", [1, 9, 41])
@pytest.mark.usefixtures("small_windows")
def test_clips_in_pieces_are_encoded_and_decoded_as_at_once(vae: AutoencoderKLLTX2Video, levers: VaeLevers, frames: int) -> None:
    pixels = clip(frames, batch=2)
    latents = encode_video(vae, pixels)
    assert distance(encode_video(vae, pixels, levers=levers), latents) < 1e-5
    assert distance(decode_video(vae, latents, levers=levers), decode_video(vae, latents)) < 1e-5


@pytest.mark.parametrize("levers", [PATCH, ROLL, BOTH], ids=["patch_conv", "temporal_roll", "both"])
def test_with_windows_of_the_shipped_size_too(vae: AutoencoderKLLTX2Video, levers: VaeLevers) -> None:
    pixels = clip(41)
    latents = encode_video(vae, pixels)
    assert distance(encode_video(vae, pixels, levers=levers), latents) < 1e-5
    assert distance(decode_video(vae, latents, levers=levers), decode_video(vae, latents)) < 1e-5


@pytest.mark.usefixtures("small_windows")
def test_at_the_released_widths_in_bf16_pieces_differ_as_little_as_rounding_does() -> None:
    exact = released_vae("2.3.0", narrower=1)
    pixels = clip(9)
    expected = encode_video(exact, pixels)
    assert distance(encode_video(exact, pixels, levers=BOTH), expected) < 1e-5
    rounded = exact.to(torch.bfloat16)
    at_once = encode_video(rounded, pixels)
    rounding = float((at_once - expected).square().mean().sqrt())
    for levers in (PATCH, ROLL, BOTH):
        found = encode_video(rounded, pixels, levers=levers)
        assert float((found - at_once).square().mean().sqrt()) <= 1.5 * rounding
        assert float((found - expected).square().mean().sqrt()) <= 1.2 * rounding


@pytest.mark.usefixtures("small_windows")
def test_tiles_and_slices_go_together_with_pieces(vae: AutoencoderKLLTX2Video) -> None:
    pixels = torch.cat([clip(9, batch=2)] * 6, dim=4)  # 18 latents wide
    everything = VaeLevers(tiling=True, slicing=True, patch_conv=True, temporal_roll=True)
    tiled = VaeLevers(tiling=True)
    latents = encode_video(vae, pixels, levers=tiled)
    assert distance(encode_video(vae, pixels, levers=everything), latents) < 1e-5
    assert distance(decode_video(vae, latents, levers=everything), decode_video(vae, latents, levers=tiled)) < 1e-5


def test_slicing_encodes_the_clips_of_a_batch_one_by_one() -> None:
    vae = released_vae("2.3.0")
    seen: list[int] = []
    vae.encoder.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    together = encode_video(vae, clip(9, batch=3))
    sliced = encode_video(vae, clip(9, batch=3), levers=VaeLevers(slicing=True))
    assert seen == [3, 1, 1, 1]
    assert distance(sliced, together) < 1e-5
    encode_video(vae, clip(9, batch=3))
    assert seen[4:] == [3]  # off again


@pytest.mark.usefixtures("small_windows")
def test_the_module_is_left_as_found_also_after_an_error() -> None:
    vae = released_vae("2.0.0")
    with pytest.raises(ValueError, match="cannot be divided by a stride of 2"), chunked(vae, patch_conv=False, temporal_roll=True):
        vae.encode(clip(12))
    with pytest.raises(ValueError, match="cannot be divided by a stride of 2"), chunked(vae, patch_conv=True, temporal_roll=False):
        vae.encode(clip(12))
    assert not [name for name, module in vae.named_modules() if "forward" in vars(module)]
    assert not vae.use_tiling
    assert not vae.use_slicing


def test_bytes_and_floats_give_the_same_latents() -> None:
    vae, pixels = released_vae("2.3.0"), clip(9)
    for levers in (VaeLevers(), PATCH, ROLL):
        found = encode_video(vae, unit_range(pixels, torch.float32), levers=levers)
        assert torch.equal(found, encode_video(vae, pixels, levers=levers))


def test_a_vae_that_injects_noise_is_refused() -> None:
    arguments = header.video_vae_arguments(released_config("2.0.0")) | {"decoder_inject_noise": (True,) * 4}
    with torch.device("meta"):
        vae = AutoencoderKLLTX2Video(**arguments)
    with pytest.raises(ValueError, match="injects noise"), chunked(vae, patch_conv=True, temporal_roll=False):
        pass


def test_one_half_is_loaded_without_the_other_and_does_the_same() -> None:
    checkpoint = open_checkpoint(nano_checkpoint())
    whole = components.load_video_vae(checkpoint, dtype=torch.float32)
    encoder = components.load_video_vae(checkpoint, dtype=torch.float32, half="encoder")
    decoder = components.load_video_vae(checkpoint, dtype=torch.float32, half="decoder")
    assert encoder.decoder is None
    assert decoder.encoder is None
    for levers in (VaeLevers(), BOTH):
        latents = encode_video(whole, clip(9), levers=levers)
        assert torch.equal(encode_video(encoder, clip(9), levers=levers), latents)
        assert torch.equal(decode_video(decoder, latents, levers=levers), decode_video(whole, latents, levers=levers))


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vae_memory", Path(__file__).parent.parent / "benchmarks" / "vae_memory.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["vae_memory"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize(("half", "patched", "rolled"), [("encode", 0.7, 0.25), ("decode", 0.6, 0.45)])
def test_fewer_bytes_are_alive_at_once(benchmark: ModuleType, half: str, patched: float, rolled: float) -> None:
    vae, pixels = released_vae("2.0.0", narrower=4), clip(65)
    latents = encode_video(vae, pixels)
    peaks = {}
    for levers in (VaeLevers(), PATCH, ROLL):
        with benchmark.LiveBytes() as live:
            encode_video(vae, pixels, levers=levers) if half == "encode" else decode_video(vae, latents, levers=levers)
        peaks[levers] = live.peak
    assert peaks[PATCH] < patched * peaks[VaeLevers()]
    assert peaks[ROLL] < rolled * peaks[VaeLevers()]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_holds_less_and_computes_the_same() -> None:
    vae = released_vae("2.3.0", narrower=1).to("cuda", torch.bfloat16)
    pixels = torch.randint(0, 256, (1, 3, 49, 512, 768), dtype=torch.uint8)
    found, peaks = {}, {}
    for levers in (VaeLevers(), PATCH, ROLL):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        found[levers] = encode_video(vae, pixels, levers=levers)
        peaks[levers] = torch.cuda.max_memory_allocated()
    assert peaks[ROLL] < peaks[PATCH] < peaks[VaeLevers()]
    for levers in (PATCH, ROLL):
        assert float((found[levers] - found[VaeLevers()]).square().mean().sqrt()) < 0.02 * float(found[levers].square().mean().sqrt())


def test_the_keys_reach_the_levers() -> None:
    config = TrainConfig(vae_enable_patch_conv=True, vae_enable_slicing=True)
    assert sample_settings(config, audio=False).levers == VaeLevers(patch_conv=True, slicing=True)
    assert sample_settings(TrainConfig(vae_enable_temporal_roll=True), audio=False).levers == ROLL
