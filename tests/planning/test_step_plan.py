"""A step's layout follows from sizes alone: what travels, what is kept, and when nothing fits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltx2core.errors import RunError
from ltx2core.planning.step_memory import step_bytes
from ltx2core.planning.step_plan import GIB, Layout, StepNeed, StepPlan, StepWish, plan_step


def need(*, tokens: int = 2688, block_bytes: int = 771_750_000, joint: bool = True) -> StepNeed:
    """LTX-2 2.0 with a LoRA of rank 32."""
    return StepNeed(
        tokens=tokens,
        width=4096,
        itemsize=2,
        num_blocks=48,
        block_bytes=block_bytes,
        outside_bytes=int(0.7 * GIB),
        lora_numbers=213_900_000,
        joint=joint,
    )


def weights_bytes(plan: StepPlan, what: StepNeed) -> int:
    """Of the blocks on the card: those that stay, the ring's slots, and what blocks keep."""
    return (what.num_blocks - plan.streamed + plan.slots) * what.block_bytes + plan.kept * (what.kept_bytes - what.inputs_bytes)


def test_a_large_card_keeps_everything_and_a_small_one_lets_blocks_travel() -> None:
    large = plan_step(need(), StepWish(), free_bytes=int(77.5 * GIB))
    assert (large.streamed, large.kept) == (0, 48)
    small = plan_step(need(), StepWish(), free_bytes=int(15.4 * GIB))
    assert small.kept == 0
    assert 30 < small.streamed < 48
    assert f"{small.streamed} of 48 blocks travel" in " ".join(small.because)


def test_what_a_step_holds_is_the_sum_of_all_its_parts() -> None:
    what = replace(need(), beside_bytes=3 * GIB, rounded=GIB)
    found = step_bytes(what, Layout(streamed=8, slots=2, kept=20, attention=10, inputs_to_host=True, turned=True))
    assert found.total == sum(found.parts.values())
    assert {"feature alignment", "transposed blocks", "ring"} <= found.parts.keys()


def test_blocks_that_would_fit_but_travel_are_explained_by_what_their_room_is_used_for() -> None:
    plan = plan_step(need(block_bytes=217_000_000), StepWish(storage="nf4"), free_bytes=int(23.2 * GIB))
    assert plan.streamed
    assert "would save less time than what blocks keep in it" in plan.because[0]


def test_what_does_not_fit_is_refused_with_how_much_is_missing() -> None:
    with pytest.raises(RunError, match=r"needs 2\.\d GiB more GPU memory than the 7\.4 GiB"):
        plan_step(need(tokens=14_080), StepWish(), free_bytes=int(7.4 * GIB))


def test_what_does_not_fit_is_told_of_the_next_smaller_storage_where_there_is_one() -> None:
    for storage, block_bytes, smaller in (
        ("bf16", 771_750_000, "int8-torchao"),
        ("int8", 386_000_000, "nf4-bnb"),
        ("nf4", 217_000_000, None),
    ):
        with pytest.raises(RunError) as caught:
            plan_step(need(block_bytes=block_bytes, tokens=14_080), StepWish(storage=storage), free_bytes=6 * GIB)  # type: ignore[arg-type]
        assert (smaller or "Lower resolution, video.num_frames or lora_rank.") in caught.value.fix


def test_8_bit_state_leaves_room_for_what_it_saves() -> None:
    """Six bytes for each of 214 million numbers: 1.28 GB, three blocks in 8 bits and part of a fourth."""
    full, low = (
        plan_step(replace(need(block_bytes=386_000_000), state_bytes=state), StepWish(), free_bytes=int(11.4 * GIB))
        for state in (8.0, 2.03)
    )
    assert 3 <= full.streamed - low.streamed <= 4


def test_4_bits_leave_more_blocks_on_a_card_of_8_gb_than_8_do() -> None:
    streamed = [
        plan_step(need(block_bytes=block_bytes), StepWish(), free_bytes=int(7.4 * GIB)).streamed
        for block_bytes in (386_000_000, 217_000_000)
    ]
    assert streamed[1] < streamed[0] <= 48


