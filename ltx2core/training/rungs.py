"""What batches of each kind needed on this card in earlier runs, so that the next one begins where the last got to.

A small JSON beside the cache. Its entries belong to a card, a model as it is stored and a version of PyTorch, and each says how much memory
was free: with more than that, the faster way is tried again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

from ltx2core.runs.files import write_json

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.planning.step_plan import StepPlan

_MORE_FREE = 256 << 20  # bytes: that much differs from start to start


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """The levers of a plan that memory decides."""

    streamed: int
    slots: int
    kept: int
    inputs_to_host: bool
    attention: int = 0
    turned: bool = False

    def applied_to(self, plan: StepPlan) -> StepPlan:
        """The more frugal of the two in each lever."""
        slots = min(plan.slots or self.slots, self.slots or plan.slots)
        return replace(
            plan,
            streamed=max(plan.streamed, self.streamed),
            slots=slots,
            kept=min(plan.kept, self.kept),
            inputs_to_host=plan.inputs_to_host or self.inputs_to_host,
            attention=min(plan.attention, self.attention),
            turned=plan.turned and self.turned,
        )


def rung_of(plan: StepPlan) -> Rung:
    return Rung(**{name: getattr(plan, name) for name in Rung.__slots__})


class Rungs:
    """The rungs of one card and model. `name` is what they are filed under; free_bytes: of the card, before anything was loaded."""

    def __init__(self, path: Path, *, name: str, free_bytes: int) -> None:
        self.path = path
        self._name, self._free_bytes = name, free_bytes

    def of(self, bucket: str) -> Rung | None:
        """What a bucket needed when no more memory was free than now; None when it is not known."""
        entry = self._read().get(self._name, {}).get(bucket)
        if entry is None or self._free_bytes > entry["free_bytes"] + _MORE_FREE:
            return None
        return Rung(**entry["rung"])

    def remember(self, bucket: str, plan: StepPlan) -> None:
        """Write down what has worked. Raises StorageError where that cannot be written."""
        found = self._read()
        found.setdefault(self._name, {})[bucket] = {"free_bytes": self._free_bytes, "rung": asdict(rung_of(plan))}
        write_json(self.path, found)

    def _read(self) -> dict[str, dict[str, _Entry]]:
        """The file's entries that have the right form: what somebody has edited by hand may have none."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(found, dict):
            return {}
        return {
            name: {bucket: entry for bucket, entry in buckets.items() if _is_whole(entry)}
            for name, buckets in found.items()
            if isinstance(buckets, dict)
        }


class _Entry(TypedDict):
    free_bytes: int
    rung: dict[str, Any]


def _is_whole(entry: object) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("free_bytes"), int):
        return False
    rung = entry.get("rung")
    return isinstance(rung, dict) and rung.keys() == set(Rung.__slots__) and all(isinstance(value, int) for value in rung.values())
