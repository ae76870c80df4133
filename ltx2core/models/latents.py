"""Between pixels or sound and the normalised latents that the transformer sees. diffusers' VAEs do not normalise: the caller must."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ltx2core.data.clip import AUDIO_LATENTS_PER_SECOND
from ltx2core.models.vae_chunks import unit_range
from ltx2core.models.vae_levers import SPATIAL, VaeLevers, levers_on

if TYPE_CHECKING:
    from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder, LTX2VocoderWithBWE

TEMPORAL = 8  # frames a latent
SAMPLE_RATE = 16000  # of the sound that the audio VAE encodes
_N_FFT, _HOP, _MELS, _MAX_HZ = 1024, 160, 64, 8000.0
_LOG_FLOOR = 1e-5
NO_LEVERS = VaeLevers()


def latent_grid(*, width: int, height: int, frames: int) -> tuple[int, int, int]:
    """(latent frames, rows, columns) of a clip. Raises ValueError unless sizes are multiples of 32 and frames are 8k + 1."""
    if width % SPATIAL or height % SPATIAL or frames % TEMPORAL != 1 or min(width, height, frames) <= 0:
        raise ValueError(f"expected multiples of {SPATIAL} and {TEMPORAL}k + 1 frames, got {width}x{height}@{frames}")
    return (frames - 1) // TEMPORAL + 1, height // SPATIAL, width // SPATIAL


def audio_steps_for(seconds: float) -> int:
    """How many audio latents accompany a clip of that length: 25 a second, at least one."""
    return max(1, round(seconds * AUDIO_LATENTS_PER_SECOND))


@torch.no_grad()
def encode_video(vae: AutoencoderKLLTX2Video, pixels: Tensor, *, levers: VaeLevers = NO_LEVERS) -> Tensor:
    """Normalised latents [B, C, f, h, w], float32, on the VAE's device: the posterior's mode.

    pixels: [B, 3, F, H, W], -1..1 or uint8 0..255, F = 8k + 1, H and W multiples of 32. Raises ValueError for other sizes.
    """
    latent_grid(width=pixels.shape[-1], height=pixels.shape[-2], frames=pixels.shape[-3])
    pixels = pixels.to(vae.device, non_blocking=True)
    if pixels.dtype != torch.uint8:
        pixels = pixels.to(vae.dtype)
    elif not levers.patch_conv and not levers.temporal_roll:  # these take bytes, so that no layer's input is held beside them
        pixels = unit_range(pixels, vae.dtype)
    with levers_on(vae, levers, rows=pixels.shape[-2] // SPATIAL, columns=pixels.shape[-1] // SPATIAL):
        latents: Tensor = vae.encode(pixels).latent_dist.mode().float()
    mean, std = _video_statistics(vae)
    return (latents - mean) * (float(vae.config.scaling_factor) / std)


@torch.no_grad()
def decode_video(vae: AutoencoderKLLTX2Video, latents: Tensor, *, levers: VaeLevers = NO_LEVERS) -> Tensor:
    """Pixels [B, 3, F, H, W], float32, clamped to -1..1, of normalised latents [B, C, f, h, w]."""
    mean, std = _video_statistics(vae)
    latents = latents.to(vae.device).float() * (std / float(vae.config.scaling_factor)) + mean
    with levers_on(vae, levers, rows=latents.shape[-2], columns=latents.shape[-1]):
        pixels: Tensor = vae.decode(latents.to(vae.dtype), return_dict=False)[0]
    return pixels.float().clamp_(-1, 1)


def as_bytes(pixels: Tensor) -> Tensor:
    """Pixels -1..1, float32, as uint8 0..255. Overwrites them: three copies of a long clip would not fit beside each other."""
    return pixels.add_(1).mul_(127.5).round_().to(torch.uint8)


@torch.no_grad()
def encode_sound(audio_vae: AutoencoderKLLTX2Audio, waveform: Tensor, *, steps: int | None = None) -> Tensor:
    """Normalised audio latents [B, Z, T, bins], the posterior's mode, cut to `steps` (default: 25 a second, as inference has).

    waveform: [B, 2, n], -1..1, at 16 kHz. The encoder is causal in time, so cutting its end changes nothing before it.
    """
    mel = log_mel(waveform).to(audio_vae.device, audio_vae.dtype)
    latents: Tensor = audio_vae.encode(mel).latent_dist.mode().float()
    latents = latents[:, :, : steps if steps is not None else audio_steps_for(waveform.shape[-1] / SAMPLE_RATE)]
    normalised = (pack_audio(latents) - audio_vae.latents_mean.float()) / audio_vae.latents_std.float()
    return unpack_audio(normalised, channels=latents.shape[1])


@torch.no_grad()
def decode_sound(audio_vae: AutoencoderKLLTX2Audio, vocoder: LTX2Vocoder | LTX2VocoderWithBWE, latents: Tensor) -> tuple[Tensor, int]:
    """(waveform [B, 2, m], float32, clamped to -1..1, and its sample rate) of normalised audio latents [B, Z, T, bins]."""
    return vocode(vocoder, decode_mel(audio_vae, latents))


@torch.no_grad()
def vocode(vocoder: LTX2Vocoder | LTX2VocoderWithBWE, mel: Tensor) -> tuple[Tensor, int]:
    """(waveform, its sample rate), as `decode_sound` gives them, of a log mel spectrogram [B, 2, frames, 64]."""
    waveform: Tensor = vocoder(mel.to(vocoder.dtype))
    return waveform.float().clamp(-1, 1), int(vocoder.config.output_sampling_rate)


@torch.no_grad()
def decode_mel(audio_vae: AutoencoderKLLTX2Audio, latents: Tensor) -> Tensor:
    """Log mel spectrogram [B, 2, 4 T - 3, 64] of normalised audio latents [B, Z, T, bins]."""
    packed = pack_audio(latents.to(audio_vae.device).float()) * audio_vae.latents_std.float() + audio_vae.latents_mean.float()
    mel: Tensor = audio_vae.decode(unpack_audio(packed, channels=latents.shape[1]).to(audio_vae.dtype), return_dict=False)[0]
    return mel


def pack_video(latents: Tensor) -> Tensor:
    """[B, C, f, h, w] -> tokens [B, f * h * w, C]."""
    return latents.flatten(2).transpose(1, 2)


def unpack_video(tokens: Tensor, *, grid: tuple[int, int, int]) -> Tensor:
    """Tokens [B, f * h * w, C] -> [B, C, f, h, w]."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *grid)


