"""Trains nano's denoiser, which is the transformer, the connectors and the text encoder together, on latents of the shipped VAEs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ltx2core.models import latents
from ltx2core.models.forward import follow_official_code, predict_velocity
from ltx2core.models.nano import clips
from ltx2core.models.nano.clips import FPS, SIZES
from ltx2core.models.nano.optimizer import Optimizer, autocast, counted
from ltx2core.models.nano.tokenizer import train_tokenizer
from ltx2core.models.nano.vocabulary import caption
from ltx2core.models.text import TextEmbedding, TextEncoder, encoder_states, tokenize
from ltx2core.training.sigma import ShiftedLogitNormal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ltx2core.models.nano.architecture import Modules


@dataclass(slots=True)
class Bucket:
    """Encoded clips of one size: video tokens [N, L, C], audio tokens [N, La, Ca] and the words of each."""

    grid: tuple[int, int, int]
    video: Tensor
    audio: Tensor
    captions: list[tuple[str, ...]]


def train_denoiser(
    modules: Modules,
    steps: int,
    device: torch.device,
    *,
    seconds: float | None = None,
    batch: int = 128,
    draws: int = 4,
    count: int = 65536,
    buckets: Sequence[Bucket] | None = None,
    after: Callable[[nn.ModuleDict], None] | None = None,
) -> None:
    """Flow matching on both streams as the objective of training has it: independent sigmas, first frames and sound given at times,
    captions left out at times, video alone at times. The average of the weights is kept.

    batch: clips a step, each at `draws` noise levels, so that its caption is embedded once. count: clips of the first size that are
    encoded, and 3/32 of it of each other. buckets: clips encoded before. after(averaged model): called every 250 steps.
    """
    if buckets is None:
        buckets = [
            encode_bucket(modules, size, count if size == SIZES[0] else count * 3 // 32, device, seed=seed)
            for seed, size in enumerate(SIZES, 40)
        ]
    model = nn.ModuleDict({"transformer": modules.transformer, "connectors": modules.connectors, "text_encoder": modules.text_encoder})
    model.to(device).train()
    follow_official_code(modules.transformer)
    if device.type == "cuda":
        for block in modules.transformer.transformer_blocks:
            block.compile(dynamic=False)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.998))  # type: ignore[no-untyped-call]
    optimizer = Optimizer(model, rate=2e-3, steps=steps, muon=True, weight_decay=0.01)
    encoder = TextEncoder(train_tokenizer(), modules.text_encoder, "", 128)
    cpu, noise = torch.Generator().manual_seed(5), torch.Generator(device).manual_seed(5)
    sampler = ShiftedLogitNormal()
    recent: list[Tensor] = []
    for step in counted(optimizer, "denoiser", seconds):
        others = len(buckets) - 1
        bucket = buckets[0] if step % 5 or not others else buckets[1 + step // 5 % others]
        video_alone = step % 16 == 7
        chosen = torch.randint(len(bucket.captions), (batch,), generator=cpu)
        text = _embed(_draw_captions(bucket, chosen, cpu), encoder, modules, device)
        text = TextEmbedding(text.video.repeat(draws, 1, 1), text.audio.repeat(draws, 1, 1))
        # One compiled shape: a rare one is not worth its compilation.
        with torch.compiler.set_stance("default" if bucket is buckets[0] and not video_alone else "force_eager"):
            index = chosen.repeat(draws).to(device)
            loss = _denoising_loss(modules, bucket, index, text, sampler, cpu, noise, video_alone=video_alone)
            optimizer.update(loss)
        average.update_parameters(model)
        recent.append(loss.detach())
        if step % 250 == 249 or step == optimizer.steps - 1:
            print(f"denoiser {step + 1}: loss {torch.stack(recent).mean().item():.4f}", flush=True)
            recent.clear()
            if after is not None:
                assert isinstance(average.module, nn.ModuleDict)
                after(average.module)
    model.load_state_dict(average.module.state_dict())
    model.eval()


def _denoising_loss(
    modules: Modules,
    bucket: Bucket,
    index: Tensor,
    text: TextEmbedding,
    sampler: ShiftedLogitNormal,
    cpu: torch.Generator,
    noise: torch.Generator,
    *,
    video_alone: bool,
) -> Tensor:
    device, batch = index.device, index.shape[0]
    clean_video, clean_audio = bucket.video[index].float(), bucket.audio[index].float()
    video_sigma = sampler.sample(batch, tokens=clean_video.shape[1], generator=cpu).to(device)
    audio_sigma = sampler.sample(batch, tokens=clean_audio.shape[1], generator=cpu).to(device)
    draw = torch.rand(batch, generator=cpu).to(device)
    # A third at one noise level for both, since sampling has them so.
    audio_sigma = torch.where((draw > 0.1) & (draw < 0.4), video_sigma, audio_sigma)
    first_given, sound_given = draw < 0.1, (draw > 0.9) & (not video_alone)
    audio_sigma = torch.where(sound_given, 0.0, audio_sigma)
    _, height, width = bucket.grid
    is_first = torch.arange(clean_video.shape[1], device=device) < height * width
    video_timesteps = torch.where(first_given[:, None] & is_first, 0.0, video_sigma[:, None])
    audio_timesteps = audio_sigma[:, None].expand(-1, clean_audio.shape[1])
    video_noise = torch.randn(clean_video.shape, generator=noise, device=device)
    audio_noise = torch.randn(clean_audio.shape, generator=noise, device=device)
    noisy_video = torch.lerp(clean_video, video_noise, video_timesteps[..., None])
    noisy_audio = torch.lerp(clean_audio, audio_noise, audio_timesteps[..., None])
    with autocast(device):
        video_velocity, audio_velocity = predict_velocity(
            modules.transformer,
            video=noisy_video,
            video_timesteps=video_timesteps,
            video_sigma=video_sigma,
            audio=None if video_alone else noisy_audio,
            audio_timesteps=None if video_alone else audio_timesteps,
            audio_sigma=None if video_alone else audio_sigma,
            text=text,
            grid=bucket.grid,
            fps=torch.full((batch,), FPS),
        )
    loss = _masked_loss(video_velocity, video_noise - clean_video, video_timesteps > 0)
    if audio_velocity is not None:
        loss = loss + 0.5 * _masked_loss(audio_velocity, audio_noise - clean_audio, (audio_timesteps > 0))
    return loss


def _masked_loss(found: Tensor, expected: Tensor, learned: Tensor) -> Tensor:
    error = (found.float() - expected).square().mean(dim=2) * learned
    return error.sum() / learned.sum()


def _embed(captions: list[str], encoder: TextEncoder, modules: Modules, device: torch.device) -> TextEmbedding:
    with autocast(device):
        tokens = tokenize(captions, encoder)
        states = encoder_states(encoder, tokens["input_ids"], tokens["attention_mask"])
        video, audio, _ = modules.connectors(states, tokens["attention_mask"])
    return TextEmbedding(video, audio)


def _draw_captions(bucket: Bucket, chosen: Tensor, generator: torch.Generator) -> list[str]:
    """A caption for each chosen clip: one of its sentences, at times with a made-up word, at times none at all (for guidance)."""
    drawn = []
    for index, fate, which in zip(
        chosen.tolist(),
        torch.rand(len(chosen), generator=generator).tolist(),
        torch.randint(4, chosen.shape, generator=generator).tolist(),
        strict=True,
    ):
        text = bucket.captions[index][which]
        if fate < 0.1:
            text = ""
        elif fate < 0.2:
            word = "".join(chr(97 + int(letter)) for letter in torch.randint(26, (5,), generator=generator))
            text = f"{word} {text}"
        drawn.append(text)
    return drawn


@torch.no_grad()
def encode_bucket(modules: Modules, size: tuple[int, int, int], count: int, device: torch.device, *, seed: int) -> Bucket:
    width, height, frames = size
    generator = torch.Generator().manual_seed(seed)
    words = clips.random_words(count, generator)
    scenes = clips.scenes_of(words, generator)
    vae, audio_vae = modules.video_vae.to(device), modules.audio_vae.to(device)
    video, audio = [], []
    chunk = 128 if device.type == "cuda" else 8
    for start in range(0, count, chunk):
        part = scenes[slice(start, start + chunk)].to(device)
        with autocast(device):
            encoded = latents.encode_video(vae, clips.render_video(part, width=width, height=height, frames=frames, fps=FPS))
        video.append(latents.pack_video(encoded).bfloat16())
        sound = clips.render_sound(part, seconds=frames / FPS, sample_rate=latents.SAMPLE_RATE)
        audio.append(latents.pack_audio(latents.encode_sound(audio_vae, sound)).bfloat16())
    captions = [tuple(caption(item, template) for template in range(4)) for item in words]
    return Bucket(latents.latent_grid(width=width, height=height, frames=frames), torch.cat(video), torch.cat(audio), captions)
