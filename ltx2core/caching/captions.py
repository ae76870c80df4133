"""The pass that makes what the transformer attends to, of captions and prompts. A text is stored once, however many clips have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.models.text import TextSettings
from ltx2core.runs.events import Notice, Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ltx2core.caching.passes import CachePass


def encode_captions(work: CachePass, texts: Mapping[str, str]) -> None:
    missing = work.missing("text", {name: text for text, name in texts.items()}, phase="cache_text", unit="captions")
    if not missing:
        return
    import torch

    from ltx2core.models.text import load_text_models

    models = load_text_models(work.checkpoint, work.text_encoder, settings=work.text, dtype=work.dtype, device=work.device)
    if work.device.type == "cuda" or work.text != TextSettings():
        work.emit(Notice(code="text_encoder", text=f"Captions: {models.placement.because}."))
    for done, (name, text) in enumerate(missing.items(), start=1):
        work.check_stop()
        (embedding,) = models.embed([text])
        tensors = {"video": embedding.video.to(torch.bfloat16), "audio": embedding.audio.to(torch.bfloat16)}
        work.store.save("text", name, tensors, source=text)
        work.emit(Progress(phase="cache_text", done=done, total=len(missing), item=text[:80]))