def test_inputs_go_to_host_memory_where_their_room_is_worth_more_than_their_copies() -> None:
    assert plan_step(need(), StepWish(), free_bytes=int(77.5 * GIB)).inputs_to_host is False  # nothing is computed twice
    tight = plan_step(need(tokens=14_080), StepWish(storage="fp8"), free_bytes=int(12 * GIB))
    assert tight.inputs_to_host


@settings(max_examples=30, deadline=None)
@given(free=st.floats(12, 90), tokens=st.sampled_from([1024, 2688, 6144, 14_080]), streamed=st.integers(0, 48), slots=st.integers(1, 3))
def test_no_layout_by_hand_is_faster_than_the_plan(free: float, tokens: int, streamed: int, slots: int) -> None:
    try:
        plan = plan_step(need(tokens=tokens), StepWish(), free_bytes=int(free * GIB))
        by_hand = plan_step(need(tokens=tokens), StepWish(streamed=streamed, slots=slots), free_bytes=int(free * GIB))
    except RunError:
        return
    assert plan.seconds is not None
    assert by_hand.seconds is not None
    assert plan.seconds <= by_hand.seconds + 0.001  # a millisecond is not worth memory


def test_wishes_are_granted() -> None:
    plan = plan_step(need(), StepWish(streamed=24, slots=3, recompute_all=True), free_bytes=int(77.5 * GIB))
    assert (plan.streamed, plan.slots, plan.kept) == (24, 3, 0)
    assert plan_step(need(), StepWish(streamed=200), free_bytes=int(77.5 * GIB)).streamed == 48
    assert plan_step(need(), StepWish(keep_all=True), free_bytes=int(77.5 * GIB)).kept == 48


def test_on_a_cpu_everything_stays() -> None:
    plan = plan_step(need(), StepWish(), free_bytes=None)
    assert (plan.streamed, plan.kept, plan.because) == (0, 48, ("everything is in RAM",))


@settings(max_examples=60, deadline=None)
@given(
    free=st.floats(10, 90),
    tokens=st.sampled_from([1024, 2688, 6144, 14_080]),
    fp8=st.booleans(),
    joint=st.booleans(),
    more=st.floats(0.1, 20),
)
def test_a_plan_stays_within_its_memory_and_more_memory_is_never_worse(
    free: float, tokens: int, fp8: bool, joint: bool, more: float
) -> None:
    what = need(tokens=tokens, block_bytes=385_875_000 if fp8 else 771_750_000, joint=joint)
    try:
        plan = plan_step(what, StepWish(), free_bytes=int(free * GIB))
    except RunError:
        return
    assert plan.bytes is not None
    assert plan.bytes <= free * GIB
    assert weights_bytes(plan, what) <= plan.bytes
    better = plan_step(what, StepWish(), free_bytes=int((free + more) * GIB))
    assert plan.seconds is not None
    assert better.seconds is not None
    assert better.seconds <= plan.seconds + 0.001


def test_every_rung_needs_less_and_the_last_has_none_below_it() -> None:
    plan: StepPlan | None = plan_step(need(), StepWish(), free_bytes=int(77.5 * GIB))
    rungs = []
    while plan is not None:
        rungs.append((plan.turned, plan.kept, plan.attention, not plan.inputs_to_host, -plan.streamed, plan.slots))
        plan = plan.next_rung(48)
    assert len(rungs) == len(set(rungs)) < 40
    assert rungs[-1] == (False, 0, 0, False, -48, 1)


def test_spare_memory_goes_to_self_attention_first_then_to_whole_blocks_then_to_transposed_matrices() -> None:
    fp8 = StepWish(storage="fp8", precision="w8a8_full")
    what = need(block_bytes=385_875_000)
    plans = [plan_step(what, fp8, free_bytes=int(free * GIB)) for free in (24, 28, 34, 42, 77.5)]
    for plan in plans:
        if plan.kept:
            assert plan.attention == 48 - plan.kept, "no block keeps all while another lacks what is worth more"
        assert not plan.turned or plan.kept == 48
    assert [plan.kept for plan in plans] == sorted(plan.kept for plan in plans)
    assert plans[-1].turned
    assert not plans[0].turned
    assert not plan_step(what, StepWish(storage="fp8", precision="w8a8"), free_bytes=int(77.5 * GIB)).turned, "only fp8 gradients use them"
