"""Trains nano from nothing on one GPU: `python -m ltx2core.models.nano.pretrain --out DIR`.

Four stages, each with its own seed and written to its own file as soon as it is done, so that a stage can be made again alone:
video VAE, audio VAE, vocoder, and the denoiser (transformer, connectors and text encoder together, on latents of the shipped,
bf16-rounded VAEs). `assemble` joins them into the combined file. The same seeds, step counts, card and libraries give the same
weights; other cards round differently.

The shipped VAEs and vocoder are of these stages. The shipped denoiser is of a shorter run of the same objective on two CPU cores
(1,000 steps of 64 on 4,608 clips of the first size, nothing given clean); the denoiser stage has not been run to its end on a GPU yet.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ltx2core.models import latents
from ltx2core.models.forward import correct_cross_timesteps, predict_velocity
from ltx2core.models.nano import architecture, clips
from ltx2core.models.nano.tokenizer import train_tokenizer
from ltx2core.models.nano.vocabulary import caption
from ltx2core.models.text import TextEmbedding, TextEncoder, encoder_states, tokenize
from ltx2core.training.sigma import ShiftedLogitNormal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ltx2core.models.nano.architecture import Modules

FPS, SECONDS = 25.0, 0.68
LATENT_NOISE = 0.1  # of the video latents while their VAE trains
SIZES = ((128, 128, 17), (160, 96, 17), (96, 160, 17), (128, 128, 25))  # width, height, frames; the first is most of the training


@dataclass(frozen=True, slots=True)
class Steps:
    """Optimizer steps of each stage."""

    video_vae: int = 3400
    audio_vae: int = 1800
    vocoder: int = 2500
    denoiser: int = 4000


def train_video_vae(
    modules: Modules,
    steps: int,
    device: torch.device,
    *,
    seconds: float | None = None,
    batch: int = 40,
    rate: float = 3e-3,
) -> None:
    """Reconstruction, L1 + 4 MSE in -1..1, of latents held near unit size and blurred by a little noise."""
    vae = modules.video_vae.to(device, memory_format=torch.channels_last_3d).train()
    make_padding_deterministic(vae)
    optimizer = _Optimizer(vae, rate=rate, steps=steps, muon=True)
    generator = torch.Generator().manual_seed(1)
    noise = torch.Generator(device).manual_seed(1)
    encode, decode = torch.compile(vae.encoder), torch.compile(vae.decoder)
    recent: list[Tensor] = []
    for step in _counted(optimizer, "video VAE", seconds):
        main = step % 8 != 7
        width, height, frames = SIZES[0] if main else SIZES[1 + step // 8 % 3]
        pixels = _training_pixels(batch if main else batch * 3 // 4, generator, device, width=width, height=height, frames=frames)
        with _autocast(device):
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
    with torch.no_grad(), _autocast(device):
        modes = torch.cat([vae.encode(part).latent_dist.mode().float() for part in parts])
        decoded = [vae.decode(mode).sample.float().clamp(-1, 1) for mode in torch.split(modes, [len(part) for part in parts])]
        errors = [(found - part).square().mean() for found, part in zip(decoded, parts, strict=True)]
    print(f"video VAE, captioned clips: {-10 * math.log10(torch.stack(errors).mean().item() / 4):.2f} dB", flush=True)
    vae.latents_mean.copy_(modes.mean(dim=(0, 2, 3, 4)))
    vae.latents_std.copy_(modes.std(dim=(0, 2, 3, 4)))


def train_audio_vae(modules: Modules, steps: int, device: torch.device, *, seconds: float | None = None, batch: int = 128) -> None:
    """Reconstruction of log mel spectrograms (L1 + MSE) with a light KL term."""
    vae = modules.audio_vae.to(device).train()
    optimizer = _Optimizer(vae, rate=1.5e-3, steps=steps)
    generator = torch.Generator().manual_seed(2)
    noise = torch.Generator(device).manual_seed(2)
    for step in _counted(optimizer, "audio VAE", seconds):
        mel = latents.log_mel(
            clips.render_sound(_training_scenes(batch, generator).to(device), seconds=SECONDS, sample_rate=latents.SAMPLE_RATE)
        )
        with _autocast(device):
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
    optimizer = _Optimizer(vocoder, rate=2e-3, steps=steps)
    generator = torch.Generator().manual_seed(3)
    rate = int(vocoder.config.output_sampling_rate)
    for step in _counted(optimizer, "vocoder", seconds):
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


@dataclass(slots=True)
class _Bucket:
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
    buckets: Sequence[_Bucket] | None = None,
    after: Callable[[int, nn.Module], None] | None = None,
) -> None:
    """Flow matching on both streams as the objective of training has it: independent sigmas, first frames and sound given at times,
    captions left out at times, video alone at times. The average of the weights is kept.

    batch: clips a step, each at `draws` noise levels, so that its caption is embedded once. buckets: encoded clips, made here if None.
    after(step, averaged model): called every 250 steps.
    """
    if buckets is None:
        counts = [65536 if size == SIZES[0] else 6144 for size in SIZES]
        buckets = [
            _encode_bucket(modules, size, count, device, seed=seed)
            for seed, (size, count) in enumerate(zip(SIZES, counts, strict=True), 40)
        ]
    model = nn.ModuleDict({"transformer": modules.transformer, "connectors": modules.connectors, "text_encoder": modules.text_encoder})
    model.to(device).train()
    correct_cross_timesteps(modules.transformer)
    for block in modules.transformer.transformer_blocks:
        block.compile(dynamic=False)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.998))  # type: ignore[no-untyped-call]
    optimizer = _Optimizer(model, rate=2e-3, steps=steps, muon=True, weight_decay=0.01)
    encoder = TextEncoder(train_tokenizer(), modules.text_encoder, "", 128)
    cpu, noise = torch.Generator().manual_seed(5), torch.Generator(device).manual_seed(5)
    sampler = ShiftedLogitNormal()
    recent: list[Tensor] = []
    for step in _counted(optimizer, "denoiser", seconds):
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
                after(step + 1, average.module)
    model.load_state_dict(average.module.state_dict())
    model.eval()


def _denoising_loss(
    modules: Modules,
    bucket: _Bucket,
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
    with _autocast(device):
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
            fps=torch.full((batch,), FPS, device=device),
        )
    loss = _masked_loss(video_velocity, video_noise - clean_video, video_timesteps > 0)
    if audio_velocity is not None:
        loss = loss + 0.5 * _masked_loss(audio_velocity, audio_noise - clean_audio, (audio_timesteps > 0))
    return loss


def _masked_loss(found: Tensor, expected: Tensor, learned: Tensor) -> Tensor:
    error = (found.float() - expected).square().mean(dim=2) * learned
    return error.sum() / learned.sum()


def _embed(captions: list[str], encoder: TextEncoder, modules: Modules, device: torch.device) -> TextEmbedding:
    with _autocast(device):
        tokens = tokenize(captions, encoder)
        states = encoder_states(encoder, tokens["input_ids"], tokens["attention_mask"])
        video, audio, _ = modules.connectors(states, tokens["attention_mask"])
    return TextEmbedding(video, audio)


def _draw_captions(bucket: _Bucket, chosen: Tensor, generator: torch.Generator) -> list[str]:
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
def _encode_bucket(modules: Modules, size: tuple[int, int, int], count: int, device: torch.device, *, seed: int) -> _Bucket:
    width, height, frames = size
    generator = torch.Generator().manual_seed(seed)
    words = clips.random_words(count, generator)
    scenes = clips.scenes_of(words, generator)
    vae, audio_vae = modules.video_vae.to(device), modules.audio_vae.to(device)
    video, audio = [], []
    chunk = 128 if device.type == "cuda" else 8
    for start in range(0, count, chunk):
        part = scenes[slice(start, start + chunk)].to(device)
        with _autocast(device):
            encoded = latents.encode_video(vae, clips.render_video(part, width=width, height=height, frames=frames, fps=FPS))
        video.append(latents.pack_video(encoded).bfloat16())
        sound = clips.render_sound(part, seconds=frames / FPS, sample_rate=latents.SAMPLE_RATE)
        audio.append(latents.pack_audio(latents.encode_sound(audio_vae, sound)).bfloat16())
    captions = [tuple(caption(item, template) for template in range(4)) for item in words]
    return _Bucket(latents.latent_grid(width=width, height=height, frames=frames), torch.cat(video), torch.cat(audio), captions)


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


class _Optimizer:
    """AdamW, or Muon for the weights of linear layers and convolutions (seen as outputs x the rest) with AdamW for the others.

    The rate warms up over 100 steps and follows a cosine to zero. Source of Muon: arXiv 2502.16982, update scaled to AdamW's.
    """

    def __init__(self, module: nn.Module, *, rate: float, steps: int, muon: bool = False, weight_decay: float = 0.0) -> None:
        self.parameters, self.steps, self.step_index = list(module.parameters()), steps, 0
        matrices: list[nn.Parameter] = [
            parameter
            for child in module.modules()
            if muon and isinstance(child, nn.Linear | nn.Conv3d)
            for name, parameter in child.named_parameters(recurse=False)
            if name == "weight"
        ]
        self._views = [(matrix, nn.Parameter(matrix.data.reshape(matrix.shape[0], -1))) for matrix in matrices]
        taken = {id(matrix) for matrix in matrices}
        others = [parameter for parameter in self.parameters if id(parameter) not in taken]
        fused = self.parameters[0].is_cuda
        adam = torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=fused)
        self._optimizers: list[torch.optim.Optimizer] = [adam]
        if matrices:
            views = [view for _, view in self._views]
            self._optimizers.append(torch.optim.Muon(views, lr=rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
        self._rate = rate

    def update(self, loss: Tensor) -> None:
        for parameter in self.parameters:
            parameter.grad = None
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for matrix, view in self._views:
            view.grad = None if matrix.grad is None else matrix.grad.reshape(view.shape)
        progress = min(1.0, max(0, self.step_index - 100) / max(1, self.steps - 100))
        rate = self._rate * min(1.0, (self.step_index + 1) / 100) * 0.5 * (1 + math.cos(math.pi * progress))
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        with torch.no_grad():
            for matrix, view in self._views:
                matrix.copy_(view.view(matrix.shape))  # the layout in memory may differ, so a view would not share it
        self.step_index += 1


def _autocast(device: torch.device) -> torch.autocast:
    """bf16 on a GPU; float32 on a CPU, whose bf16 convolutions are hundreds of times slower."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def _round_to_bf16(module: nn.Module) -> None:
    """The values that the file will hold, so that what is trained on top of them is trained on what ships."""
    for parameter in module.parameters():
        parameter.data.copy_(parameter.data.bfloat16().float())


