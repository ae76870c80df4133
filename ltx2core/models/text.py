"""From captions to what the transformer attends to: tokenizer, language model, connectors. Done once a caption, then cached.

text_encoder.py loads the language model, text_source.py finds it, text_memory.py says where it fits. A caption's states before the
connectors are 385 MB (49 x 1,024 x 3,840 in bf16), after them 12.6 MB to 15.7 MB; only the latter are kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ltx2core.errors import CheckpointError
from ltx2core.hardware.device_memory import free_device_memory
from ltx2core.hardware.limits import available_memory
from ltx2core.models.text_encoder import (
    MAX_TOKENS,
    TextEncoder,
    check_text_files,
    empty_text_model,
    load_text_encoder,
    text_encoder_fingerprint,
)
from ltx2core.models.text_files import TextFiles, open_text_files
from ltx2core.models.text_memory import Placement, TextSettings, choose_placement, measure_text
from ltx2core.models.text_streaming import Streamer, stream_module

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors

    from ltx2core.models.checkpoint import Checkpoint

__all__ = [
    "MAX_TOKENS",
    "TextEmbedding",
    "TextEncoder",
    "TextModels",
    "TextSettings",
    "embed_captions",
    "encoder_states",
    "load_text_encoder",
    "load_text_models",
    "text_encoder_fingerprint",
    "tokenize",
]


@dataclass(frozen=True, slots=True)
class TextEmbedding:
    """Connector outputs, dense (registers fill the padding, so there is no mask): video [..., T, Dv], audio [..., T, Da]."""

    video: Tensor
    audio: Tensor

    def to(self, device: torch.device | str, dtype: torch.dtype) -> TextEmbedding:
        return TextEmbedding(self.video.to(device, dtype), self.audio.to(device, dtype))

    @staticmethod
    def stack(embeddings: Sequence[TextEmbedding]) -> TextEmbedding:
        """A batch [B, T, D] of single embeddings [T, D]."""
        return TextEmbedding(torch.stack([item.video for item in embeddings]), torch.stack([item.audio for item in embeddings]))


@dataclass(frozen=True, slots=True)
class TextModels:
    """All that captions go through, loaded. `placement` says where it lies and why."""

    encoder: TextEncoder
    connectors: LTX2TextConnectors
    placement: Placement
    streamer: Streamer | None = None  # of the connectors

    def embed(self, captions: Sequence[str]) -> list[TextEmbedding]:
        """The embeddings of captions, in order: [T, D] each, on the device."""
        if self.streamer is None:
            return embed_captions(captions, self.encoder, self.connectors)
        embeddings: list[TextEmbedding] = []
        for caption in captions:  # one at a time: states of 385 MB each would lie on the device together
            embeddings += embed_captions([caption], self.encoder, self.connectors)
            self.streamer.release()
        return embeddings


def load_text_models(checkpoint: Checkpoint, path: Path, *, settings: TextSettings, dtype: torch.dtype, device: torch.device) -> TextModels:
    """Text encoder and connectors, on the device as far as they fit there. path: of the text encoder, a folder or a single file.

    Raises CheckpointError when one of them cannot be used or they do not belong together, DoesNotFit when there is not enough memory.
    """
    from ltx2core.models.components import load_connectors

    placement = plan_text(checkpoint, path, settings=settings, dtype=dtype, device=device)
    encoder = load_text_encoder(path, dtype=dtype, device=device, streamed=placement.streamed, int8=settings.int8)
    connectors = load_connectors(checkpoint, dtype=dtype, device="cpu" if placement.streamed else device)
    streamer = stream_module(connectors, device) if placement.streamed else None
    return TextModels(encoder, connectors, placement, streamer)


def plan_text(checkpoint: Checkpoint, path: Path, *, settings: TextSettings, dtype: torch.dtype, device: torch.device) -> Placement:
    """Where the text path will lie. Reads headers and the tokenizer; raises what `load_text_models` would, before hours of other work."""
    files = open_text_files(path)
    check_pair(files, checkpoint)
    shapes = {key: checkpoint.shape(key) for key in checkpoint.keys("connectors")}
    empty = empty_text_model(files, dtype=dtype, int8=settings.int8)
    check_text_files(files, empty)
    need = measure_text(empty, shapes, itemsize=dtype.itemsize, tokens=MAX_TOKENS)
    free_device_bytes = free_device_memory(device) if device.type == "cuda" else None
    return choose_placement(need, settings=settings, free_device_bytes=free_device_bytes, free_host_bytes=available_memory())


def check_pair(files: TextFiles, checkpoint: Checkpoint) -> None:
    """Raises CheckpointError unless the text encoder is the one that the checkpoint's connectors read."""
    config = files.text_config
    inputs = next((checkpoint.shape(key)[1] for key in checkpoint.keys("connectors") if key.endswith("aggregate_embed.weight")), None)
    width, states = config.get("hidden_size"), config.get("num_hidden_layers")
    if inputs is not None and isinstance(width, int) and isinstance(states, int) and width * (states + 1) != inputs:
        raise CheckpointError(
            f"{files.path} and {checkpoint.path.name} do not belong together: the text encoder gives {states + 1} states of {width}, "
            f"{width * (states + 1):,} numbers a token; the connectors read {inputs:,}.",
            fix=_right_encoder(checkpoint),
        )
    wanted = _gemma_version(checkpoint)
    if wanted is not None and files.version != wanted:
        raise CheckpointError(
            f"{checkpoint.path.name} was trained with the text encoder {wanted}; {files.path} is {files.version or 'another one'}.",
            fix=_right_encoder(checkpoint),
        )


