"""lycoris_config: the file with LyCORIS settings, as its users write it. LoKr is what is built; PEFT computes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.config.reading import read_settings
from ltx2core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_KNOWN = {"algo", "linear_dim", "linear_alpha", "factor", "decompose_both", "full_matrix", "multiplier", "apply_preset"}
_CLASSES = {"Attention": "attn", "LTX2Attention": "attn", "FeedForward": "ff"}
FULL_RANK = 10_000  # beyond every width of a layer: LyCORIS' users write it for matrices that are not split any further


@dataclass(frozen=True, slots=True, kw_only=True)
class LokrSettings:
    """A LoKr: delta = alpha / rank (W1 x W2), a Kronecker product; W2 is split into two of `rank` where it is wider than twice that."""

    rank: int = FULL_RANK
    alpha: float = 1.0
    factor: int = 16  # how W1 and W2 share a layer's width; -1 for as evenly as can be
    decompose_both: bool = False  # split W1 too
    feed_forward: bool = False  # sit on feed-forward layers as well as on attentions


def read_lycoris(path: Path) -> LokrSettings:
    """The settings in a file. Raises ConfigError with every problem."""
    values = read_settings(path, notes=[])
    name = path.name
    if not isinstance(values, dict):
        raise ConfigError([f"{name} holds no group of keys in braces."], fix='Write {"algo": "lokr"}.')
    problems = [f"{name} {key}: LyCORIS' {key} is not built; remove it." for key in sorted(values.keys() - _KNOWN)]
    if (algo := values.get("algo")) != "lokr":
        problems.append(f'{name} algo = "{algo}": of LyCORIS only LoKr is built; use "lokr", or lora_type "standard".')
    if values.get("multiplier", 1.0) != 1.0:
        problems.append(f"{name} multiplier = {values['multiplier']}: a LoKr is trained at full strength; use 1.0.")
    numbers = {
        "linear_dim": _number(values, "linear_dim", FULL_RANK, least=1, name=name, problems=problems),
        "linear_alpha": _number(values, "linear_alpha", 1.0, least=1e-6, name=name, problems=problems),
        "factor": _number(values, "factor", 16, least=-1, name=name, problems=problems),
    }
    feed_forward = _targets(values.get("apply_preset"), name, problems)
    if problems:
        raise ConfigError(problems)
    return LokrSettings(
        rank=FULL_RANK if values.get("full_matrix") else int(numbers["linear_dim"]),
        alpha=numbers["linear_alpha"],
        factor=int(numbers["factor"]),
        decompose_both=bool(values.get("decompose_both", False)),
        feed_forward=feed_forward,
    )


def _number(values: dict[str, object], key: str, default: float, *, least: float, name: str, problems: list[str]) -> float:
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < least:
        problems.append(f"{name} {key} = {value}: it is a number of at least {least:g}; use {default:g}.")
        return default
    return float(value)


def _targets(preset: object, name: str, problems: list[str]) -> bool:
    """Whether feed-forward layers are named; attentions always are. Other parts of a preset are named as problems."""
    if preset is None:
        return False
    if not isinstance(preset, dict):
        problems.append(f"{name} apply_preset is no group of keys in braces; remove it.")
        return False
    problems += [f"{name} apply_preset.{key} is not built; remove it." for key in sorted(preset.keys() - {"target_module"})]
    modules = preset.get("target_module", ["Attention"])
    unknown = [str(one) for one in modules if one not in _CLASSES] if isinstance(modules, list) else [str(modules)]
    if unknown:
        problems.append(f"{name} apply_preset.target_module: there is no {', '.join(unknown)} here; use {', '.join(_CLASSES)}.")
    return isinstance(modules, list) and "FeedForward" in modules