def pack_audio(latents: Tensor) -> Tensor:
    """[B, Z, T, bins] -> tokens [B, T, Z * bins]."""
    return latents.transpose(1, 2).flatten(2)


def unpack_audio(tokens: Tensor, *, channels: int) -> Tensor:
    """Tokens [B, T, Z * bins] -> [B, Z, T, bins]."""
    return tokens.reshape(*tokens.shape[:2], channels, -1).transpose(1, 2)


def log_mel(waveform: Tensor) -> Tensor:
    """Log mel spectrogram [B, 2, frames, 64], float32, of sound [B, 2, n] at 16 kHz.

    Periodic Hann window of 1024, hop 160, centred with reflection, magnitude, 64 slaney mels of 0..8000 Hz with slaney norm,
    natural logarithm of max(x, 1e-5). Sound shorter than half a window is padded with silence, since it cannot be reflected.
    """
    if waveform.shape[-1] <= _N_FFT // 2:
        waveform = torch.nn.functional.pad(waveform, (0, _N_FFT // 2 + 1 - waveform.shape[-1]))
    window = torch.hann_window(_N_FFT, device=waveform.device)
    flat = waveform.float().flatten(0, 1)
    spectrum = torch.stft(flat, _N_FFT, hop_length=_HOP, window=window, center=True, pad_mode="reflect", return_complex=True).abs()
    mel = torch.einsum("mf,bft->btm", _mel_filters().to(waveform.device), spectrum)
    return mel.clamp(min=_LOG_FLOOR).log().reshape(*waveform.shape[:2], -1, _MELS)


@lru_cache(maxsize=1)
def _mel_filters() -> Tensor:
    """[64, 513] triangular filters on Slaney's scale (linear below 1 kHz, logarithmic above), each of unit area in Hz."""
    step_hz, log_step = 200.0 / 3, math.log(6.4) / 27
    last_linear = 1000.0 / step_hz
    highest = last_linear + math.log(_MAX_HZ / 1000.0) / log_step
    mels = torch.linspace(0, highest, _MELS + 2, dtype=torch.float64)
    edges = torch.where(mels < last_linear, mels * step_hz, 1000.0 * ((mels - last_linear) * log_step).exp())
    bins = torch.linspace(0, SAMPLE_RATE / 2, _N_FFT // 2 + 1, dtype=torch.float64)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = torch.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)).clamp(min=0)
    return (triangles * 2 / (high - low)).float()


def _video_statistics(vae: AutoencoderKLLTX2Video) -> tuple[Tensor, Tensor]:
    return vae.latents_mean.float().view(1, -1, 1, 1, 1), vae.latents_std.float().view(1, -1, 1, 1, 1)
