"""The order of a run's batches, from its settings: how many clips each holds, and what is said of that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.runs.events import Notice
from ltx2core.training.data import clip_tokens
from ltx2core.training.scheduled import make_order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ltx2core.caching.passes import CachedClip
    from ltx2core.config.train import TrainConfig
    from ltx2core.runs.events import Event
    from ltx2core.training.batches import Entry, Order
    from ltx2core.training.data import Reader


def order_of(config: TrainConfig, reader: Reader, clips: Sequence[CachedClip], *, emit: Callable[[Event], None]) -> Order:
    """The order of the clips' batches. With a token budget a Notice says how large they are."""
    entries = reader.entries(clips, most_tokens=config.max_tokens_per_batch)
    if config.max_tokens_per_batch is not None:
        _tell_sizes(entries, clips, config.max_tokens_per_batch, emit)
    in_a_step = config.gradient_accumulation_steps * config.num_processes
    return make_order(entries, batch_size=config.train_batch_size, seed=config.seed, accumulation=in_a_step)


def _tell_sizes(entries: Sequence[Entry], clips: Sequence[CachedClip], most: int, emit: Callable[[Event], None]) -> None:
    sizes: dict[str, tuple[int, int]] = {}  # bucket -> clips a batch, tokens a clip
    for entry in entries:
        clip = clips[entry.clips[0]]
        sizes[clip.sample.bucket.label] = (entry.batch_size or 1, clip_tokens(clip))
    shown = ", ".join(f"{size} of {label} ({size * tokens:,} tokens)" for label, (size, tokens) in sorted(sizes.items()))
    emit(Notice(code="batch_sizes", text=f"Batches hold up to {most:,} tokens: {shown}."))
    if large := [f"{label} ({tokens:,})" for label, (_, tokens) in sorted(sizes.items()) if tokens > most]:
        text = f"One clip alone has more than {most:,} tokens in {', '.join(large)}; its batches hold one clip."
        emit(Notice(code="tokens_above_budget", level="warning", text=text, fix="Raise max_tokens_per_batch."))
