"""Keys of memory and precision that do nothing beside others: which, and why. What is merely switched off says so in `config check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.config.method_checks import changed
from ltx2core.config.model import EIGHT_BIT_PRODUCTS
from ltx2core.runs.events import Notice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ltx2core.config.train import TrainConfig

_RAMTORCH = ("ramtorch", "ramtorch_transformer_percent")
_PRODUCTS = ("quantize_activations", "sdnq_use_quantized_matmul")


@dataclass(frozen=True, slots=True)
class Idle:
    """Keys that are set and do nothing, why (a clause), and what helps."""

    names: tuple[str, ...]
    why: str
    fix: str = "Remove what you do not want."


def idle_keys(config: TrainConfig) -> list[Idle]:
    """Those of memory and precision, each with its reason."""
    return [Idle(names, idle.why, idle.fix) for idle in _idle(config) if (names := tuple(changed(config, idle.names)))]


def idle_notices(config: TrainConfig, *, file: str) -> list[Notice]:
    """A warning for each reason."""
    return [
        Notice(code="no_effect", level="warning", text=f"{file} {', '.join(idle.names)}: no effect, since {idle.why}.", fix=idle.fix)
        for idle in idle_keys(config)
    ]


def _idle(config: TrainConfig) -> Iterator[Idle]:
    if config.enable_group_offload:
        yield Idle(("musubi_blocks_to_swap", *_RAMTORCH), "enable_group_offload lets every block wait in RAM")
    elif config.ramtorch:
        yield Idle(("musubi_blocks_to_swap",), "ramtorch says how many blocks wait in RAM")
    precision = config.base_model_precision
    if precision.startswith("nf4"):
        yield Idle((*_PRODUCTS, "fp8_gradients"), "weights of 4 bits are widened for each product")
    elif not precision.startswith(("int8", "fp8")):
        fix = 'Set base_model_precision to "int8-torchao" or "fp8-torchao", or remove them.'
        yield Idle((*_PRODUCTS, "fp8_gradients"), "weights keep 16 bits", fix)
    elif precision.startswith("int8"):
        yield Idle(("fp8_gradients",), "weights are in int8", 'Set base_model_precision to "fp8-torchao", or remove it.')
    elif not (precision in EIGHT_BIT_PRODUCTS or config.quantize_activations or config.sdnq_use_quantized_matmul):
        why = f"{precision} widens weights for each product"
        yield Idle(("fp8_gradients",), why, 'Set base_model_precision to "fp8-torchao", or remove it.')
