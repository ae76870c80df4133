"""Datasets that come and go: every clip is shown, in its time, and the same from any step on."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltx2core.data.clip import Times
from ltx2core.errors import DatasetError
from ltx2core.training.batches import DataOrder, Entry
from ltx2core.training.scheduled import ScheduledOrder, make_order


def entries_of(dataset: str, count: int, times: Times, *, groups: tuple[str, ...] = ("a",), size: int | None = None) -> list[Entry]:
    return [
        Entry(group=f"{dataset} {groups[n % len(groups)]}", times=1 + n % 2, dataset=dataset, schedule=times, batch_size=size)
        for n in range(count)
    ]


TIMES = st.builds(
    Times,
    probability=st.sampled_from([1.0, 1.0, 0.3, 2.5]),
    start_epoch=st.integers(1, 3),
    end_epoch=st.none() | st.integers(3, 5),
    start_step=st.integers(1, 12),
    end_step=st.none() | st.integers(12, 40),
)


def test_without_a_schedule_the_order_is_what_it_always_was() -> None:
    entries = [
        Entry(group="64x64@9 25", times=2),
        Entry(group="96x64@9 25"),
        Entry(group="64x64@9 25"),
        Entry(group="64x64@17 25 with audio", times=3),
        Entry(group="96x64@9 25"),
    ]
    order = make_order([*entries], batch_size=2, seed=7, accumulation=3)
    assert isinstance(order, DataOrder)
    first = [(1, 4), (0, 0), (3,), (2,), (3, 3), (0,), (3,), (4, 1), (3, 3), (0, 2), (0, 2), (0,)]  # as runs of the first version had it
    assert [order.batch(index) for index in range(12)] == first


@settings(max_examples=80, deadline=None)
@given(one=TIMES, two=TIMES, size=st.integers(1, 3), seed=st.integers(0, 2**40), accumulation=st.integers(1, 3), at=st.integers(0, 60))
def test_a_batch_is_of_one_open_dataset_and_the_same_from_any_step_on(
    one: Times, two: Times, size: int, seed: int, accumulation: int, at: int
) -> None:
    entries = entries_of("one", 3, one) + entries_of("two", 4, two, groups=("a", "b")) + entries_of("always", 2, Times(probability=0.5))
    order = ScheduledOrder(entries, batch_size=size, seed=seed, accumulation=accumulation)
    batches = [order.batch(index) for index in range(at + 1)]
    for index, batch in enumerate(batches):
        (dataset,) = {entries[number].dataset for number in batch}
        assert len({entries[number].group for number in batch}) == 1
        times = next(entry.schedule for entry in entries if entry.dataset == dataset)
        step, epoch = index // accumulation + 1, order.epoch_of(index)
        assert times.start_step <= step <= (times.end_step or step)
        assert times.start_epoch <= epoch <= (times.end_epoch or epoch)
    assert ScheduledOrder(entries, batch_size=size, seed=seed, accumulation=accumulation).batch(at) == batches[at]


@settings(max_examples=60, deadline=None)
@given(start=st.integers(1, 30), end=st.integers(1, 30), size=st.integers(1, 3), seed=st.integers(0, 999), epochs=st.integers(1, 6))
def test_every_epoch_shows_every_clip_of_a_dataset_that_stays(start: int, end: int, size: int, seed: int, epochs: int) -> None:
    entries = entries_of("stays", 4, Times()) + entries_of("comes", 3, Times(start_step=start)) + entries_of("goes", 3, Times(end_step=end))
    order = ScheduledOrder(entries, batch_size=size, seed=seed)
    for epoch in range(1, epochs + 1):
        batches = [order.batch(index) for index in range(order.batches_in(epoch - 1), order.batches_in(epoch))]
        shown = Counter(number for batch in batches for number in batch)
        assert {number: shown[number] for number in range(4)} == {number: entries[number].times for number in range(4)}
        whole = order.batches_in(epoch - 1) + 1 >= start
        if whole:  # it was there from the epoch's first step on
            assert all(shown[number] == entries[number].times for number in range(4, 7))


def test_probability_is_the_share_of_batches() -> None:
    entries = entries_of("often", 5, Times(probability=3.0)) + entries_of("seldom", 50, Times(probability=1.0))
    order = ScheduledOrder(entries, batch_size=1, seed=3)
    drawn = [entries[order.batch(index)[0]].dataset for index in range(4000)]
    assert drawn.count("often") == pytest.approx(3000, abs=100)
    seldom = [order.batch(index)[0] for index in range(4000) if drawn[index] == "seldom"]
    assert Counter(seldom[:75]) == {number: entries[number].times for number in range(5, 55)}  # all, before one comes again


def test_a_dataset_that_joins_in_the_middle_of_an_epoch_is_shown_in_it() -> None:
    entries = entries_of("stays", 6, Times()) + entries_of("comes", 3, Times(start_step=4))
    order = ScheduledOrder(entries, batch_size=1, seed=0)
    assert order.batches_in(1) == 13  # 9 and 4
    assert all(number < 6 for index in range(3) for number in order.batch(index))
    assert {number for index in range(3, 13) for number in order.batch(index)} >= {6, 7, 8}


def test_steps_without_any_dataset_are_an_error_that_names_the_step() -> None:
    order = ScheduledOrder(entries_of("one", 2, Times(end_step=5)), batch_size=1, seed=0, accumulation=2)
    assert order.batch(9)
    with pytest.raises(DatasetError, match="at step 6, no dataset is trained on"):
        order.batch(10)


@settings(max_examples=40, deadline=None)
@given(stretches=st.integers(1, 5), times=st.integers(1, 3), seed=st.integers(0, 999))
def test_stretches_take_turns_and_all_are_seen_before_one_comes_again(stretches: int, times: int, seed: int) -> None:
    entries = [Entry(group="a", times=times, clips=tuple(range(10, 10 + stretches))), Entry(group="a", clips=(3,))]
    order = DataOrder(entries, batch_size=1, seed=seed)
    shown = [number for index in range(60) for number in order.batch(index)]
    turns = [number for number in shown if number >= 10]
    for start in range(0, len(turns) - stretches + 1, stretches):
        assert len(set(turns[start : start + stretches])) == stretches
    assert 3 in shown


def test_groups_have_batches_of_their_own_size() -> None:
    entries = [Entry(group="small x4", batch_size=4) for _ in range(8)] + [Entry(group="large x1", batch_size=1) for _ in range(2)]
    order = DataOrder(entries, batch_size=2, seed=0)
    assert sorted(len(order.batch(index)) for index in range(order.batches_per_epoch)) == [1, 1, 4, 4]
    with pytest.raises(ValueError, match="two batch sizes"):
        DataOrder([Entry(group="a", batch_size=4), Entry(group="a")], batch_size=2, seed=0)
