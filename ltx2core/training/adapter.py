"""The LoRA on the transformer: where it sits, its float32 parameters under stable names, their first values.

Targets follow the mode, never a bare suffix: `to_k` alone would also match the audio attentions of a video-only run, and train
them on nothing (ostris/ai-toolkit #1020).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ltx2core.errors import ConfigError
from ltx2core.lora.layers import (
    AUDIO_ATTENTIONS,
    CROSS_ATTENTIONS,
    IN_A_BLOCK,
    OUTSIDE_BLOCKS,
    PROJECTIONS,
    VIDEO_ATTENTIONS,
    modality_of,
)
from ltx2core.lora.shape import LayerShape, Pattern, makes_sound, unmatched, value_for
from ltx2core.training.batches import generator_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peft import PeftConfig
    from torch import Tensor

    from ltx2core.config.lycoris import LokrSettings

_NAME = "default"  # PEFT's name of the one adapter


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSettings:
    """What decides an adapter's shape. alpha / rank scales its delta, alpha / sqrt(rank) of a rank-stabilised one (arXiv 2312.03732).

    targets: None for the mode's own. The patterns name layers that differ: in rank, alpha, and the share of the learning rate.
    audio_rate: that share for the layers whose values go into sound. dora: magnitude and direction of each row are learned apart
    (arXiv 2402.09353). lokr: a Kronecker product instead of B A (arXiv 2212.10650), whose rank and alpha stand there.
    """

    rank: int = 32
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None
    rank_pattern: Pattern = ()
    alpha_pattern: Pattern = ()
    rate_pattern: Pattern = ()
    audio_rate: float = 1.0
    rank_stabilised: bool = False
    dora: bool = False
    lokr: LokrSettings | None = None

    def shape_of(self, layer: str) -> LayerShape:
        """A layer's own rank, scale and share of the learning rate."""
        rank = int(value_for(layer, self.rank_pattern, self.rank))
        alpha = value_for(layer, self.alpha_pattern, self.alpha)
        rate = value_for(layer, self.rate_pattern, 1.0) * (self.audio_rate if makes_sound(layer) else 1.0)
        return LayerShape(rank=rank, scale=alpha / (math.sqrt(rank) if self.rank_stabilised else rank), rate=rate)

    def rates(self, parameters: Iterable[str]) -> dict[str, float]:
        """Of each of the adapter's parameters, by name."""
        return {name: self.shape_of(layer_of(name)).rate for name in parameters}

    @property
    def least_rank(self) -> int:
        """The smallest rank of any layer."""
        return min([self.rank, *(int(rank) for _, rank in self.rank_pattern)])

    @property
    def most_rank(self) -> int:
        return max([self.rank, *(int(rank) for _, rank in self.rank_pattern)])

    @property
    def kind(self) -> str:
        """What tells an adapter's maths from that of another one of the same rank and alpha; empty for the plain kind."""
        parts = ["rank-stabilised"] if self.rank_stabilised else []
        parts += ["dora"] if self.dora else []
        parts += [f"lokr {self.lokr.rank} {self.lokr.alpha:g} {self.lokr.factor} {self.lokr.decompose_both}"] if self.lokr else []
        parts += [f"{word} {pattern}" for word, pattern in (("ranks", self.rank_pattern), ("alphas", self.alpha_pattern)) if pattern]
        return " ".join(parts)


def target_modules(transformer: nn.Module, *, audio: bool, video: bool = True, wanted: Sequence[str] | None = None) -> list[str]:
    """Names of the linear layers that get a LoRA: by default the attention projections of what is trained.

    Both: all six attentions of a block. One alone: its own two, for what connects them has no part then. Gates and feed-forward
    layers come only when asked for. wanted: names or their endings, like `attn1.to_q`; those of what is not trained are left out.
    Raises ConfigError when an entry matches nothing.
    """
    if not (audio or video):
        raise ValueError("expected audio, video or both to be trained")
    allowed = {"video"} if not audio else {"audio"} if not video else {"video", "audio", "both"}
    attentions = tuple(name for name in VIDEO_ATTENTIONS + AUDIO_ATTENTIONS + CROSS_ATTENTIONS if modality_of(name) in allowed)
    endings = list(wanted) if wanted else [f"{attention}.{projection}" for attention in attentions for projection in PROJECTIONS]
    linear = [name for name, module in transformer.named_modules() if isinstance(module, nn.Linear)]
    elsewhere = [name for name in IN_A_BLOCK + OUTSIDE_BLOCKS if modality_of(name) not in allowed]  # the model may be built without
    lost = [ending for ending in endings if not any(_ends_with(name, ending) for name in linear + elsewhere)]
    if lost:
        raise ConfigError(
            [f"peft_lora_target_modules: no linear layer of the transformer is called {', '.join(lost)}."],
            fix=f"Leave the key out to train {', '.join(attentions)}, or name layers such as {attentions[0]}.to_q or ff.net.2.",
        )
    chosen = [name for name in linear if any(_ends_with(name, ending) for ending in endings) and modality_of(name) in allowed]
    if not chosen:
        here, there = ("video", "audio") if video else ("audio", "video")
        raise ConfigError(
            [f"peft_lora_target_modules names no layer of {here} alone, and this run trains without {there}."],
            fix=f"Name layers such as {attentions[0]}.to_q, or train {there} as well.",
        )
    return chosen


def check_patterns(settings: AdapterSettings, layers: Sequence[str]) -> None:
    """Raise ConfigError for names in the patterns that none of the layers that get a LoRA has."""
    keys = {
        "lora_rank_pattern": settings.rank_pattern,
        "lora_alpha_pattern": settings.alpha_pattern,
        "learning_rate_pattern": settings.rate_pattern,
    }
    problems = [
        f"{key}: no layer with a LoRA is called {', '.join(lost)}." for key, pattern in keys.items() if (lost := unmatched(pattern, layers))
    ]
    if problems:
        raise ConfigError(problems, fix=f"Use whole parts of their names, such as {layers[0]} or {layers[0].rpartition('.')[2]}.")


