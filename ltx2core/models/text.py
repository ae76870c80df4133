"""From captions to what the transformer attends to: tokenizer, language model, connectors. Done once a caption, then cached."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ltx2core.errors import CheckpointError
from ltx2core.models.checkpoint import read_header

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors

MAX_TOKENS = 1024
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_REGISTERS = 128  # of a connector: the token count must be a multiple


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
class TextEncoder:
    """A tokenizer and the language model behind it. `max_tokens` is what every caption is padded to, on the left."""

    tokenizer: Any
    model: Any
    fingerprint: str
    max_tokens: int


def load_text_encoder(folder: Path, *, dtype: torch.dtype, device: torch.device | str = "cpu") -> TextEncoder:
    """The Gemma3 text model of a folder, without vision tower and language head. Raises CheckpointError when the folder holds none."""
    from transformers import AutoTokenizer, Gemma3Model, Gemma3TextModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # it writes to the terminal that the app draws on

    kind = _config(folder).get("model_type")
    if kind not in ("gemma3_text", "gemma3"):
        raise CheckpointError(
            f"{folder} holds a {kind!r} model; LTX-2 2.0 needs a Gemma3 text encoder.",
            fix="Set pretrained_gemma_model_name_or_path to google/gemma-3-12b-it's folder.",
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if kind == "gemma3_text":
        model = Gemma3TextModel.from_pretrained(folder, dtype=dtype, local_files_only=True)
    else:
        model = Gemma3Model.from_pretrained(folder, dtype=dtype, local_files_only=True).language_model
    max_tokens = max(_REGISTERS, min(MAX_TOKENS, tokenizer.model_max_length) // _REGISTERS * _REGISTERS)
    return TextEncoder(tokenizer, model.to(device).eval().requires_grad_(False), text_encoder_fingerprint(folder), max_tokens)


@torch.no_grad()
def embed_captions(captions: Sequence[str], encoder: TextEncoder, connectors: LTX2TextConnectors) -> list[TextEmbedding]:
    """The embeddings of captions, in order: [T, D] each. An empty caption is valid: it is what guidance compares with."""
    tokens = tokenize(captions, encoder)
    states = encoder_states(encoder, tokens["input_ids"], tokens["attention_mask"])
    video, audio, _ = connectors(states.to(connectors.dtype), tokens["attention_mask"].to(connectors.device))
    return [TextEmbedding(video[index], audio[index]) for index in range(len(captions))]


def tokenize(captions: Sequence[str], encoder: TextEncoder) -> dict[str, Tensor]:
    """input_ids and attention_mask [B, max_tokens], padded on the left, on the model's device."""
    batch = encoder.tokenizer(
        [caption.strip() for caption in captions], padding="max_length", max_length=encoder.max_tokens, truncation=True, return_tensors="pt"
    )
    return {name: batch[name].to(encoder.model.device) for name in ("input_ids", "attention_mask")}


def encoder_states(encoder: TextEncoder, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Every hidden state of the language model, embedding first: [B, T, hidden, layers + 1]."""
    output = encoder.model(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True, use_cache=False)
    return torch.stack(output.hidden_states, dim=-1)


def text_encoder_fingerprint(folder: Path) -> str:
    """Changes when the text encoder or its tokenizer does: 16 hex digits. Reads config, tokenizer and a part of every tensor."""
    digest = hashlib.sha256(json.dumps(_config(folder), sort_keys=True).encode())
    for path in sorted(folder.glob("*")):
        if path.name in _TOKENIZER_FILES:
            digest.update(path.name.encode() + path.read_bytes())
        elif path.suffix == ".safetensors":
            _, entries = read_header(path)
            with path.open("rb") as file:
                for key, entry in entries.items():
                    file.seek(entry.start)
                    digest.update(f"{key} {entry.shape}".encode() + file.read(min(512, entry.end - entry.start)))
    return digest.hexdigest()[:16]


def _config(folder: Path) -> dict[str, Any]:
    try:
        value = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder} holds no text encoder (no readable config.json).", fix="Set pretrained_gemma_model_name_or_path to its folder."
        ) from error
    assert isinstance(value, dict)
    return value
