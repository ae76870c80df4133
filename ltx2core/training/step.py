"""One forward on a batch, from clean latents to losses. The loop, with gradients, and the held-out loss, without, both call it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ltx2core.models.forward import predict_velocity
from ltx2core.training.conditions import with_first_frame
from ltx2core.training.fast_blocks import known_shapes
from ltx2core.training.objective import add_noise, add_up, combine, draw_noise, to_device, velocity_loss
from ltx2core.training.penalty import SQUARES
from ltx2core.training.reference import before, places
from ltx2core.training.rollout import bias_weights, drift_loss, roll_out, towards_clip
from ltx2core.training.sigma import with_offset
from ltx2core.training.tread import draw_kept

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from diffusers import LTX2VideoTransformer3DModel
    from torch import Generator

    from ltx2core.models.text import TextEmbedding
    from ltx2core.training.conditions import GivenPart
    from ltx2core.training.crepa import Crepa
    from ltx2core.training.data import Batch
    from ltx2core.training.objective import Losses, Noised
    from ltx2core.training.penalty import Penalty
    from ltx2core.training.rollout import ReflexFlow, Rollouts
    from ltx2core.training.sigma import SigmaSampler
    from ltx2core.training.tread import Route, Router


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The transformer, and the precision it computes in. The adapter's own weights are float32 whatever that is.

    mixed: the layers hold those float32 weights, so that products need autocast; the step engine's hold copies in dtype.
    router: lets tokens skip blocks while training; None where none do. rollouts: how batches are rolled out; None where none are.
    crepa: what draws features together over frames; None where nothing does.
    """

    transformer: LTX2VideoTransformer3DModel
    device: torch.device
    dtype: torch.dtype
    mixed: bool = True
    router: Router | None = None
    rollouts: Rollouts | None = None
    crepa: Crepa | None = None

    @property
    def routes(self) -> tuple[Route, ...]:
        """Around which blocks tokens are routed while training."""
        return () if self.router is None else self.router.routes

    @property
    def device_name(self) -> str:
        """The device in words."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"the CPU ({torch.get_num_threads()} threads)"

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Lets bf16 layers meet the float32 adapter: products in bf16, parameters and gradients in float32."""
        if self.dtype == torch.float32 or not self.mixed:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def begin(self, drawn: Drawn) -> None:
        """Let the next forward be routed, where tokens were drawn for that, and its features be kept for CREPA.

        Raises ValueError for tokens that were drawn for routes of another model.
        """
        if drawn.kept:
            if self.router is None:
                raise ValueError("expected a model with routes, since tokens were drawn for some")
            self.router.keep(drawn.kept)
        if self.crepa is not None and drawn.video is not None:
            self.crepa.begin()

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """No gradients and no dropout inside a training step, on batches of its shapes, so that blocks may be compiled."""
        training = self.transformer.training
        self.transformer.eval()
        try:
            with torch.no_grad(), known_shapes(self.transformer):
                yield
        finally:
            self.transformer.train(training)

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
    rollout_steps: how many steps the model goes by itself before it learns; 0 for none.
    """

    batch: Batch
    video: Noised | None
    audio: Noised | None
    kept: tuple[torch.Tensor, ...] = ()
    rollout_steps: int = 0


def draw(
    batch: Batch,
    *,
    sampler: SigmaSampler,
    generator: Generator,
    parts: Sequence[GivenPart] = (),
    reference_probability: float = 1.0,
    routes: Sequence[Route] = (),
    rollouts: Rollouts | None = None,
    step: int = 0,
) -> Drawn:
    """A batch at noise that `generator` draws: video and audio each their own sigma and noise, video first.

    parts: what is given now and then instead of learned. reference_probability: how often a batch is trained with its references.
    routes: around which blocks tokens are routed. rollouts: how often the model goes by itself when `step` steps are finished. Both are
    drawn last, so that the noise is the same with and without.
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
    steps = 0 if rollouts is None else rollouts.draw(step, generator)
    return Drawn(batch=batch, video=video, audio=audio, kept=kept, rollout_steps=steps)


