"""What tests of LoRA files share: transformers of every version, very small, and adapters on them that are far from their start."""

from __future__ import annotations

import torch
from diffusers import LTX2VideoTransformer3DModel
from torch import nn

from ltx2core.training.adapter import AdapterSettings, add_adapter

_SIZES = {
    "in_channels": 8,
    "out_channels": 8,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "cross_attention_dim": 32,
    "audio_in_channels": 8,
    "audio_out_channels": 8,
    "audio_num_attention_heads": 2,
    "audio_attention_head_dim": 8,
    "audio_cross_attention_dim": 16,
    "num_layers": 2,
    "caption_channels": 16,
    "rope_type": "split",
}
_SINCE_23 = {
    "gated_attn": True,
    "cross_attn_mod": True,
    "audio_gated_attn": True,
    "audio_cross_attn_mod": True,
    "use_prompt_embeddings": False,
    "perturbed_attn": True,
}
VERSIONS: dict[str, dict[str, object]] = {
    "2.0": {},
    "2.3": _SINCE_23,
    "2.5": _SINCE_23 | {"ff_bias": False, "use_keyframes_abs_pos_embedding": True},
}


def tiny_transformer(version: str = "2.0") -> LTX2VideoTransformer3DModel:
    """A transformer with the layers of this version, in float32, its values from a seed."""
    torch.manual_seed(0)
    return LTX2VideoTransformer3DModel(**_SIZES, **VERSIONS[version]).eval()


def linear_layers(transformer: nn.Module) -> list[str]:
    return [name for name, module in transformer.named_modules() if isinstance(module, nn.Linear)]


def trained_adapter(
    transformer: nn.Module, *, rank: int = 4, alpha: float = 10.0, targets: tuple[str, ...] | None = None
) -> dict[str, nn.Parameter]:
    """An adapter on the transformer whose values, B's too, are drawn from a seed."""
    parameters = add_adapter(transformer, AdapterSettings(rank=rank, alpha=alpha, targets=targets), audio=True, seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.copy_(torch.randn_like(parameter) / 8)
    return parameters


def answer_of(transformer: LTX2VideoTransformer3DModel) -> torch.Tensor:
    """What the transformer makes of one fixed input: all its outputs in a row."""
    draw = torch.Generator().manual_seed(2)
    config = transformer.config
    text, audio_text = (16, 16) if config.use_prompt_embeddings else (32, 16)
    with torch.no_grad():
        video, audio = transformer(
            hidden_states=torch.randn(1, 8, config.in_channels, generator=draw),
            audio_hidden_states=torch.randn(1, 6, config.audio_in_channels, generator=draw),
            encoder_hidden_states=torch.randn(1, 5, text, generator=draw),
            audio_encoder_hidden_states=torch.randn(1, 5, audio_text, generator=draw),
            timestep=torch.tensor([700.0]),
            sigma=torch.tensor([700.0]),
            num_frames=2,
            height=2,
            width=2,
            fps=25.0,
            audio_num_frames=6,
            return_dict=False,
        )
    return torch.cat([video.flatten(), audio.flatten()])
