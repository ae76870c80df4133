"""How a training step is laid out in the memory that there is: which blocks travel, which keep what they computed, and why.

Every layout that the config leaves open is looked at: its bytes by step_memory.py, its seconds by step_time.py. The fastest that fits is
taken; of two as fast, the one that lets fewer blocks travel, then the one that needs less. What each choice rests on is said in numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ltx2core.errors import RunError
from ltx2core.planning.step_memory import GIB, step_bytes
from ltx2core.planning.step_time import StepSpeed, least_step_seconds, step_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ltx2core.models.quantised import EightBit, Storage

# Numbers that a block keeps for each token, in widths of the video stream, where no exact count is given. Measured on an H100, compiled,
# bf16: 56.8 GiB with all of 48 blocks kept against 40.8 with none at 2,688 tokens (tests/benchmarks/step_time.py).
KEPT_WIDTHS_JOINT = 17.6
KEPT_WIDTHS_VIDEO = 14.0
_ATTENDED_WIDTHS = 1.02  # an answer of self-attention, and a number for each head
_MOST_SLOTS = 3
_SLOTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNeed:
    """What a step is made of. tokens: video tokens of the largest batch; block_bytes: of a block's matrices as they are stored.

    kept, inputs: bytes that a block keeps, and of its inputs; None for an estimate by its width. rounded: what weights in fewer bits need
    beside them; packed: whether two of them are a byte. state_bytes: of the optimizer's state, and of a running average that lies beside
    it, for each number of the LoRA. beside_bytes: of what else a step holds, such as CREPA's head and the features that it compares.
    given: whether some batches have parts that are given, for which blocks are compiled a second time.
    """

    tokens: int
    width: int
    itemsize: int
    num_blocks: int
    block_bytes: int
    outside_bytes: int
    lora_numbers: int
    joint: bool
    kept: int | None = None
    inputs: int | None = None
    rounded: int = 0
    packed: bool = False
    state_bytes: float = 8.0
    beside_bytes: int = 0
    given: bool = False

    @property
    def kept_bytes(self) -> int:
        """What a block keeps when it is not computed again."""
        if self.kept is not None:
            return self.kept
        widths = KEPT_WIDTHS_JOINT if self.joint else KEPT_WIDTHS_VIDEO
        return int(widths * self.tokens * self.width * self.itemsize)

    @property
    def attended_bytes(self) -> int:
        """What self-attention over the picture gives, which a block that is computed again may keep."""
        return int(_ATTENDED_WIDTHS * self.tokens * self.width * self.itemsize)

    @property
    def inputs_bytes(self) -> int:
        """What a block that is computed again keeps: its inputs."""
        if self.inputs is not None:
            return self.inputs
        return int((1.2 if self.joint else 1.0) * self.tokens * self.width * self.itemsize)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWish:
    """What the config asks for. None: as memory allows. recompute_all: not even self-attention is kept."""

    storage: Storage = "bf16"
    precision: EightBit = "dequant"
    streamed: int | None = None
    slots: int | None = None
    recompute_all: bool = False
    keep_all: bool = False
    inputs_to_host: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The levers of memory. streamed: blocks that travel; slots: of the ring; kept: blocks that keep all that they computed; attention: how
    many of the others keep their self-attention; turned: whether blocks on the card hold their matrices transposed, too."""

    streamed: int
    slots: int
    kept: int
    attention: int
    inputs_to_host: bool
    turned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """How blocks are held, as in Layout. because: a sentence for each choice, with its numbers. bytes, seconds: what a step should take."""

    storage: Storage
    precision: EightBit
    streamed: int
    slots: int
    kept: int
    inputs_to_host: bool
    attention: int = 0
    turned: bool = False
    because: tuple[str, ...] = ()
    bytes: int | None = None
    seconds: float | None = None

    @property
    def layout(self) -> Layout:
        return Layout(
            streamed=self.streamed,
            slots=self.slots,
            kept=self.kept,
            attention=self.attention,
            inputs_to_host=self.inputs_to_host,
            turned=self.turned,
        )

    def next_rung(self, num_blocks: int) -> StepPlan | None:
        """A plan that needs less memory, for when this one ran out of it; None when there is none."""
        if self.turned:
            return replace(self, turned=False, because=("matrices are transposed anew each time",))
        if self.kept:
            kept = self.kept // 2 if self.kept > 4 else 0
            return replace(self, kept=kept, because=(f"{self.kept - kept} more blocks are computed twice",))
        if self.attention:
            return replace(self, attention=0, because=("self-attention is computed twice, too",))
        if not self.inputs_to_host:
            return replace(self, inputs_to_host=True, because=("the blocks' inputs wait in host memory",))
        if self.streamed < num_blocks:
            streamed = min(num_blocks, max(self.streamed + 4, self.slots + 1))
            return replace(
                self, streamed=streamed, slots=min(self.slots or _SLOTS, _SLOTS), because=(f"{streamed} of {num_blocks} blocks travel",)
            )
        if self.slots > 1:
            return replace(self, slots=1, because=("one block lies on the card at a time",))
        return None


