"""The blocks of a transformer as the step engine runs them: compiled once, weights resident or streamed, activations kept or not.

diffusers' transformer calls its blocks one after another; each is replaced by a `BlockAt` that runs the one skeleton with that block's
weights. In training a block is one node of autograd, and its backward does in a fixed order what hooks could only do by chance: fetch
the weights, compute again what was not kept, give the gradients away, let the next weights come.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ltx2core.models.attention import kernel_for
from ltx2core.models.block_parts import BlockInParts, Computed, check_parts
from ltx2core.models.levels import Levels, use_levels
from ltx2core.offload.activations import HostActivations
from ltx2core.offload.ring import Ring, join_captured
from ltx2core.offload.staging import Staging
from ltx2core.planning.model_sizes import BUSY_TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from diffusers import LTX2VideoTransformer3DModel
    from torch.nn.attention import SDPBackend

    from ltx2core.models.block_parts import Attended
    from ltx2core.models.fused_block import Skeleton
    from ltx2core.offload.host_memory import Master
    from ltx2core.offload.layout import BlockWeights
    from ltx2core.training.flat_adapter import FlatAdapter
    from ltx2core.training.tread import Router

Keep = Literal["all", "inputs", "host"]
"""What a block leaves for its backward: all that it computed, its inputs alone (it is computed again), or those in host memory."""


_MOST_COMPILED = 128  # shapes of a block: buckets x with and without sound, given tokens, a route, gradients


@dataclass(kw_only=True)
class FastBlocks:
    """All blocks. weights: of each; ring_index: its place among the streamed ones, None for a block that lies on the card.

    attention: the blocks that keep what their self-attention over the picture found, and skip it when they are computed again.
    """

    skeleton: Skeleton
    weights: Sequence[BlockWeights]
    adapter: FlatAdapter
    keep: Sequence[Keep]
    attention: Collection[int] = ()
    ring: Ring | None = None
    ring_index: Sequence[int | None] = ()
    compile: bool = True
    backend: str = "inductor"  # of the compiler
    beside: bool = True  # whether the sound's kernels run beside the picture's, on a card
    compile_lookers: bool = False  # also forwards without gradients: those of a training step, whose shapes come again
    # Other tensors for a block, given those that it has, for a while: further LoRAs of samples. Never while training.
    extra: Callable[[int, Mapping[str, Tensor | None]], Mapping[str, Tensor | None]] | None = None
    busy_tokens: int = BUSY_TOKENS  # of a sample, from which on those of a batch are drawn in turn
    runs: int = 0  # of blocks, forwards: how often something was computed, for tests and telemetry
    levels: Levels = field(init=False)
    _parts: BlockInParts = field(init=False)
    _drawing: BlockInParts = field(init=False)  # without the compiler, on one stream
    host: HostActivations = field(init=False)
    _tensors: list[dict[str, Tensor | None]] = field(init=False)  # of each block, where they are when it runs: in place, or in its slot

    def __post_init__(self) -> None:
        self._drawing = BlockInParts(self.skeleton.block, compiled=lambda part: part, beside=False)
        compiled: Callable[[nn.Module], Callable[..., Any]] = lambda part: part  # noqa: E731
        if self.compile:
            # The compiler's own limit, 8, ends a run with an error: two buckets whose tokens are routed, with and without gradients, are 8.
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_COMPILED)
            # What is cheap is computed again in a block's backward rather than kept, also where a product needs it: a fifth less memory.
            torch._functorch.config.ban_recompute_materialized_backward = False
            # Also where it was used long before: a modulated norm, 6 in 100 with the text's modulation of 2.3.
            torch._functorch.config.ban_recompute_used_far_apart = False
            compiled = partial(torch.compile, backend=self.backend, fullgraph=True, dynamic=False)
        self._parts = BlockInParts(self.skeleton.block, compiled=compiled, beside=self.beside)
        self.use_attention(None)
        self.host = HostActivations()
        self._find_tensors()

    def use_attention(self, backend: SDPBackend | None) -> None:
        """Compute self-attention over pictures with this kernel; None leaves the choice to PyTorch."""
        self.skeleton.use_attention(backend)
        self._parts.use_attention(kernel_for(backend, self.weights[0].rest.device))

    def weights_changed(self) -> None:
        """Take the weights anew, in the ring's slots, too: after they were filled."""
        if self.ring is not None:
            self.ring.reload()
        self._find_tensors()

    def let_go(self) -> None:
        """Hold no weights, until `weights_changed` takes them anew."""
        self._tensors = []
        self.skeleton.point(dict.fromkeys(self.skeleton.places))

    def _find_tensors(self) -> None:
        self._tensors = [
            weights.tensors(weights.matrices if place is None or self.ring is None else self.ring.slot_of(place))
            for weights, place in zip(self.weights, self.ring_index or [None] * len(self.weights), strict=True)
        ]

    def install(self, transformer: LTX2VideoTransformer3DModel) -> None:
        """Put these blocks in the place of the transformer's own."""
        self.levels = use_levels(transformer)
        transformer.transformer_blocks = nn.ModuleList([BlockAt(self, index) for index in range(len(self.weights))])

    def stream(self, masters: Mapping[int, Master], *, slots: int, staged: bool = False) -> None:
        """Let these blocks, by their numbers in forward order, travel through a new ring of as many slots; none: no ring.

        staged: whether some of them come through staging buffers.
        """
        if self.ring is not None:
            self.ring.close()
        self.ring = None
        self.let_go()  # the memory of the ring before is free for the new one
        indices = list(masters)
        self.ring_index = [indices.index(index) if index in masters else None for index in range(len(self.weights))]
        device = self.weights[0].rest.device
        if indices:
            staging = Staging(device=device) if staged else None
            slots = max(1, min(slots, len(indices)))
            self.ring = Ring(list(masters.values()), slots=slots, device=device, staging=staging)
        self._find_tensors()

    @property
    def capturable(self) -> bool:
        """Whether a step can be captured: not while the host has a part in its copies."""
        return self.host.refused is None and (self.ring is None or self.ring.capturable)

    def settle(self) -> None:
        """Make sure that nothing of a sweep is under way: around a capture, and after a step that was broken off."""
        self._parts.join()
        self.host.settle()
        if self.ring is not None:
            self.ring.settle()

    def join(self) -> None:
        """Bring the copy streams back to the compute stream: how a capture ends, whatever it was broken off by."""
        join_captured(self._parts.side)
        self.host.join()
        if self.ring is not None:
            self.ring.join()

    def streamed(self, index: int) -> bool:
        """Whether a block's weights travel."""
        return bool(self.ring_index) and self.ring_index[index] is not None

    def compute(
        self,
        index: int,
        video: Tensor,
        audio: Tensor,
        context: dict[str, Any],
        *,
        eager: bool = False,
        attended: Attended | None = None,
    ) -> Computed:
        """Run a block on its weights; `done` says when they have been read for good.

        eager: without the compiler, for shapes that come once, as in samples: compiling one takes longer than drawing it.
        attended: what its self-attention found the first time.
        """
        self.runs += 1
        place = self.ring_index[index] if self.ring_index else None
        if place is not None and self.ring is not None:
            self.ring.acquire(place)
        tensors: dict[str, Tensor | None] = {**self._tensors[index], **self.adapter.leaves(index)}
        self.skeleton.point(tensors if self.extra is None else {**tensors, **self.extra(index, tensors)})
        check_parts(context)
        if eager:
            return Computed(*self._draw(video, audio, context))
        return self._parts(video, audio, context, kept=attended)

    def _draw(self, video: Tensor, audio: Tensor, context: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Without the compiler, whose kernels need no memory between two of a block's operations: so as to need little. In parts each
        modulation is made where it is used; and where one sample keeps a card busy, the samples of a batch go through the block in turn,
        in a fraction of the memory that they take together, while the block's weights are there for all."""
        if len(video) > 1 and video.shape[1] >= self.busy_tokens:
            several = [self._draw(*_sample_of((video, audio, context), index, len(video))) for index in range(len(video))]
            return torch.cat([found for found, _ in several]), torch.cat([found for _, found in several])
        found = self._drawing(video, audio, context)
        return found.video, found.audio

    def done(self, index: int, *, forwards: bool, wrap: bool = False) -> None:
        """The weights of a block have been read for now."""
        place = self.ring_index[index] if self.ring_index else None
        if place is None or self.ring is None:
            return
        following = self.ring.forward_follower(place, wrap=wrap) if forwards else self.ring.backward_follower(place)
        self.ring.release(place, following=following)

    def backward(
        self, index: int, video: Tensor, audio: Tensor, outputs: tuple[Tensor, Tensor], gradients: tuple[Tensor | None, Tensor | None]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of a block's inputs; those of its adapter are added to the adapter's."""
        self._parts.fork()
        leaves = self.adapter.leaves(index)
        pairs = [(out, grad) for out, grad in zip(outputs, gradients, strict=True) if grad is not None and out.requires_grad]
        found = torch.autograd.grad(
            [out for out, _ in pairs], [video, audio, *leaves.values()], [grad for _, grad in pairs], allow_unused=True
        )
        self._parts.join()
        self.adapter.add_gradients(index, found[2:])
        self.done(index, forwards=False)
        return found[0], found[1]


def _sample_of(values: Any, index: int, batch: int) -> Any:
    """One sample of a block's arguments: of tensors whose first dimension is the batch, in whatever they lie."""
    if isinstance(values, torch.Tensor):
        return values[index : index + 1] if values.ndim and len(values) == batch else values
    if isinstance(values, dict):
        return {name: _sample_of(value, index, batch) for name, value in values.items()}
    return tuple(_sample_of(value, index, batch) for value in values) if isinstance(values, tuple) else values


@contextlib.contextmanager
def known_shapes(transformer: nn.Module) -> Iterator[None]:
    """Inside, the engine's blocks, where the transformer has them, are compiled for forwards without gradients too."""
    blocks: Any = next(iter(transformer.transformer_blocks), None)  # type: ignore[arg-type, unused-ignore]
    owner = blocks._blocks[0] if isinstance(blocks, BlockAt) else None
    if owner is not None:
        owner.compile_lookers = True
    try:
        yield
    finally:
        if owner is not None:
            owner.compile_lookers = False


class BlockAt(nn.Module):
    """Stands in a transformer's list of blocks."""

    def __init__(self, blocks: FastBlocks, index: int) -> None:
        super().__init__()
        self._blocks = [blocks]  # in a list: it is no submodule
        self.index = index
        self.router: Router | None = None  # of tokens around blocks

    @property
    def skeleton(self) -> nn.Module:
        """diffusers' block that computes, the same for all: what is changed in it is changed in each."""
        return self._blocks[0].skeleton.block

    @property
    def engine(self) -> FastBlocks:
        """All the blocks, of which this is one."""
        return self._blocks[0]

    def forward(self, hidden_states: Tensor, audio_hidden_states: Tensor, **context: Any) -> tuple[Tensor, Tensor]:
        context["levels"] = self._blocks[0].levels.video, self._blocks[0].levels.audio
        if self.router is None:
            return self._run(hidden_states, audio_hidden_states, context)
        hidden_states, context = self.router.enter(self.index, hidden_states, context)
        video, audio = self._run(hidden_states, audio_hidden_states, context)
        return self.router.leave(self.index, video), audio

    def _run(self, hidden_states: Tensor, audio_hidden_states: Tensor, context: dict[str, Any]) -> tuple[Tensor, Tensor]:
        blocks, index = self._blocks[0], self.index
        if not torch.is_grad_enabled():
            found = blocks.compute(index, hidden_states, audio_hidden_states, context, eager=not blocks.compile_lookers)
            blocks.done(index, forwards=True, wrap=True)
            return found.video, found.audio
        anchor = next(iter(blocks.adapter.leaves(index).values()))  # makes the first block's node part of the graph
        outputs: tuple[Tensor, Tensor] = _Node.apply(hidden_states, audio_hidden_states, anchor, blocks, index, context)  # type: ignore[no-untyped-call, unused-ignore]
        return outputs


class _Node(torch.autograd.Function):
    """A block in autograd's graph: one node, whose gradients for the adapter go to the flat buffer and not through autograd.

    One sweep at a time: inputs in host memory and slots of the ring belong to the newest forward.
    """

    @staticmethod
    def forward(
        ctx: Any, video: Tensor, audio: Tensor, _anchor: Tensor, blocks: FastBlocks, index: int, context: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:  # type: ignore[override, unused-ignore]
        ctx.blocks, ctx.index, ctx.context = blocks, index, context
        ctx.attended = None
        if blocks.keep[index] == "all" and not blocks.streamed(index):  # weights that travel are gone by its backward
            with torch.enable_grad():
                video, audio = video.detach().requires_grad_(), audio.detach().requires_grad_()
                found = blocks.compute(index, video, audio, context)
            ctx.kept = video, audio, found
            blocks.done(index, forwards=True)
            return found.video.detach(), found.audio.detach()
        with torch.no_grad():
            found = blocks.compute(index, video, audio, context)
        ctx.kept, ctx.on_host = None, blocks.keep[index] == "host"
        if index in blocks.attention:
            ctx.attended = found.attended
        if ctx.on_host:
            blocks.host.put(index, (video, audio))
        else:
            ctx.save_for_backward(video, audio)
        blocks.done(index, forwards=True)
        return found.video, found.audio

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override, unused-ignore]
        blocks, index = ctx.blocks, ctx.index
        if ctx.kept is not None:
            video, audio, found = ctx.kept
            ctx.kept = None
        else:
            saved = blocks.host.take(index) if ctx.on_host else ctx.saved_tensors
            with torch.enable_grad():
                video, audio = (tensor.detach().requires_grad_() for tensor in saved)
                found = blocks.compute(index, video, audio, ctx.context, attended=ctx.attended)
            ctx.attended = None
        of_video, of_audio = blocks.backward(index, video, audio, (found.video, found.audio), (gradients[0], gradients[1]))
        return of_video, of_audio, None, None, None, None
