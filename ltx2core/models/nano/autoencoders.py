"""Trains what stands between nano's latents and pixels or sound: the video VAE, the audio VAE and the vocoder."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ltx2core.models import latents
from ltx2core.models.nano import clips
from ltx2core.models.nano.clips import FPS, SECONDS, SIZES
from ltx2core.models.nano.optimizer import Optimizer, autocast, counted

if TYPE_CHECKING:
    from ltx2core.models.nano.architecture import Modules

LATENT_NOISE = 0.1  # of the video latents while their VAE trains


def train_video_vae(
    modules: Modules,
    steps: int,
    device: torch.device,
    *,
    seconds: float | None = None,
    batch: int = 40,
) -> None:
    """Reconstruction, L1 + 4 MSE in -1..1, of latents held near unit size and blurred by a little noise."""
    vae = modules.video_vae.to(device, memory_format=torch.channels_last_3d).train()
    make_padding_deterministic(vae)
    optimizer = Optimizer(vae, rate=3e-3, steps=steps, muon=True)
    generator = torch.Generator().manual_seed(1)
    noise = torch.Generator(device).manual_seed(1)
    encode, decode = torch.compile(vae.encoder), torch.compile(vae.decoder)
    recent: list[Tensor] = []
    for step in counted(optimizer, "video VAE", seconds):
        main = step % 8 != 7
        width, height, frames = SIZES[0] if main else SIZES[1 + step // 8 % 3]
        pixels = _training_pixels(batch if main else batch * 3 // 4, generator, device, width=width, height=height, frames=frames)
        with autocast(device):
            mean = (encode if main else vae.encoder)(pixels).float()[:, : vae.config.latent_channels]
            blurred = mean + LATENT_NOISE * torch.randn(mean.shape, generator=noise, device=device)
            found = (decode if main else vae.decoder)(blurred).float()
        difference = found - pixels
        squared = difference.square().mean()
        optimizer.update(difference.abs().mean() + 4 * squared + 1e-4 * mean.square().mean())
        recent.append(squared.detach())
        if step % 500 == 499 or step == optimizer.steps - 1:
            decibels = -10 * math.log10(torch.stack(recent).mean().item() / 4)
            print(f"video VAE {step + 1}: {decibels:.2f} dB", flush=True)
            recent.clear()
    vae.eval()
    with torch.no_grad():  # the log-variance, one channel for all latents, says how much noise there was
        vae.encoder.conv_out.conv.weight[-1].zero_()
        vae.encoder.conv_out.conv.bias[-1].fill_(2 * math.log(LATENT_NOISE))
    _round_to_bf16(vae)
    parts = [_training_pixels(batch, generator, device, width=128, height=128, frames=17, varied=0.0) for _ in range(12)]
    with torch.no_grad(), autocast(device):
        modes = torch.cat([vae.encode(part).latent_dist.mode().float() for part in parts])
        decoded = [vae.decode(mode).sample.float().clamp(-1, 1) for mode in torch.split(modes, [len(part) for part in parts])]
        errors = [(found - part).square().mean() for found, part in zip(decoded, parts, strict=True)]
    print(f"video VAE, captioned clips: {-10 * math.log10(torch.stack(errors).mean().item() / 4):.2f} dB", flush=True)
    vae.latents_mean.copy_(modes.mean(dim=(0, 2, 3, 4)))
    vae.latents_std.copy_(modes.std(dim=(0, 2, 3, 4)))


def train_audio_vae(modules: Modules, steps: int, device: torch.device, *, seconds: float | None = None, batch: int = 128) -> None:
    """Reconstruction of log mel spectrograms (L1 + MSE) with a light KL term."""
    vae = modules.audio_vae.to(device).train()
    optimizer = Optimizer(vae, rate=1.5e-3, steps=steps)
    generator = torch.Generator().manual_seed(2)
    noise = torch.Generator(device).manual_seed(2)
    for step in counted(optimizer, "audio VAE", seconds):
        mel = latents.log_mel(
            clips.render_sound(_training_scenes(batch, generator).to(device), seconds=SECONDS, sample_rate=latents.SAMPLE_RATE)
        )
        with autocast(device):
            posterior = vae.encode(mel).latent_dist
            mean, log_variance = posterior.mean.float(), posterior.logvar.float()
            found = vae.decode(mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=noise, device=device)).sample.float()
        shared = min(found.shape[2], mel.shape[2])
        difference = found[:, :, :shared] - mel[:, :, :shared]
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        loss = difference.abs().mean() + 0.5 * difference.square().mean() + 1e-3 * divergence
        optimizer.update(loss)
        if step % 500 == 0 or step == optimizer.steps - 1:
            print(f"audio VAE {step}: loss {loss.item():.4f}, L1 {difference.abs().mean().item():.4f}", flush=True)
    vae.eval()
    _round_to_bf16(vae)
    mel = latents.log_mel(
        clips.render_sound(_training_scenes(batch * 4, generator, varied=0.0).to(device), seconds=SECONDS, sample_rate=latents.SAMPLE_RATE)
    )
    with torch.no_grad():
        packed = latents.pack_audio(vae.encode(mel).latent_dist.mode().float())
    vae.latents_mean.copy_(packed.mean(dim=(0, 1)))
    vae.latents_std.copy_(packed.std(dim=(0, 1)))


def train_vocoder(modules: Modules, steps: int, device: torch.device, *, seconds: float | None = None, batch: int = 48) -> None:
    """Spectral losses at four resolutions: what a tone sounds like, not where its phase begins, which a mel spectrogram cannot say."""
    vocoder = modules.vocoder.to(device).train()
    optimizer = Optimizer(vocoder, rate=2e-3, steps=steps)
    generator = torch.Generator().manual_seed(3)
    rate = int(vocoder.config.output_sampling_rate)
    for step in counted(optimizer, "vocoder", seconds):
        scenes = _training_scenes(batch, generator).to(device)
        mel = latents.log_mel(clips.render_sound(scenes, seconds=SECONDS, sample_rate=latents.SAMPLE_RATE))
        expected = clips.render_sound(scenes, seconds=SECONDS, sample_rate=rate)
        found = vocoder(mel)
        shared = min(found.shape[-1], expected.shape[-1])
        loss = torch.stack([_spectral_loss(found[..., :shared], expected[..., :shared], size) for size in (256, 512, 1024, 2048)]).mean()
        optimizer.update(loss)
        if step % 500 == 0 or step == optimizer.steps - 1:
            print(f"vocoder {step}: loss {loss.item():.4f}", flush=True)
    vocoder.eval()
    _round_to_bf16(vocoder)


def _training_scenes(count: int, generator: torch.Generator, *, varied: float = 0.3) -> clips.Scenes:
    """Sounds to learn from: `varied` of the time any pitch, else what captions can say."""
    if float(torch.rand((), generator=generator)) < varied:
        return clips.varied_scenes(count, generator)
    return clips.scenes_of(clips.random_words(count, generator), generator)


def _training_pixels(
    count: int,
    generator: torch.Generator,
    device: torch.device,
    *,
    width: int,
    height: int,
    frames: int,
    varied: float = 0.1,
    crowded: float = 0.4,
) -> Tensor:
    """[count, 3, F, H, W]: captioned clips, the same with two more shapes in them (more edges to learn from), and some of anything."""
    odd = round(count * varied)
    full = round(count * crowded) if varied else 0
    words = clips.random_words(count - odd + 2 * full, generator)
    alone = count - odd - full
    parts = [clips.scenes_of(words[:alone], generator)]
    if full:
        parts.append(
            clips.crowd(
                [clips.scenes_of(words[alone + start : alone + start + full], generator) for start in (0, full, 2 * full)], generator
            )
        )
    if odd:
        parts.append(clips.varied_scenes(odd, generator))
    return torch.cat([clips.render_video(part.to(device), width=width, height=height, frames=frames, fps=FPS) for part in parts])


def _spectral_loss(found: Tensor, expected: Tensor, size: int) -> Tensor:
    """Relative error of the magnitudes plus that of their logarithms, floored where a tone is some 50 dB down: silence teaches nothing."""
    window = torch.hann_window(size, device=found.device)
    heard, wanted = (
        torch.stft(sound.float().flatten(0, 1), size, size // 4, window=window, return_complex=True).abs() for sound in (found, expected)
    )
    floor = size * 2e-4
    return (heard - wanted).abs().sum() / wanted.sum() + ((heard + floor).log() - (wanted + floor).log()).abs().mean()


def make_padding_deterministic(module: nn.Module) -> None:
    """Reflection padding by slices: PyTorch's own has no deterministic backward on CUDA. The weights do not change."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv3d) and conv.padding_mode == "reflect" and any(conv.padding):
            conv.padding_mode, conv.padding = "zeros", (0, 0, 0)
            conv.register_forward_pre_hook(lambda _, given: (_reflect(_reflect(given[0], 3), 4),))


def _reflect(tensor: Tensor, dim: int) -> Tensor:
    size = tensor.shape[dim]
    return torch.cat([tensor.narrow(dim, 1, 1), tensor, tensor.narrow(dim, size - 2, 1)], dim=dim)


def _round_to_bf16(module: nn.Module) -> None:
    """The values that the file will hold, so that what is trained on top of them is trained on what ships."""
    for parameter in module.parameters():
        parameter.data.copy_(parameter.data.bfloat16().float())
