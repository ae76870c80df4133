"""How a training step is laid out in the memory that there is: which blocks travel, which keep what they computed, and why.

Spare memory becomes speed in this order: blocks on the card first (a streamed block costs its copy), then blocks that keep their
activations (one that does not is computed twice). Every choice comes with the numbers that decided it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ltx2core.errors import RunError

if TYPE_CHECKING:
    from ltx2core.models.quantised import EightBit, Storage

GIB = 1024**3
# Numbers that a block keeps for each token, in widths of the video stream. Measured on an H100, compiled, bf16: 56.8 GiB with all of
# 48 blocks kept against 40.8 with none at 2,688 tokens (tests/benchmarks/step_time.py).
KEPT_WIDTHS_JOINT = 17.6
KEPT_WIDTHS_VIDEO = 14.0
_ATTENDED_WIDTHS = 1.02  # an answer of self-attention, and a number for each head
_SCRATCH_BLOCKS = 1.7  # of what one block keeps: the one that is computed again, and its gradients
_KEPT_SCRATCH_BLOCKS = 0.4  # where all lie on the card and some keep all: those come last, and have gone when others are computed again
_RESERVE = GIB + GIB // 4  # the device's context, its libraries' workspaces and what the allocator rounds up
_BYTES_PER_LORA_NUMBER = 18  # float32 master, gradient and two moments, and the copy that is computed with
_SLOTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNeed:
    """What a step is made of. tokens: of the largest batch; block_bytes: of a block's matrices as they are stored."""

    tokens: int
    width: int
    itemsize: int
    num_blocks: int
    block_bytes: int
    outside_bytes: int
    lora_numbers: int
    joint: bool

    @property
    def kept_bytes(self) -> int:
        """What a block keeps when it is not computed again."""
        widths = KEPT_WIDTHS_JOINT if self.joint else KEPT_WIDTHS_VIDEO
        return int(widths * self.tokens * self.width * self.itemsize)

    @property
    def attended_bytes(self) -> int:
        """What self-attention over the picture gives, which a block that is computed again may keep."""
        return int(_ATTENDED_WIDTHS * self.tokens * self.width * self.itemsize)

    @property
    def inputs_bytes(self) -> int:
        """What a block that is computed again keeps: its inputs."""
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
class StepPlan:
    """How blocks are held. kept: how many keep all that they computed; attention: how many of the others keep their self-attention;
    turned: whether blocks on the card hold their matrices transposed, too.

    because: a sentence for each choice, with its numbers.
    """

    storage: Storage
    precision: EightBit
    streamed: int
    slots: int
    kept: int
    inputs_to_host: bool
    attention: int = 0
    turned: bool = False
    because: tuple[str, ...] = ()

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


