"""The pass that makes what the transformer attends to, of captions and prompts. A text is stored once, however many clips have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.caching.link import to_host
from ltx2core.caching.sharing import in_turn
from ltx2core.caching.writing import Writer
from ltx2core.models.text import TextSettings
from ltx2core.runs.events import Notice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ltx2core.caching.passes import CachePass

SHOWN_CHARACTERS = 80


def encode_captions(work: CachePass, texts: Mapping[str, str]) -> None:
    """Encode the texts that are missing: by text, the name of its entry. Raises as CachePass.run does."""
    missing = work.missing("text", {name: text for text, name in texts.items()}, phase="cache_text", unit="captions")
    if not missing:
        return
    import torch

    from ltx2core.models.text import load_text_models

    models = load_text_models(work.checkpoint, work.text_encoder, settings=work.text, dtype=work.dtype, device=work.device)
    if work.device.type == "cuda" or work.text != TextSettings():
        work.emit(Notice(code="text_encoder", text=f"Captions: {models.placement.because}."))
    with (
        in_turn(work.store.root / "text", list(missing.items())) as ordered,
        Writer(work, "text", total=len(ordered), phase="cache_text") as writer,
    ):
        for begin in range(0, len(ordered), work.text_batch):
            work.check_stop()
            batch = ordered[begin : begin + work.text_batch]
            wanted = [(name, text) for name, text in batch if work.store.state("text", name) != "whole"]  # another process may have it
            embeddings = models.embed([text for _, text in wanted]) if wanted else []
            made = {name: embedding for (name, _), embedding in zip(wanted, embeddings, strict=True)}
            for name, text in batch:
                tensors, landing = None, None
                if name in made:
                    of_text = {"video": made[name].video.to(torch.bfloat16), "audio": made[name].audio.to(torch.bfloat16)}
                    tensors, landing = to_host(of_text, work.device)
                writer.write(name, tensors, landing, source=text, item=text[:SHOWN_CHARACTERS])
        writer.finish()