def plan_step(need: StepNeed, wish: StepWish, *, free_bytes: int | None, speed: StepSpeed | None = None) -> StepPlan:
    """The fastest layout that fits. free_bytes: of the card; None for a CPU, where everything stays. speed: None for the proportions of a
    large card, which decide the same as long as compute and link are as far apart.

    Raises RunError when not even one block at a time fits, with by how much.
    """
    if free_bytes is None:
        return _on_cpu(need, wish)
    speed = speed or _usual_speed(need)
    layouts = [(step_bytes(need, layout).total, layout) for layout in _layouts(need, wish, free_bytes)]
    fitting = [(needed, layout) for needed, layout in layouts if needed <= free_bytes or wish.keep_all]
    if not fitting:
        least = min(needed for needed, _ in layouts)
        missing, there, smaller = _gib(least - free_bytes), _gib(free_bytes), fewer_bits(wish.storage)
        raise RunError(
            f"Training needs {missing} more GPU memory than the {there} that are free, even with one block on the card at a time.",
            fix=f"Lower resolution, video.num_frames or lora_rank{f', or set base_model_precision to {smaller}' if smaller else ''}.",
        )
    layout = _fastest(need, fitting, speed)
    return StepPlan(
        storage=wish.storage,
        precision=wish.precision,
        streamed=layout.streamed,
        slots=layout.slots,
        kept=layout.kept,
        attention=layout.attention,
        inputs_to_host=layout.inputs_to_host,
        turned=layout.turned,
        because=tuple(_reasons(need, wish, layout, free_bytes)),
        bytes=step_bytes(need, layout).total,
        seconds=step_seconds(need, layout, speed),
    )


def _fastest(need: StepNeed, layouts: list[tuple[int, Layout]], speed: StepSpeed) -> Layout:
    """Of layouts with their bytes. One that is faster by less than a millisecond is not worth what else it takes: host memory and the
    link, then the card's. Those that cannot be faster than what was found are not looked at closely."""
    best: tuple[float, tuple[int, bool, int], Layout] | None = None
    for least, (needed, layout) in sorted(((least_step_seconds(need, one[1], speed), one) for one in layouts), key=lambda pair: pair[0]):
        if best is not None and least > best[0] + 0.001:
            break
        found = (round(step_seconds(need, layout, speed), 3), (layout.streamed, layout.inputs_to_host, needed), layout)
        if best is None or found[:2] < best[:2]:
            best = found
    assert best is not None
    return best[2]


def fewer_bits(storage: Storage) -> str | None:
    """The value of base_model_precision, and what it does, that makes blocks smaller than they are; None where they are smallest."""
    if storage == "bf16":
        return '"int8-torchao", which halves the blocks'
    return None if storage == "nf4" else '"nf4-bnb", which nearly halves the blocks again'


def _layouts(need: StepNeed, wish: StepWish, free: int) -> Iterator[Layout]:
    """Those to choose among: for each number of blocks that travel, slots and place of inputs, as much kept as fits."""
    blocks = need.num_blocks
    travelling = range(blocks + 1) if wish.streamed is None else (min(wish.streamed, blocks),)
    for streamed in travelling:
        for slots in _slots(wish, streamed):
            for host in (True,) if wish.inputs_to_host else (False, True):
                yield _filled(need, wish, Layout(streamed=streamed, slots=slots, kept=0, attention=0, inputs_to_host=host), free)