def plan_step(need: StepNeed, wish: StepWish, *, free_bytes: int | None) -> StepPlan:
    """The fastest layout that fits. free_bytes: of the card; None for a CPU, where everything stays.

    Raises RunError when not even one block at a time fits, with by how much.
    """
    if free_bytes is None:
        kept = 0 if wish.recompute_all else need.num_blocks - (wish.streamed or 0)
        asked = min(wish.streamed or 0, need.num_blocks)
        travel = f", {asked} of {need.num_blocks} blocks passing through a ring as they would on a GPU" if asked else ""
        return _plan(wish, streamed=asked, kept=kept, host=wish.inputs_to_host, because=(f"everything is in RAM{travel}",))
    reasons: list[str] = []
    host = wish.inputs_to_host
    free = free_bytes - _fixed_bytes(need, host=host)
    streamed = _streamed(need, free) if wish.streamed is None else min(wish.streamed, need.num_blocks)
    if streamed is None and not host:
        host = True
        free = free_bytes - _fixed_bytes(need, host=True)
        reasons.append(f"the blocks' inputs, {_gib(need.num_blocks * need.inputs_bytes)}, wait in host memory")
        streamed = _streamed(need, free)
    if streamed is None:
        missing = need.block_bytes - free
        raise RunError(
            f"Training needs {_gib(missing)} more GPU memory than the {_gib(free_bytes)} that are free, even with one block on the card at "
            "a time.",
            fix='Lower resolution, video.num_frames or lora_rank, or set base_model_precision to "int8-torchao".',
        )
    weights = _gib(need.num_blocks * need.block_bytes)
    if streamed == 0:
        reasons.append(f"all {need.num_blocks} blocks, {weights} in {wish.storage}, lie on the card: {_gib(free)} are there for them")
    else:
        stay = need.num_blocks - streamed
        because_of = "as asked" if wish.streamed is not None else f"{_gib(free)} are there for {weights} in {wish.storage}"
        reasons.append(f"{streamed} of {need.num_blocks} blocks travel from host memory, {stay} stay on the card: {because_of}")
    slots = min(wish.slots or _SLOTS, streamed)
    rest = free - (need.num_blocks - streamed + slots) * need.block_bytes
    # Self-attention first: for each byte that it keeps, a block saves the most there.
    attention = 0 if wish.recompute_all else max(0, min(need.num_blocks, rest // need.attended_bytes))
    spare = rest - attention * need.attended_bytes
    kept = _kept(need, wish, spare, resident=need.num_blocks - streamed, attention=attention)
    if kept >= 2 and not streamed:
        spare += int((_SCRATCH_BLOCKS - _KEPT_SCRATCH_BLOCKS) * need.kept_bytes)
        kept = _kept(need, wish, spare, resident=need.num_blocks - streamed, attention=attention)
    again = need.num_blocks - kept
    attention = min(attention, again)
    turned = wish.precision == "w8a8_full" and not streamed and not again
    if turned and (turned := spare - kept * need.kept_bytes >= need.num_blocks * need.block_bytes):
        reasons.append("matrices are held transposed, too, as backward products in fp8 take them")
    if kept:
        reasons.append(f"{kept} blocks keep their activations, {_gib(need.kept_bytes)} each; {again} are computed twice")
    elif again:
        reasons.append("every block is computed twice" + (", as asked" if wish.recompute_all else ""))
    if attention:
        reasons.append(f"{attention} of these keep their self-attention, {_gib(need.attended_bytes)} each")
    return _plan(wish, streamed=streamed, kept=kept, attention=attention, turned=turned, host=host, slots=slots, because=tuple(reasons))


def _streamed(need: StepNeed, free: int) -> int | None:
    """The fewest blocks that must travel; None when not even a slot fits."""
    if need.num_blocks * need.block_bytes <= free:
        return 0
    room = free // need.block_bytes
    if room < 1:
        return None
    slots = min(_SLOTS, room)
    return need.num_blocks - (room - slots)


def _kept(need: StepNeed, wish: StepWish, rest: int, *, resident: int, attention: int) -> int:
    if wish.recompute_all:
        return 0
    if wish.keep_all:
        return resident
    # a block that keeps all gives back what it would have kept otherwise
    instead = (0 if wish.inputs_to_host else need.inputs_bytes) + (need.attended_bytes if attention else 0)
    return max(0, min(resident, rest // max(1, need.kept_bytes - instead)))


def _fixed_bytes(need: StepNeed, *, host: bool) -> int:
    inputs = 2 * need.inputs_bytes if host else need.num_blocks * need.inputs_bytes
    scratch = int(_SCRATCH_BLOCKS * need.kept_bytes)
    return _RESERVE + need.outside_bytes + need.lora_numbers * _BYTES_PER_LORA_NUMBER + inputs + scratch


def _plan(
    wish: StepWish,
    *,
    streamed: int,
    kept: int,
    host: bool,
    because: tuple[str, ...],
    slots: int = 1,
    attention: int = 0,
    turned: bool = False,
) -> StepPlan:
    return StepPlan(
        storage=wish.storage,
        precision=wish.precision,
        streamed=streamed,
        slots=min(slots, streamed) if streamed else 0,
        kept=max(0, kept),
        attention=attention,
        turned=turned,
        inputs_to_host=host,
        because=because,
    )


def _gib(number: int) -> str:
    return f"{number / GIB:.1f} GiB"
