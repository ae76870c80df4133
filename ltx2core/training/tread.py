"""TREAD (arXiv 2501.04765): in training, some video tokens skip some blocks. A step is faster, since those blocks see fewer tokens.

Before a route's first block a random subset of the tokens is taken out, with all that belongs to a token: its rotary positions, its
modulation, its rows of masks. After the route's last block those tokens go back to their places; the others have the values from before
the route. Sound is not routed; it attends to the pictures' tokens that are there. What is drawn, once a step, is which tokens stay, so
that shapes are the same in every step of a bucket and nothing waits for the device.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ltx2core.errors import ConfigError
from ltx2core.training.fast_blocks import BlockAt
from ltx2core.training.objective import to_device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diffusers import LTX2VideoTransformer3DModel
    from torch import Generator

_MODULATION = ("temb", "temb_ca_scale_shift")  # [B, T, D], or [B, 1, D] where all tokens have one
_TABLES = ("video_rotary_emb", "ca_video_rotary_emb")  # pairs of [B, heads, T, D], or [B, T, D] of interleaved ones
_MASKS = {"self_attention_mask": (1, 2), "a2v_cross_attention_mask": (1,), "v2a_cross_attention_mask": (2,)}  # where their video tokens are


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """ratio: the share of tokens that skips the blocks `start` to `end`, both included; below 0 they count from the end, -1 is the last."""

    ratio: float
    start: int
    end: int


def resolve(routes: Sequence[Route], num_blocks: int) -> tuple[Route, ...]:
    """The routes with blocks counted from 0, in the order of their blocks. Raises ConfigError with every route that does not fit."""

    def at(index: int) -> int:
        return index + num_blocks if index < 0 else index

    found = [replace(route, start=at(route.start), end=at(route.end)) for route in routes]
    problems = [
        f"tread_config.routes[{number}].{name} = {written}: this model's blocks are 0 to {num_blocks - 1}, or -{num_blocks} to -1 from "
        f"the end; use one of those."
        for number, (route, known) in enumerate(zip(routes, found, strict=True))
        for name, written, block in (("start_layer_idx", route.start, known.start), ("end_layer_idx", route.end, known.end))
        if not 0 <= block < num_blocks
    ]
    problems += [
        f"tread_config.routes[{number}] goes from block {route.start} to block {route.end}: it starts before it ends; "
        f"use a start_layer_idx below {route.end}."
        for number, route in enumerate(found)
        if route.start >= route.end and not problems
    ]
    ordered = sorted(found, key=lambda route: route.start)
    problems += [
        f"tread_config.routes: blocks {before.start} to {before.end} and {after.start} to {after.end} overlap; "
        f"start the second route at block {before.end + 1} or later."
        for before, after in pairwise(ordered)
        if before.end >= after.start and not problems
    ]
    if problems:
        raise ConfigError(problems, fix="Change these routes, or remove tread_config.")
    return tuple(ordered)


def kept_count(tokens: int, ratio: float) -> int:
    """How many of so many tokens go through a route's blocks: one at least."""
    return max(1, tokens - round(tokens * ratio))


def draw_kept(routes: Sequence[Route], *, learned: Tensor, references: int, generator: Generator) -> tuple[Tensor, ...]:
    """For each route, which tokens go through its blocks: int64 [B, K], ascending, on the device of `learned`.

    learned: bool [B, L], False for tokens that are given. references: how many reference tokens stand before them; those all stay, and
    are no part of the ratio. The draw is made on the CPU, for every sample of its own.
    """
    found = []
    for route in routes:
        chance = to_device(torch.rand(learned.shape, generator=generator), learned.device)
        kept = keep_tokens(chance, learned=learned, ratio=route.ratio) + references
        before = torch.arange(references, device=kept.device).expand(kept.shape[0], -1)
        found.append(torch.cat([before, kept], dim=1))
    return tuple(found)