def _counted(optimizer: _Optimizer, name: str, seconds: float | None) -> Iterator[int]:
    """The steps of a stage. With `seconds`, the first hundred are timed and the total is set to what fits, in hundreds: a run with
    that number given computes the same, since the rate only warms up until then."""
    step, started = 0, time.perf_counter()
    while step < optimizer.steps:
        yield step
        step += 1
        if step in (50, 100):
            _wait()
            now = time.perf_counter()
            if step == 100:
                each = (now - started) / 50
                if seconds is not None:
                    optimizer.steps = max(200, int(seconds / each) // 100 * 100)
                print(f"{name}: {each * 1000:.1f} ms a step, {optimizer.steps} steps, {each * optimizer.steps:.0f} s", flush=True)
            started = now


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


_STAGES: dict[str, tuple[tuple[str, ...], Callable[..., object]]] = {
    "video_vae": (("video_vae",), train_video_vae),
    "audio_vae": (("audio_vae",), train_audio_vae),
    "vocoder": (("vocoder",), train_vocoder),
    "denoiser": (("transformer", "connectors", "text_encoder"), train_denoiser),
}


def _save(modules: Modules, names: tuple[str, ...], path: Path) -> None:
    tensors = {}
    for name in names:
        for key, tensor in getattr(modules, name).state_dict().items():
            keep = "scale_shift_table" in key or key.startswith("latents_")
            tensors[f"{name}.{key}"] = tensor.detach().to("cpu", torch.float32 if keep else torch.bfloat16).contiguous()
    save_file(tensors, path)


def _load(modules: Modules, names: tuple[str, ...], path: Path) -> None:
    tensors = load_file(path)
    for name in names:
        part = {key.removeprefix(f"{name}."): tensor.float() for key, tensor in tensors.items() if key.startswith(f"{name}.")}
        getattr(modules, name).load_state_dict(part)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train nano, the embedded model, from nothing.")
    parser.add_argument("--out", type=Path, required=True, help="where the stages' files and the joined model go")
    parser.add_argument("--stage", choices=[*_STAGES, "assemble", "all"], default="all")
    parser.add_argument("--steps", type=int, help="instead of the stage's own number, to try something")
    parser.add_argument("--seconds", type=float, help="set the number of steps to what fits in this time, and print it")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    modules = architecture.build(seed=0)
    device = torch.device(arguments.device)
    for stage in _STAGES if arguments.stage == "all" else [arguments.stage]:
        if stage == "assemble":
            break
        if stage == "denoiser":
            for earlier in ("video_vae", "audio_vae"):
                _load(modules, (earlier,), arguments.out / f"{earlier}.safetensors")
        started = time.perf_counter()
        names, train = _STAGES[stage]
        train(modules, arguments.steps or getattr(Steps(), stage), device, seconds=arguments.seconds)
        _save(modules, names, arguments.out / f"{stage}.safetensors")
        print(f"{stage}: {time.perf_counter() - started:.0f} s", flush=True)
    if arguments.stage in ("all", "assemble"):
        for stage, (names, _) in _STAGES.items():
            _load(modules, names, arguments.out / f"{stage}.safetensors")
        architecture.write(modules, arguments.out / "weights")


if __name__ == "__main__":
    main()
