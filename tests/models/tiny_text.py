"""Tiny random text encoders, saved by transformers itself in the layouts that people have on disk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from ltx2core.models.nano.tokenizer import train_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

CAPTIONS = ["", "a red square moves to the right while a hum is heard", "  a blue circle   " * 60]
_COMMON: dict[str, Any] = {
    "vocab_size": 768,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "sliding_window": 16,  # far below the 128 tokens, so that it matters
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}


def gemma3_config() -> Any:
    """As wide and deep as the text encoder of the 2.0 and 2.3 reference checkpoints: 4 states of 24."""
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(**_COMMON, hidden_size=24, query_pre_attn_scalar=8, rope_scaling={"rope_type": "linear", "factor": 8.0})


def gemma4_config() -> Any:
    """As that of the 2.5 reference checkpoint: 4 states of 32. Keys serve as values in the full layer, as in the 12B."""
    from transformers import Gemma4UnifiedTextConfig

    options = {"global_head_dim": 16, "num_global_key_value_heads": 1, "attention_k_eq_v": True}
    return Gemma4UnifiedTextConfig(**_COMMON, hidden_size=32, **options)


def randomise(model: Any, seed: int = 0) -> Any:
    """Give every weight a value: norms and scalars are made as ones and zeros, which would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator) * 0.1
            tensor.copy_(noise if tensor.ndim > 1 else noise + float("layer_scalar" in name))
    return model.eval()


def save_tokenizer(folder: Path) -> None:
    train_tokenizer().save_pretrained(folder)


def save_gemma3(folder: Path) -> type[Any]:
    """A folder with the text model alone; the class that reads it."""
    from transformers import Gemma3TextModel

    return _save(Gemma3TextModel, gemma3_config(), folder)


def save_gemma3_that_sees(folder: Path) -> type[Any]:
    """A folder in shards, with vision tower and language head, as google/gemma-3-12b-it is; the class that reads it."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, SiglipVisionConfig

    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    config = Gemma3Config(text_config=gemma3_config(), vision_config=vision, mm_tokens_per_image=4, image_token_index=767)
    return _save(Gemma3ForConditionalGeneration, config, folder)


def save_gemma3_that_writes(folder: Path) -> type[Any]:
    """A folder with a language head, as the text-only Gemma3 models are; the class that reads it."""
    from transformers import Gemma3ForCausalLM

    return _save(Gemma3ForCausalLM, gemma3_config(), folder)


def _save(model_class: type[Any], config: Any, folder: Path) -> type[Any]:
    many = "vision_config" in config.to_dict()
    randomise(model_class(config)).to(torch.bfloat16).save_pretrained(folder, max_shard_size="30KB" if many else "1GB")
    save_tokenizer(folder)
    return model_class


def read_by_transformers(model_class: type[Any], folder: Path, dtype: torch.dtype) -> Any:
    """The language model of a folder, as transformers loads it."""
    model = model_class.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
    return getattr(model, "model", model)  # without its head, as the official code runs it


def save_gemma4_pack(path: Path, *, version: str | None = "gemma4-12b-ltx-v1") -> Any:
    """A single file as Lightricks' text encoder of 2.5: config in the header, tokenizer as bytes, no beginning token. The text model
    comes back in bf16, as transformers loads it."""
    from transformers import Gemma4UnifiedTextModel

    path.parent.mkdir(parents=True, exist_ok=True)
    _save(Gemma4UnifiedTextModel, gemma4_config(), path.parent / "plain")
    model = read_by_transformers(Gemma4UnifiedTextModel, path.parent / "plain", torch.bfloat16)
    tokenizer = train_tokenizer()
    text = json.loads(tokenizer.backend_tokenizer.to_str())
    text["post_processor"] = None
    special = {name: getattr(tokenizer, name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors["vision_model.patch_dense.weight"] = torch.zeros(4, 4, dtype=torch.bfloat16)
    tensors["text_embedding_projection.video_aggregate_embed.weight"] = torch.zeros(64, 128, dtype=torch.bfloat16)
    tensors["tokenizer_json"] = _bytes(json.dumps(text))
    tensors["hf_asset__tokenizer_config.json"] = _bytes(json.dumps({**special, "model_max_length": 1 << 40}))
    config = {"model_type": "gemma4_unified", "text_config": model.config.to_dict(), **({"gemma_version": version} if version else {})}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"gemma_config": json.dumps(config)})
    return model


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