def add_adapter(
    transformer: nn.Module, settings: AdapterSettings, *, audio: bool, seed: int, video: bool = True
) -> dict[str, nn.Parameter]:
    """The new adapter's parameters by name (`transformer_blocks.0.attn1.to_q.lora_A.weight`), float32; nothing else learns.

    Its first values depend on `seed` alone: A is drawn (Kaiming uniform, as PEFT does), B is 0, so the model is still the base. Of a
    LoKr W1 is drawn and W2 is 0, or its second part is.
    """
    from peft import inject_adapter_in_model

    names = target_modules(transformer, audio=audio, video=video, wanted=settings.targets)
    config = _lora_config(settings, names) if settings.lokr is None else _lokr_config(settings.lokr, names)
    transformer.requires_grad_(False)
    inject_adapter_in_model(config, transformer, adapter_name=_NAME)
    if settings.lokr is not None:
        _scale_whole_matrices(transformer)
    parameters = _adapter_parameters(transformer)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.data = _first_value(transformer, name, parameter, seed).to(parameter.device)
            parameter.requires_grad_(True)
    return parameters


def _lora_config(settings: AdapterSettings, names: Sequence[str]) -> PeftConfig:
    from peft import LoraConfig

    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type, unused-ignore]
        lora_dropout=settings.dropout,
        use_rslora=settings.rank_stabilised,
        target_modules="|".join(re.escape(name) for name in names),
        rank_pattern={re.escape(name): settings.shape_of(name).rank for name in names} if settings.rank_pattern else {},
        alpha_pattern=_alphas(settings, names),
        init_lora_weights=False,
        use_dora=settings.dora,
    )


def _lokr_config(lokr: LokrSettings, names: Sequence[str]) -> PeftConfig:
    from peft import LoKrConfig

    return LoKrConfig(
        r=lokr.rank,
        alpha=lokr.alpha,  # type: ignore[arg-type, unused-ignore]
        decompose_both=lokr.decompose_both,
        decompose_factor=lokr.factor,
        target_modules="|".join(re.escape(name) for name in names),
        init_weights=False,
    )


def _scale_whole_matrices(transformer: nn.Module) -> None:
    """A LoKr of two whole matrices has no rank to divide alpha by: its scale is 1, as in LyCORIS."""
    module: Any
    for module in transformer.modules():
        whole = [getattr(module, name, {}) for name in ("lokr_w1", "lokr_w2")]
        if all(_NAME in part for part in whole):
            module.scaling[_NAME] = 1.0


def load_adapter(parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Copy saved values in, bit for bit. Raises KeyError or ValueError when they are another adapter's."""
    if set(parameters) != set(tensors):
        raise KeyError(f"{len(set(parameters) ^ set(tensors))} names differ")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.shape != tensors[name].shape:
                raise ValueError(f"{name} is {[*tensors[name].shape]}, not {[*parameter.shape]}")
            parameter.copy_(tensors[name])


def module_names(parameter_names: Iterable[str]) -> list[str]:
    """The layers that adapter parameters sit on, each once, in order."""
    return list(dict.fromkeys(layer_of(name) for name in parameter_names))


def layer_of(parameter_name: str) -> str:
    """The layer that a parameter of the adapter sits on."""
    return re.sub(r"\.(lora_[AB]\.weight|lora_magnitude_vector\.weight|lokr_\w+)$", "", parameter_name)


def _alphas(settings: AdapterSettings, names: Sequence[str]) -> dict[str, float]:
    """PEFT's alpha of each layer, where they differ."""
    if not settings.alpha_pattern:
        return {}
    return {re.escape(name): value_for(name, settings.alpha_pattern, settings.alpha) for name in names}


def _adapter_parameters(transformer: nn.Module) -> dict[str, nn.Parameter]:
    found = {
        name.replace(f".{_NAME}.weight", ".weight").removesuffix(f".{_NAME}"): parameter
        for name, parameter in transformer.named_parameters()
        if ".lora_A." in name or ".lora_B." in name or ".lora_magnitude_vector." in name or ".lokr_" in name
    }
    return dict(sorted(found.items()))


def _first_value(transformer: nn.Module, name: str, parameter: nn.Parameter, seed: int) -> Tensor:
    if name.endswith(".lora_magnitude_vector.weight"):
        return row_norms(base_weight(transformer, layer_of(name)))
    value = torch.zeros(parameter.shape, dtype=torch.float32)
    if name.endswith((".lora_A.weight", ".lokr_w1", ".lokr_w1_a", ".lokr_w1_b", ".lokr_w2_a")):
        nn.init.kaiming_uniform_(value, a=math.sqrt(5), generator=generator_for(seed, "adapter", name))
    return value


def base_weight(transformer: nn.Module, layer: str) -> Tensor:
    """The frozen weight [out, in] of a layer with an adapter, float32."""
    module: Any = transformer.get_submodule(layer)
    weight: Tensor = module.base_layer.weight
    return weight.detach().float()


def scale_of(transformer: nn.Module, layer: str) -> float:
    """What a layer's adapter is multiplied by, as PEFT computes it."""
    module: Any = transformer.get_submodule(layer)
    return float(module.scaling[_NAME])


def row_norms(weight: Tensor) -> Tensor:
    """The length of each row of a weight [out, in]: [out]."""
    return weight.square().sum(dim=1).sqrt()


def _ends_with(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")
