"""A step's forward and backward, run as it is the first two times that a shape comes, and from then on as one captured CUDA graph.

Launching tens of thousands of kernels takes the host longer than the card takes to run them; a graph is launched at once. Each graph
belongs to one shape of batch and reads static copies of its inputs. A few are kept; they share one pool of memory, for no two run at
once. A shape is captured right after its second run, when all that a run makes once (rotary tables, host memory, compiled kernels) is
there and cannot have been pushed out by another shape. Nothing is captured on a CPU.

Where there are more shapes than graphs, the others run as they are, compiled. Making room for each shape that comes would capture without
end, and a capture costs more than many steps without one; so a shape takes a graph's place only once it has come clearly more often.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ltx2core.models.text import TextEmbedding

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from ltx2core.training.objective import Noised
    from ltx2core.training.step import Drawn

MOST_GRAPHS = 6
_COUNTED = 1024  # runs after which counts are halved: a dataset that has ended does not hold its graphs for ever
_AHEAD = 32  # runs that a shape must be ahead by: chance alone does not get it there


@dataclass(frozen=True, slots=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    values: Tensor
    alive: object  # what the graph reads and nothing else may free


class StepRunner:
    """Runs `compute` on what was drawn. compute: forward and backward; a few scalars stacked in one tensor come back."""

    def __init__(
        self,
        compute: Callable[[Drawn], Tensor],
        *,
        capture: bool,
        before: Callable[[], None] = lambda: None,
        join: Callable[[], None] = lambda: None,
        holds: Callable[[], object] = lambda: None,
        crowded: Callable[[int], None] = lambda _: None,
        most: int = MOST_GRAPHS,
    ) -> None:
        """before: makes sure that nothing is under way; called before a capture, and after it, whose events nobody outside can wait for.

        join: brings other streams back to the current one, as a capture must before it ends. holds: what outlives a capture because the
        graph reads it. crowded: told once, with how many graphs there are, when a shape finds no room among them. most: graphs that are
        kept.
        """
        self._compute, self.capture = compute, capture
        self._before, self._join, self._holds, self._crowded = before, join, holds, crowded
        self._most = most
        self._graphs: dict[Hashable, _Captured] = {}
        self._runs: Counter[Hashable] = Counter()  # how often each shape came, the long past counting less
        self._told = False
        self._pool: tuple[int, int] | None = None
        self.captured = 0  # how many captures there were: a number that stays still after warm-up
        self.replayed: bool | None = None  # whether the newest run was a replay; None right after a capture, which computes nothing

    def run(self, drawn: Drawn, variant: Hashable = None) -> Tensor:
        """The values of a step, on the device. They are the caller's own. variant: what else tells one step's kernels from another's."""
        shapes, self.replayed = _key(drawn), False
        if not self.capture or shapes is None:
            return self._compute(drawn)
        key = (shapes, variant)
        self._count(key)
        if key in self._graphs:
            return self._replay(key, drawn)
        values = self._compute(drawn)
        if self._runs[key] > 1 and self._makes_room(key):  # shapes that come once are not worth a graph
            self._graphs[key] = self._record(drawn)
        return values

    def _count(self, key: Hashable) -> None:
        self._runs[key] += 1
        if self._runs.total() > _COUNTED:
            self._runs = Counter({each: count // 2 for each, count in self._runs.items() if count > 1})

    def _makes_room(self, key: Hashable) -> bool:
        """Whether there is a place for this shape's graph: a free one, or that of a shape which comes far less often."""
        if len(self._graphs) < self._most:
            return True
        least = min(self._graphs, key=lambda each: self._runs[each])
        if self._runs[key] > 2 * self._runs[least] + _AHEAD:
            del self._graphs[least]
            return True
        if not self._told:
            self._told = True
            self._crowded(self._most)
        return False

    def forget(self) -> None:
        """Drop every graph and its memory: what they were made for has changed, or memory has run out."""
        self._graphs.clear()
        self._runs.clear()
        self._pool = None

    def _record(self, drawn: Drawn) -> _Captured:
        static = [tensor.clone() for tensor in _tensors(drawn)]
        inputs = _with_tensors(drawn, static)
        self._before()
        torch.cuda.synchronize()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool):  # type: ignore[arg-type]
                try:
                    values = self._compute(inputs)
                finally:
                    self._join()  # or an error of the capture would hide what went wrong: most often, memory that ran out
        finally:
            self._before()
        self.captured += 1
        self.replayed = None
        return _Captured(graph, static, values, self._holds())

    def _replay(self, key: Hashable, drawn: Drawn) -> Tensor:
        captured, self.replayed = self._graphs[key], True
        torch._foreach_copy_(captured.inputs, _tensors(drawn))
        captured.graph.replay()
        return captured.values.clone()


def _key(drawn: Drawn) -> Hashable | None:
    """What two batches must share to share a graph; None for one whose forward depends on more than shapes."""
    batch = drawn.batch
    if batch.reference is not None:
        return None
    return (
        batch.grid,
        tuple(batch.fps.tolist()),
        tuple(tuple(tensor.shape) for tensor in _tensors(drawn)),
        drawn.video is None,
        drawn.audio is None,
        drawn.rollout_steps,
        batch.features is None,
    )


def _tensors(drawn: Drawn) -> list[Tensor]:
    parts = [part for part in (drawn.video, drawn.audio) if part is not None]
    found = [tensor for part in parts for tensor in (part.clean, part.noise, part.noisy, part.sigma, part.timesteps, part.learned)]
    features = [] if drawn.batch.features is None else [drawn.batch.features]
    return [*found, drawn.batch.text.video, drawn.batch.text.audio, *features, *drawn.kept]


def _with_tensors(drawn: Drawn, tensors: list[Tensor]) -> Drawn:
    names = ("clean", "noise", "noisy", "sigma", "timesteps", "learned")
    rest = iter(tensors)

    def refilled(part: Noised | None) -> Noised | None:
        return None if part is None else replace(part, **{name: next(rest) for name in names})

    video, audio = refilled(drawn.video), refilled(drawn.audio)
    text = TextEmbedding(next(rest), next(rest))
    features = None if drawn.batch.features is None else next(rest)
    return replace(drawn, video=video, audio=audio, batch=replace(drawn.batch, text=text, features=features), kept=tuple(rest))