def _slots(wish: StepWish, streamed: int) -> tuple[int, ...]:
    if not streamed:
        return (0,)
    if wish.slots is not None:
        return (min(wish.slots, streamed),)
    return tuple(slots for slots in range(1, _MOST_SLOTS + 1) if slots <= streamed)


def _filled(need: StepNeed, wish: StepWish, bare: Layout, free: int) -> Layout:
    """The layout with what the rest of memory can keep. Self-attention first: for each byte, a block saves the most there."""
    if wish.recompute_all:
        return bare
    resident = need.num_blocks - bare.streamed
    if wish.keep_all:
        return replace(bare, kept=resident)
    rest = free - step_bytes(need, bare).total
    if rest <= 0:
        return bare
    attention = min(need.num_blocks, rest // need.attended_bytes)
    layout = replace(bare, attention=attention)
    # Each block that keeps all gives back what it kept otherwise. The most that fit are found from above: scratch changes with them.
    low, high = 0, min(resident, rest // max(1, need.kept_bytes - need.inputs_bytes - need.attended_bytes) + 2)
    while low < high:
        middle = (low + high + 1) // 2
        tried = replace(layout, kept=middle, attention=min(attention, need.num_blocks - middle))
        if step_bytes(need, tried).total <= free:
            low = middle
        else:
            high = middle - 1
    kept = replace(layout, kept=low, attention=min(attention, need.num_blocks - low))
    turned = replace(kept, turned=True)
    if wish.precision == "w8a8_full" and wish.storage == "fp8" and low == need.num_blocks and step_bytes(need, turned).total <= free:
        return turned
    return kept


def _reasons(need: StepNeed, wish: StepWish, layout: Layout, free_bytes: int) -> Iterator[str]:
    bare = step_bytes(need, replace(layout, kept=0, attention=0, turned=False))
    room = free_bytes - bare.total + bare.blocks + bare.ring
    weights = _gib(need.num_blocks * need.block_bytes)
    if not layout.streamed:
        yield f"all {need.num_blocks} blocks, {weights} in {wish.storage}, lie on the card: {_gib(room)} are there for them"
    else:
        stay = need.num_blocks - layout.streamed
        because_of = f"{_gib(room)} are there for {weights} in {wish.storage}"
        if wish.streamed is not None:
            because_of = "as asked"
        elif room >= need.num_blocks * need.block_bytes:
            because_of = f"room for all {weights} in {wish.storage} would save less time than what blocks keep in it"
        yield f"{layout.streamed} of {need.num_blocks} blocks travel from host memory, {stay} stay on the card: {because_of}"
    again = need.num_blocks - layout.kept
    if layout.inputs_to_host and again:
        yield f"the blocks' inputs, {_gib(again * need.inputs_bytes)}, wait in host memory"
    if layout.kept:
        yield f"{layout.kept} blocks keep their activations, {_gib(need.kept_bytes)} each; {again} are computed twice"
    elif again:
        yield "every block is computed twice" + (", as asked" if wish.recompute_all else "")
    if layout.attention:
        yield f"{layout.attention} of these keep their self-attention, {_gib(need.attended_bytes)} each"
    if layout.turned:
        yield "matrices are held transposed, too, as backward products in fp8 take them"


def _on_cpu(need: StepNeed, wish: StepWish) -> StepPlan:
    asked = min(wish.streamed or 0, need.num_blocks)
    travel = f", {asked} of {need.num_blocks} blocks passing through a ring as they would on a GPU" if asked else ""
    return StepPlan(
        storage=wish.storage,
        precision=wish.precision,
        streamed=asked,
        slots=min(_SLOTS if wish.slots is None else wish.slots, asked),
        kept=0 if wish.recompute_all else need.num_blocks - asked,
        inputs_to_host=wish.inputs_to_host,
        because=(f"everything is in RAM{travel}",),
    )


def _usual_speed(need: StepNeed) -> StepSpeed:
    """The proportions of an H100, from the width alone."""
    products = 2 * 16 * need.width**2 * need.tokens / 550e12
    attention = 4 * need.tokens**2 * need.width / 500e12
    return StepSpeed(forward=products + attention, attention=attention, backward=products + 2.5 * attention, outside=0.0, link=50e9)


def _gib(number: int) -> str:
    return f"{number / GIB:.1f} GiB" if number >= GIB // 10 else f"{number / 2**20:.0f} MiB"
