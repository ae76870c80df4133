"""Our use of diffusers against outputs of Lightricks' own code on a tiny random 2.0 model (tests/data/reference)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from ltx2core.models import components, latents
from ltx2core.models.checkpoint import Checkpoint, open_checkpoint
from ltx2core.models.forward import predict_velocity, video_positions
from ltx2core.models.text import TextEmbedding

FOLDER = Path(os.environ.get("LTX2_REFERENCE_DIR", Path(__file__).parent.parent / "data" / "reference"))
F32 = torch.float32


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return open_checkpoint(FOLDER / "ltx-2.0-tiny.safetensors")


@pytest.fixture(scope="module")
def io() -> dict[str, Tensor]:
    with safe_open(FOLDER / "ltx-2.0-tiny.io.safetensors", framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict


def assert_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert found.shape == expected.shape
    error = float((found - expected).abs().max() / expected.abs().max())
    assert error <= tolerance, f"relative error {error:.1e} > {tolerance:.0e}"


@pytest.mark.parametrize("case", ["t2v_shared", "t2v_independent", "i2v", "i2v_one_of_two", "a2v", "v2a", "mixed_fps", "video_only"])
def test_the_transformer_predicts_what_the_official_one_predicts(checkpoint: Checkpoint, io: dict[str, Tensor], case: str) -> None:
    audio = case != "video_only"
    transformer = components.load_transformer(checkpoint, dtype=F32, audio=audio)
    assert all((name in dict(transformer.named_parameters())) == audio for name in ("transformer_blocks.0.audio_attn1.to_q.weight",))
    given = {key.removeprefix(f"a.{case}."): value for key, value in io.items() if key.startswith(f"a.{case}.")}
    fps = torch.tensor([24.0, 30.0]) if case == "mixed_fps" else torch.full((2,), 24.0)
    assert_close(video_positions(transformer, (4, 2, 3), fps), given["video.positions"], 1e-6)
    found_video, found_audio = predict_velocity(
        transformer,
        video=given["video.latent"],
        video_timesteps=given["video.timesteps"],
        video_sigma=given["video.sigma"],
        audio=given.get("audio.latent"),
        audio_timesteps=given.get("audio.timesteps"),
        audio_sigma=given.get("audio.sigma"),
        text=TextEmbedding(io["a.context.video"], io["a.context.audio"]),
        grid=(4, 2, 3),
        fps=fps,
    )
    assert_close(found_video, given["out.video"], 1e-4)
    if audio:
        assert found_audio is not None
        assert_close(found_audio, given["out.audio"], 1e-4)
    else:
        assert found_audio is None


def test_connectors_give_the_official_text_embeddings(checkpoint: Checkpoint, io: dict[str, Tensor]) -> None:
    connectors = components.load_connectors(checkpoint, dtype=F32)
    video, audio, _ = connectors(io["b.hidden_states"], io["b.attention_mask"])
    assert_close(video, io["b.embeds.video"], 1e-5)
    assert_close(audio, io["b.embeds.audio"], 1e-5)


def test_video_encodes_and_decodes_as_the_official_vae_does(checkpoint: Checkpoint, io: dict[str, Tensor]) -> None:
    vae = components.load_video_vae(checkpoint, dtype=F32)
    pixels = io["c.pixels_uint8"] / 127.5 - 1
    assert_close(latents.encode_video(vae, pixels), io["c.latents_17"], 1e-5)
    assert_close(latents.encode_video(vae, pixels[:, :, :9]), io["c.latents_9"], 1e-5)
    assert_close(latents.decode_video(vae, io["c.latents_9"]), io["c.decoded_9"].clamp(-1, 1), 1e-4)


def test_sound_encodes_and_decodes_as_the_official_audio_vae_does(checkpoint: Checkpoint, io: dict[str, Tensor]) -> None:
    audio_vae, vocoder = components.load_audio_vae(checkpoint, dtype=F32), components.load_vocoder(checkpoint, dtype=F32)
    assert_close(latents.log_mel(io["d.waveform"]), io["d.mel"], 1e-5)
    assert_close(latents.encode_sound(audio_vae, io["d.waveform"], steps=26), io["d.latents"], 1e-5)
    waveform, rate = latents.decode_sound(audio_vae, vocoder, io["d.latents"][:, :, :13])
    assert rate == 24000
    assert_close(waveform, io["d.decoded_waveform"], 1e-4)


def test_header_and_cases_agree(checkpoint: Checkpoint) -> None:
    with safe_open(FOLDER / "ltx-2.0-tiny.io.safetensors", framework="pt") as file:
        assert "a" in json.dumps(json.loads(file.metadata()["cases"]))
    assert checkpoint.version.startswith("2.0")