def losses_of(model: Model, drawn: Drawn, *, audio_weight: float, penalty: Penalty = SQUARES) -> Losses:
    """The losses of a batch at its noise. Raises ValueError for tokens that were drawn for other routes than the model's."""
    if drawn.rollout_steps:
        if model.rollouts is None:
            raise ValueError("expected a model with rollouts, since one was drawn")
        losses = _losses_after_rollout(model, drawn, model.rollouts, audio_weight=audio_weight, penalty=penalty)
    else:
        model.begin(drawn)
        losses = _losses(model, drawn.batch, drawn.video, drawn.audio, audio_weight, penalty)
    return _with_alignment(losses, model, drawn)


def _with_alignment(losses: Losses, model: Model, drawn: Drawn) -> Losses:
    """The losses with what CREPA adds, where the batch has pictures to align."""
    if model.crepa is None or drawn.video is None:
        return losses
    references = 0 if drawn.batch.reference is None else drawn.batch.reference.tokens.shape[1]
    found = model.crepa.loss(drawn.batch.features, grid=drawn.batch.grid, kept=drawn.kept, references=references)
    return losses if found is None else replace(losses, aside=found[0], similarity=found[1])


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
    found = _Forward(model, batch).velocities(video, audio)
    return combine(*found, video=video, audio=audio, audio_weight=audio_weight, penalty=penalty)


def _losses_after_rollout(model: Model, drawn: Drawn, rollouts: Rollouts, *, audio_weight: float, penalty: Penalty) -> Losses:
    """The losses of a batch at the states that the model reaches by itself."""
    forward = _Forward(model, drawn.batch)
    with model.looking():
        video, audio = roll_out(forward.velocities, drawn.video, drawn.audio, steps=drawn.rollout_steps, step_size=rollouts.step_size)
        exact = (None, None) if rollouts.reflexflow is None else forward.velocities(drawn.video, drawn.audio)
    model.begin(drawn)
    if rollouts.reflexflow is None:
        video, audio = (None if stream is None else towards_clip(stream) for stream in (video, audio))
        return combine(*forward.velocities(video, audio), video=video, audio=audio, audio_weight=audio_weight, penalty=penalty)
    found = forward.velocities(video, audio)
    parts = [
        None if velocity is None or stream is None or true is None else _reflexflow(velocity, stream, true, rollouts.reflexflow, penalty)
        for velocity, stream, true in zip(found, (video, audio), exact, strict=True)
    ]
    return add_up(parts[0], parts[1], audio_weight=audio_weight)


def _reflexflow(velocity: torch.Tensor, reached: Noised, exact: torch.Tensor, settings: ReflexFlow, penalty: Penalty) -> torch.Tensor:
    """beta1 ADR + beta2 FC of a modality, of each sample, [B]."""
    weights = bias_weights(exact, velocity, reached.learned, alpha=settings.alpha)
    compensated = velocity_loss(
        velocity, reached.clean, reached.noise, reached.learned, sigma=reached.sigma, penalty=penalty, weights=weights
    )
    return settings.beta1 * drift_loss(velocity, reached) + settings.beta2 * compensated


class _Forward:
    """The transformer on a batch's texts and references, at whatever noise."""

    def __init__(self, model: Model, batch: Batch) -> None:
        self._model, self._batch = model, batch
        self._text = batch.text.to(model.device, model.dtype)

    def velocities(self, video: Noised | None, audio: Noised | None) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The predicted velocities [B, L, C] of what is there."""
        model, batch = self._model, self._batch
        if video is None:
            return None, _sound_alone(model, audio, self._text)
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
            text=self._text,
            grid=batch.grid,
            fps=batch.fps,
            positions=None if where is None else where.positions,
            keyframes=None if where is None else where.keyframes,
        )
        return video_velocity if reference is None else video_velocity[:, reference.tokens.shape[1] :], audio_velocity


def _sound_alone(model: Model, audio: Noised | None, text: TextEmbedding) -> torch.Tensor:
    """The predicted velocity of sound without pictures: [B, La, Ca]."""
    if audio is None:
        raise ValueError("expected a batch of video, audio or both")
    noisy = audio.noisy.to(model.dtype)
    _, velocity = predict_velocity(model.transformer, audio=noisy, audio_timesteps=audio.timesteps, audio_sigma=audio.sigma, text=text)
    return velocity