def _gemma_version(checkpoint: Checkpoint) -> str | None:
    """The text encoder that a checkpoint names in its header; 2.0 and 2.3 name none."""
    try:
        version = json.loads(checkpoint.metadata["gemma_source_checkpoint"])["gemma_version"]
    except (KeyError, TypeError, ValueError):
        return None
    return version if isinstance(version, str) else None


def _right_encoder(checkpoint: Checkpoint) -> str:
    if checkpoint.version.startswith(("2.0", "2.3")):
        name = "google/gemma-3-12b-it"
    else:
        name = "the text encoder file that Lightricks publishes with LTX-2.5, text_encoders/gemma4-12b-with-proj-ltx-2.5-bf16.safetensors"
    return f"Set pretrained_gemma_model_name_or_path to {name}."


@torch.no_grad()
def embed_captions(captions: Sequence[str], encoder: TextEncoder, connectors: LTX2TextConnectors) -> list[TextEmbedding]:
    """The embeddings of captions, in order: [T, D] each. An empty caption is valid: it is what guidance compares with."""
    tokens = tokenize(captions, encoder)
    states = encoder_states(encoder, tokens["input_ids"], tokens["attention_mask"])
    video, audio, _ = connectors(states.to(connectors.dtype), tokens["attention_mask"])
    return [TextEmbedding(video[index], audio[index]) for index in range(len(captions))]


def tokenize(captions: Sequence[str], encoder: TextEncoder) -> dict[str, Tensor]:
    """input_ids and attention_mask [B, max_tokens], padded on the left, a beginning token first, on the encoder's device.

    Gemma3's tokenizer puts that token there itself, Gemma4's does not; the official code sees to it for both.
    """
    tokenizer, length = encoder.tokenizer, encoder.max_tokens
    ids = torch.full((len(captions), length), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, caption in enumerate(captions):
        found = tokenizer(caption.strip(), truncation=True, max_length=length)["input_ids"]
        if found[:1] != [tokenizer.bos_token_id]:
            found = [tokenizer.bos_token_id, *found][:length]
        ids[row, length - len(found) :] = torch.tensor(found)
        mask[row, length - len(found) :] = 1
    return {"input_ids": ids.to(encoder.device), "attention_mask": mask.to(encoder.device)}


def encoder_states(encoder: TextEncoder, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Every hidden state of the language model: [B, T, hidden, layers + 1]. The embedding first, the last after the final norm."""
    inputs = {"input_ids": input_ids}
    if encoder.streamer is not None:  # the table stays in host memory, only the rows of these tokens leave it
        inputs = {"inputs_embeds": encoder.model.embed_tokens(input_ids.cpu()).to(encoder.device)}
    try:
        output = encoder.model(**inputs, attention_mask=attention_mask, output_hidden_states=True, use_cache=False)
        return torch.stack(output.hidden_states, dim=-1)
    finally:
        if encoder.streamer is not None:
            encoder.streamer.release()
