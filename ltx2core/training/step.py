"""One forward on a batch, from clean latents to losses. The loop, with gradients, and the held-out loss, without, both call it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ltx2core.models.forward import predict_velocity
from ltx2core.training.conditions import with_first_frame
from ltx2core.training.objective import add_noise, combine, draw_noise, to_device
from ltx2core.training.penalty import SQUARES
from ltx2core.training.reference import before, places
from ltx2core.training.sigma import with_offset
from ltx2core.training.tread import draw_kept

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from diffusers import LTX2VideoTransformer3DModel
    from torch import Generator

    from ltx2core.models.text import TextEmbedding
    from ltx2core.training.conditions import GivenPart
    from ltx2core.training.data import Batch
    from ltx2core.training.objective import Losses, Noised
    from ltx2core.training.penalty import Penalty
    from ltx2core.training.sigma import SigmaSampler
    from ltx2core.training.tread import Route, Router


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The transformer, and the precision it computes in. The adapter's own weights are float32 whatever that is.

    mixed: the layers hold those float32 weights, so that products need autocast; the step engine's hold copies in dtype.
    router: lets tokens skip blocks while training; None where none do.
    """

    transformer: LTX2VideoTransformer3DModel
    device: torch.device
    dtype: torch.dtype
    mixed: bool = True
    router: Router | None = None

    @property
    def routes(self) -> tuple[Route, ...]:
        """Around which blocks tokens are routed while training."""
        return () if self.router is None else self.router.routes

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Lets bf16 layers meet the float32 adapter: products in bf16, parameters and gradients in float32."""
        if self.dtype == torch.float32 or not self.mixed:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """No gradients and no dropout inside; training mode again afterwards."""
        self.transformer.eval()
        try:
            with torch.no_grad(), self.autocast():
                yield
        finally:
            self.transformer.train()


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """All that a forward needs: a batch, and its modalities at the noise that was drawn for them.

    kept: of each of the model's routes, the video tokens that go through its blocks, [B, K]; empty for a forward that is not routed.
    """

    batch: Batch
    video: Noised | None
    audio: Noised | None
    kept: tuple[torch.Tensor, ...] = ()


def draw(
    batch: Batch,
    *,
    sampler: SigmaSampler,
    generator: Generator,
    parts: Sequence[GivenPart] = (),
    reference_probability: float = 1.0,
    routes: Sequence[Route] = (),
) -> Drawn:
    """A batch at noise that `generator` draws: video and audio each their own sigma and noise, video first.

    parts: what is given now and then instead of learned. reference_probability: how often a batch is trained with its references.
    routes: around which blocks tokens are routed; which of them is drawn last, so that the noise is the same with and without.
    """
    sampler, parts = with_offset(sampler, batch.sigma_offset), with_first_frame(parts, batch.gives_first_frame)
    of_video, of_audio = ([part for part in parts if part.modality == modality] for modality in ("video", "audio"))
    video = audio = None
    if batch.video is not None:
        video = draw_noise(batch.video, sampler=sampler, generator=generator, grid=batch.grid, parts=of_video, masks=batch.masks)
    if batch.audio is not None:
        grid = (batch.audio.shape[1], 1, 1)
        audio = draw_noise(batch.audio, sampler=sampler, generator=generator, grid=grid, learned=batch.audio_learned, parts=of_audio)
    if batch.reference is not None and float(torch.rand((), generator=generator)) >= reference_probability:
        batch = replace(batch, reference=None)
    kept: tuple[torch.Tensor, ...] = ()
    if video is not None:
        references = 0 if batch.reference is None else batch.reference.tokens.shape[1]
        kept = draw_kept(routes, learned=video.learned, references=references, generator=generator)
    return Drawn(batch=batch, video=video, audio=audio, kept=kept)


def losses_of(model: Model, drawn: Drawn, *, audio_weight: float, penalty: Penalty = SQUARES) -> Losses:
    """The losses of a batch at its noise. Raises ValueError for tokens that were drawn for other routes than the model's."""
    if drawn.kept:
        if model.router is None:
            raise ValueError("expected a model with routes, since tokens were drawn for some")
        model.router.keep(drawn.kept)
    return _losses(model, drawn.batch, drawn.video, drawn.audio, audio_weight, penalty)


def losses_at(model: Model, batch: Batch, *, sigma: float, generator: Generator, audio_weight: float) -> Losses:
    """The losses of a batch at one noise level, the same for video and audio."""
    level = torch.full((batch.count,), sigma, device=model.device)

    def noised(clean: torch.Tensor | None, learned: torch.Tensor | None) -> Noised | None:
        if clean is None:
            return None
        noise = to_device(torch.randn(clean.shape, generator=generator), model.device)
        return add_noise(clean, sigma=level, noise=noise, learned=learned)

    video = noised(batch.video, None)
    audio = noised(batch.audio, batch.audio_learned)
    return _losses(model, batch, video, audio, audio_weight)


def _losses(
    model: Model, batch: Batch, video: Noised | None, audio: Noised | None, audio_weight: float, penalty: Penalty = SQUARES
) -> Losses:
    text = batch.text.to(model.device, model.dtype)
    if video is None:
        velocity = _sound_alone(model, audio, text)
        return combine(None, velocity, video=None, audio=audio, audio_weight=audio_weight, penalty=penalty)
    tokens, timesteps, reference, where = video.noisy, video.timesteps, batch.reference, None
    if reference is not None:
        tokens, timesteps = before(reference, tokens, timesteps)
        where = places(model.transformer, reference, grid=batch.grid, fps=batch.fps)
    video_velocity, audio_velocity = predict_velocity(
        model.transformer,
        video=tokens.to(model.dtype),
        video_timesteps=timesteps,
        video_sigma=video.sigma,
        audio=None if audio is None else audio.noisy.to(model.dtype),
        audio_timesteps=None if audio is None else audio.timesteps,
        audio_sigma=None if audio is None else audio.sigma,
        text=text,
        grid=batch.grid,
        fps=batch.fps,
        positions=None if where is None else where.positions,
        keyframes=None if where is None else where.keyframes,
    )
    if reference is not None:
        video_velocity = video_velocity[:, reference.tokens.shape[1] :]
    return combine(video_velocity, audio_velocity, video=video, audio=audio, audio_weight=audio_weight, penalty=penalty)


def _sound_alone(model: Model, audio: Noised | None, text: TextEmbedding) -> torch.Tensor:
    """The predicted velocity of sound without pictures: [B, La, Ca]."""
    if audio is None:
        raise ValueError("expected a batch of video, audio or both")
    noisy = audio.noisy.to(model.dtype)
    _, velocity = predict_velocity(model.transformer, audio=noisy, audio_timesteps=audio.timesteps, audio_sigma=audio.sigma, text=text)
    return velocity
