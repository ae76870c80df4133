"""A few clips that nano has never seen, encoded once: what its training is measured on."""

from __future__ import annotations

from functools import lru_cache

import torch
from step_engine import CPU, F32, nano

from ltx2core.models import components, latents
from ltx2core.models.nano import clips, nano_text_encoder
from ltx2core.models.nano.vocabulary import caption
from ltx2core.models.text import TextEmbedding, embed_captions, load_text_encoder
from ltx2core.training.data import Batch

TRAINED, HELD_OUT = 5, 3


@lru_cache
def nano_batches() -> list[Batch]:
    """Clips with sound and captions, each a batch of its own."""
    generator = torch.Generator().manual_seed(7)
    words = clips.random_words(TRAINED + HELD_OUT, generator, held_out=True)
    scenes = clips.scenes_of(words, generator)
    pixels = clips.render_video(scenes, width=64, height=64, frames=9, fps=25)
    video = latents.pack_video(latents.encode_video(components.load_video_vae(nano(), dtype=F32), pixels))
    sound = clips.render_sound(scenes, seconds=9 / 25, sample_rate=latents.SAMPLE_RATE)
    audio = latents.pack_audio(latents.encode_sound(components.load_audio_vae(nano(), dtype=F32), sound))
    encoder, connectors = load_text_encoder(nano_text_encoder(), dtype=F32), components.load_connectors(nano(), dtype=F32)
    texts = embed_captions([caption(item, number) for number, item in enumerate(words)], encoder, connectors)
    return [
        Batch(
            video=video[number : number + 1], audio=audio[number : number + 1],
            audio_learned=torch.ones(1, audio.shape[1], dtype=torch.bool), text=TextEmbedding.stack([text]).to(CPU, F32),
            grid=latents.latent_grid(width=64, height=64, frames=9), fps=torch.tensor([25.0]), bucket="",
        )
        for number, text in enumerate(texts)
    ]  # fmt: skip
