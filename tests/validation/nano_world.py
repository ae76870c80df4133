"""nano, loaded once for the tests that draw with it, and its world: scenes with their pixels and sounds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from ltx2core.models import components, latents
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.nano import clips, nano_checkpoint, nano_text_encoder
from ltx2core.models.nano.vocabulary import Words, caption
from ltx2core.models.text import TextEmbedding, embed_captions, load_text_encoder
from ltx2core.validation.sampling import NOTHING, Inputs, SampledLatents, sample_latents

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ltx2core.validation.guidance import Guidance

F32 = torch.float32
FRAMES, FPS, GRID, AUDIO_STEPS = 17, 25.0, (3, 4, 4), 17
WORDS = Words(colour="orange", shape="circle", direction="right", speed="quickly", background="navy", pattern="plain", sound="humming")


@dataclass
class World:
    """The modules of nano, float32 on the CPU."""

    @cached_property
    def checkpoint(self):  # type: ignore[no-untyped-def]
        return open_checkpoint(nano_checkpoint())

    @cached_property
    def transformer(self):  # type: ignore[no-untyped-def]
        return components.load_transformer(self.checkpoint, dtype=F32)

    @cached_property
    def vae(self):  # type: ignore[no-untyped-def]
        return components.load_video_vae(self.checkpoint, dtype=F32)

    @cached_property
    def audio_vae(self):  # type: ignore[no-untyped-def]
        return components.load_audio_vae(self.checkpoint, dtype=F32)

    @cached_property
    def texts(self) -> tuple[TextEmbedding, TextEmbedding]:
        """Of what WORDS say and of nothing."""
        encoder = load_text_encoder(nano_text_encoder(), dtype=F32)
        given, nothing = embed_captions([caption(WORDS), ""], encoder, components.load_connectors(self.checkpoint, dtype=F32))
        return given, nothing

    def draw(
        self, *, seed: int = 0, guidance: Guidance | float = 3.0, steps: int = 8, inputs: Inputs = NOTHING, transformer: object = None
    ) -> SampledLatents:
        given, nothing = self.texts
        return sample_latents(
            self.transformer if transformer is None else transformer,  # type: ignore[arg-type]
            text=given,
            negative_text=nothing,
            grid=GRID,
            audio_steps=AUDIO_STEPS,
            fps=FPS,
            steps=steps,
            guidance=guidance,
            seed=seed,
            inputs=inputs,
        )

    def frames(self, drawn: SampledLatents) -> NDArray[np.uint8]:
        assert drawn.video is not None
        return as_frames(latents.decode_video(self.vae, drawn.video))

    def first_frame(self, pixels: Tensor) -> Tensor:
        return latents.pack_video(latents.encode_video(self.vae, pixels[:, :, :1]))

    def sound(self, waveform: Tensor) -> Tensor:
        return latents.pack_audio(latents.encode_sound(self.audio_vae, waveform, steps=AUDIO_STEPS))


@lru_cache(maxsize=1)
def world() -> World:
    return World()


def as_frames(pixels: Tensor) -> NDArray[np.uint8]:
    """uint8 [F, H, W, 3] of pixels [1, 3, F, H, W] in -1..1."""
    found: NDArray[np.uint8] = ((pixels[0] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 3, 0).numpy()
    return found


def scenes(count: int, *, seed: int) -> clips.Scenes:
    """Clips of what WORDS say, in places and sizes that they do not say."""
    return clips.scenes_of([WORDS] * count, torch.Generator().manual_seed(seed))


def shape_size(frames: NDArray[np.uint8]) -> float:
    """The side of a square as large as the bright shape, in pixels, over all frames."""
    return float(np.sqrt((frames.max(axis=3) > 150).sum(axis=(1, 2)).mean()))