def keep_tokens(chance: Tensor, *, learned: Tensor, ratio: float) -> Tensor:
    """The tokens of each sample that stay: int64 [B, K], ascending; K = `kept_count`. Those of a lower `chance` [B, L] go first.

    Given tokens stay before others: they are what the rest is learned from, as in samples, where nothing is left out. But half of the
    places, at least, are for tokens that are learned: else a clip that is mostly given would teach the route's blocks nothing.
    """
    places = kept_count(chance.shape[1], ratio)
    order = chance.argsort(dim=1, stable=True)
    given = ~learned.gather(1, order)
    for_given = (places - (~given).sum(dim=1, keepdim=True)).clamp(min=places // 2)  # more where too few are learned
    rank = torch.where(given, torch.where(given.cumsum(dim=1) <= for_given, 0, 2), 1)
    first = rank.argsort(dim=1, stable=True)[:, :places]
    return order.gather(1, first).sort(dim=1).values


def take(tensor: Tensor, tokens: Tensor, *, dim: int = 1) -> Tensor:
    """The rows `tokens` [B, K] of a tensor along its dimension of tokens."""
    shape = [tokens.shape[0], *tensor.shape[1:]]
    index = tokens.view(shape[0], *(-1 if place == dim else 1 for place in range(1, tensor.ndim)))
    wanted = [tokens.shape[1] if place == dim else size for place, size in enumerate(shape)]
    return tensor.expand(shape).gather(dim, index.expand(wanted))


def put_back(tensor: Tensor, tokens: Tensor, rows: Tensor) -> Tensor:
    """A new tensor [B, T, D] with `rows` [B, K, D] at `tokens` [B, K]. Gradients go to the rows, and to the tensor's other tokens."""
    return tensor.scatter(1, tokens.unsqueeze(2).expand_as(rows), rows)


@dataclass(slots=True)
class _Under:
    """A route in the forward under way. whole: the tokens from before it; context: what its blocks are called with, taken once."""

    kept: Tensor
    whole: Tensor | None = None
    context: dict[str, Any] = field(default_factory=dict)


class Router:
    """The routes of a transformer; `add_routes` makes one. Only a forward for which `keep` was called is routed, and so no held-out loss
    and no sample can be."""

    def __init__(self, routes: Sequence[Route]) -> None:
        """routes: resolved."""
        self.routes = tuple(routes)
        self._of_block = {block: number for number, route in enumerate(routes) for block in range(route.start, route.end + 1)}
        self._next: tuple[Tensor, ...] = ()
        self._under: tuple[_Under, ...] = ()
        self._called_again = False  # each block a second time, in the backward

    def keep(self, kept: Sequence[Tensor]) -> None:
        """Route the next forward: the tokens [B, K] that stay in each of the routes. Raises ValueError unless there are as many."""
        if len(kept) != len(self.routes):
            raise ValueError(f"expected tokens for {len(self.routes)} routes, got them for {len(kept)}")
        self._next = tuple(kept)

    def begin(self, *, called_again: bool) -> None:
        """A forward of the transformer begins. called_again: its backward will call the blocks anew, and `enter` and `leave` with them."""
        self._under, self._next = tuple(_Under(kept) for kept in self._next), ()
        self._called_again = called_again

    def finish(self) -> None:
        """The forward is over."""
        if not self._called_again:
            self._under = ()

    def enter(self, block: int, video: Tensor, context: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """What a block is to be called with: hidden states of the video, and the other arguments by their names."""
        under = self._at(block)
        if under is None:
            return video, context
        if block == self.routes[self._of_block[block]].start:
            under.whole = video
            video = take(video, under.kept)
        return video, context | self._taken(under, context)

    def leave(self, block: int, video: Tensor) -> Tensor:
        """The hidden states of the video that come after a block."""
        under = self._at(block)
        if under is None or block != self.routes[self._of_block[block]].end:
            return video
        assert under.whole is not None
        video = put_back(under.whole, under.kept, video)
        if not self._called_again:
            under.whole, under.context = None, {}
        return video

    def _at(self, block: int) -> _Under | None:
        number = self._of_block.get(block)
        return self._under[number] if number is not None and self._under else None

    def _taken(self, under: _Under, context: dict[str, Any]) -> dict[str, Any]:
        """What belongs to a token, of the tokens that stay. All blocks of a forward are called with the same."""
        found: dict[str, Any] = {}
        for name in (*_TABLES, *_MASKS, *_MODULATION, "levels"):
            value = context.get(name)
            if value is None:
                continue
            if name not in under.context:
                under.context[name] = _of_tokens(name, value, under.kept, levels=context.get("levels"))
            found[name] = under.context[name]
            if self._called_again and isinstance(value, Tensor) and value.requires_grad:
                del under.context[name]  # a block that is computed again must record the same as the first time
        return found


def _of_tokens(name: str, value: Any, tokens: Tensor, *, levels: tuple[Tensor | None, Tensor | None] | None) -> Any:
    """An argument of a block as it is for some of the tokens. levels: the step engine's, of video and sound."""
    if name == "levels":
        return value if value[0] is None else (take(value[0], tokens), value[1])
    if name in _TABLES:
        return tuple(take(part, tokens, dim=part.ndim - 2) for part in value)
    if name in _MASKS:
        for dim in _MASKS[name]:
            value = value if value.shape[dim] == 1 else take(value, tokens, dim=dim)
        return value
    by_level = levels is not None and levels[0] is not None  # its rows are levels then, which tokens pick from
    return value if by_level or value.shape[1] == 1 else take(value, tokens)


def add_routes(transformer: LTX2VideoTransformer3DModel, routes: Sequence[Route]) -> Router:
    """Let video tokens skip blocks of this transformer, whether they are diffusers' own or the step engine's: after those are in place.

    routes: resolved for it. Raises ValueError for blocks that it does not have.
    """
    blocks = transformer.transformer_blocks
    if resolve(routes, len(blocks)) != tuple(routes):
        raise ValueError("expected routes that are resolved")
    router = Router(routes)

    def begin(module: nn.Module, _args: object) -> None:
        router.begin(called_again=bool(getattr(module, "gradient_checkpointing", False)))

    def finish(_module: nn.Module, _args: object, _outputs: object) -> None:
        router.finish()

    transformer.register_forward_pre_hook(begin)
    transformer.register_forward_hook(finish, always_call=True)  # also when memory ran out in the middle
    for index, block in enumerate(blocks):
        if isinstance(block, BlockAt):
            block.router = router
        elif any(route.start <= index <= route.end for route in routes):
            names = tuple(inspect.signature(block.forward).parameters)
            block.register_forward_pre_hook(_entering(router, index, names), with_kwargs=True)
            block.register_forward_hook(_leaving(router, index))
    return router


def _entering(router: Router, index: int, names: tuple[str, ...]) -> Callable[..., tuple[tuple[()], dict[str, Any]]]:
    """names: of the block's arguments, which gradient checkpointing gives without them."""

    def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[()], dict[str, Any]]:
        context = dict(zip(names, args, strict=False)) | kwargs
        video, context = router.enter(index, context.pop("hidden_states"), context)
        return (), {"hidden_states": video, **context}

    return enter


def _leaving(router: Router, index: int) -> Callable[..., tuple[Tensor, Tensor]]:
    def leave(_module: nn.Module, _args: object, outputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return router.leave(index, outputs[0]), outputs[1]

    return leave
