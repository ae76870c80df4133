"""How well nano models its world: reconstruction in dB and captions followed, both on combinations that training never saw.

python tests/benchmarks/nano_quality.py [CAPTIONS]
"""

from __future__ import annotations

import json
import statistics
import sys

import torch

from ltx2core.models import components, latents
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.nano import clips, nano_checkpoint, nano_text_encoder
from ltx2core.models.nano.measure import look, psnr
from ltx2core.models.nano.vocabulary import caption
from ltx2core.models.text import embed_captions, load_text_encoder
from ltx2core.validation.sampling import sample_latents


def main(count: int = 50) -> None:
    checkpoint, float32 = open_checkpoint(nano_checkpoint()), torch.float32
    vae = components.load_video_vae(checkpoint, dtype=float32)
    generator = torch.Generator().manual_seed(2024)
    pixels = clips.render_video(
        clips.scenes_of(clips.random_words(32, generator, held_out=True), generator), width=128, height=128, frames=17, fps=25
    )
    found = torch.cat([latents.decode_video(vae, latents.encode_video(vae, part)) for part in pixels.split(8)])
    decibels = [psnr(_frames(found)[index], _frames(pixels)[index]) for index in range(len(pixels))]

    transformer = components.load_transformer(checkpoint, dtype=float32)
    encoder, connectors = load_text_encoder(nano_text_encoder(), dtype=float32), components.load_connectors(checkpoint, dtype=float32)
    words = clips.random_words(count, torch.Generator().manual_seed(77), held_out=True)
    *texts, nothing = embed_captions([*(caption(item, index) for index, item in enumerate(words)), ""], encoder, connectors)
    colour = direction = both = 0
    for index, (item, text) in enumerate(zip(words, texts, strict=True)):
        drawn = sample_latents(
            transformer, text=text, negative_text=nothing, grid=(3, 4, 4), audio_steps=17, fps=25, steps=16, guidance=3.0, seed=index
        )
        seen = look(_frames(latents.decode_video(vae, drawn.video))[0])
        colour += seen.colour == item.colour
        direction += seen.direction == item.direction
        both += (seen.colour, seen.direction) == (item.colour, item.direction)
    size = sum(path.stat().st_size for path in [nano_checkpoint(), *nano_text_encoder().iterdir()])
    result = {
        "bench": "nano_quality",
        "megabytes": round(size / 1e6, 1),
        "psnr_db_median": round(statistics.median(decibels), 2),
        "psnr_db_worst": round(min(decibels), 2),
    }
    print(json.dumps({**result, "captions": count, "colour": colour, "direction": direction, "both": both}))


def _frames(pixels: torch.Tensor):  # type: ignore[no-untyped-def]  # uint8 [N, F, H, W, 3]
    return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 4, 1).numpy()


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
