"""Steps that were measured, and what the models of time and memory in ltx2core/planning make of them now. Loads no torch.

python -m tests.benchmarks.step_points GRID.jsonl ... > now.jsonl     the same lines, as they would be predicted now
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltx2core.hardware.device_memory import CONTEXT_BYTES
from ltx2core.hardware.rates import Rates, rates_from_json
from ltx2core.lora.layers import AUDIO_ATTENTIONS, CROSS_ATTENTIONS, PROJECTIONS, VIDEO_ATTENTIONS
from ltx2core.planning.flops import BatchShape
from ltx2core.planning.method_costs import EIGHT_BIT_MOMENTS_BYTES, MOMENTS_BYTES
from ltx2core.planning.model_sizes import released_sizes
from ltx2core.planning.step_memory import GIB, step_bytes
from ltx2core.planning.step_plan import Layout, StepNeed
from ltx2core.planning.step_time import SHARES, STORED_BYTES, Shares, step_seconds, step_speed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ltx2core.models.quantised import EightBit, Storage

TEXT = 1024
_SOUND = {1024: 25, 2688: 49, 6144: 121, 14_080: 121}  # tokens beside so many of the picture, where a line does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A step as it was held, and its seconds."""

    case: str
    tokens: int
    batch: int
    audio: bool
    rank: int
    storage: Storage
    precision: EightBit
    layout: Layout
    seconds: float | None  # None: other work was on its way to the host's other cards
    rates: Rates
    process_gib: float | None = None
    reserved_gib: float | None = None  # of that, what PyTorch's allocator held
    adam8: bool = False
    sound_tokens: int | None = None
    inputs_ahead: int = 1  # as it was before lines said so

    @property
    def predicted_gib(self) -> float:
        """What the process holds by the model of memory, CUDA's context counted in."""
        return (step_bytes(self._need, self.layout).total + CONTEXT_BYTES) / GIB

    @property
    def predicted_reserved_gib(self) -> float:
        """The allocator's part of that."""
        found = step_bytes(self._need, self.layout)
        return (found.total - found.kernels) / GIB

    def predicted(self, shares: Shares = SHARES) -> float:
        """Seconds by the model."""
        sizes, batch = released_sizes("2.0", joint=self.audio), self._batch
        speed = step_speed(
            sizes.shape(self._rank_of),
            batch,
            self.rates,
            width=sizes.width,
            storage=self.storage,
            precision=self.precision,
            shares=shares,
        )
        return step_seconds(self._need, self.layout, speed, ahead=self.inputs_ahead)

    @property
    def _batch(self) -> BatchShape:
        return BatchShape(count=self.batch, video=self.tokens, audio=self._sound, text=TEXT)

    @property
    def _sound(self) -> int:
        if not self.audio:
            return 0
        return _SOUND[self.tokens] if self.sound_tokens is None else self.sound_tokens

    @property
    def _lengths(self) -> dict[str, int]:
        """Tokens of all samples."""
        return {name: self.batch * getattr(self._batch, name) for name in ("video", "audio", "text")}

    def _rank_of(self, layer: str) -> int:
        attention, _, projection = layer.partition(".")
        attentions = VIDEO_ATTENTIONS + (AUDIO_ATTENTIONS + CROSS_ATTENTIONS if self.audio else ())
        return self.rank if attention in attentions and projection in PROJECTIONS else 0

    @property
    def _need(self) -> StepNeed:
        sizes = released_sizes("2.0", joint=self.audio)
        return StepNeed(
            tokens=self.tokens * self.batch,
            width=sizes.width,
            itemsize=2,
            num_blocks=sizes.blocks,
            block_bytes=int(sizes.block_numbers * STORED_BYTES[self.storage]),
            outside_bytes=sizes.outside_numbers * 2 + sizes.blocks * sizes.small_bytes,
            lora_numbers=sizes.lora_numbers(self._rank_of),
            joint=self.audio,
            kept=sizes.kept.bytes(**self._lengths, rank=self.rank),
            inputs=sizes.inputs_bytes(video=self._lengths["video"], audio=self._lengths["audio"]),
            rounded=sizes.rounded_bytes(self.storage),
            packed=self.storage == "nf4",
            state_bytes=EIGHT_BIT_MOMENTS_BYTES if self.adam8 else MOMENTS_BYTES,
        )


def read_points(paths: Iterable[Path]) -> list[Point]:
    """Lines of plan_grid that ran as they were planned, each with the rates that were measured before it."""
    found: list[Point] = []
    for path in paths:
        rates: Rates | None = None
        for text in path.read_text(encoding="utf-8").splitlines():
            line: dict[str, Any] = json.loads(text)
            if "rates" in line and "case" not in line:
                rates = rates_from_json(line["rates"])
            elif rates is not None and "seconds" in line and "error" not in line and not line.get("rungs"):
                found.append(_point(line, rates))
    return found


def _point(line: dict[str, Any], rates: Rates) -> Point:
    names = (
        "case",
        "tokens",
        "batch",
        "audio",
        "rank",
        "storage",
        "precision",
        "seconds",
        "process_gib",
        "reserved_gib",
        "adam8",
        "sound_tokens",
        "inputs_ahead",
    )
    return Point(**{name: line[name] for name in names if name in line}, layout=Layout(**line["plan"]), rates=rates)


def _as_line(point: Point) -> dict[str, object]:
    kind = "" if point.case.startswith(point.storage) else f"{point.storage} "  # of a random plan, whose name does not tell
    measured = {"case": f"{kind}{point.case} ({point.rates.device})", "seconds": point.seconds}
    planned = {"planned_seconds": round(point.predicted(), 4)}
    if point.process_gib is None:  # other cases were on its card: what CUDA itself held cannot be told
        return measured | planned | {"process_gib": point.reserved_gib, "planned_gib": round(point.predicted_reserved_gib, 3)}
    return measured | planned | {"process_gib": point.process_gib, "planned_gib": round(point.predicted_gib, 3)}


def main() -> None:
    for point in read_points([Path(name) for name in sys.argv[1:]]):
        print(json.dumps(_as_line(point)))


if __name__ == "__main__":
    main()
