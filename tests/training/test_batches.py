"""Data order: every clip as often as asked, buckets never mixed, and the same from any step on."""

from __future__ import annotations

from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltx2core.training.batches import DataOrder, Entry, derive_seed, generator_for

ENTRIES = st.lists(
    st.builds(Entry, group=st.sampled_from(["64x64@9", "96x64@9", "64x64@17"]), times=st.integers(1, 4)), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(entries=ENTRIES, batch_size=st.integers(1, 4), seed=st.integers(0, 2**40), epoch=st.integers(0, 5))
def test_every_epoch_shows_every_clip_as_often_as_asked(entries: list[Entry], batch_size: int, seed: int, epoch: int) -> None:
    order = DataOrder(entries, batch_size=batch_size, seed=seed)
    batches = [order.batch(epoch * order.batches_per_epoch + place) for place in range(order.batches_per_epoch)]
    assert Counter(number for batch in batches for number in batch) == {i: entry.times for i, entry in enumerate(entries)}
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert all(len({entries[number].group for number in batch}) == 1 for batch in batches)


def test_a_run_that_starts_at_step_100_sees_what_an_uninterrupted_one_sees() -> None:
    entries = [Entry(group="a", times=2), Entry(group="a"), Entry(group="b", times=3)]
    whole = DataOrder(entries, batch_size=1, seed=7)
    sequence = [whole.batch(index) for index in range(200)]
    resumed = DataOrder(entries, batch_size=1, seed=7)
    assert [resumed.batch(index) for index in range(100, 200)] == sequence[100:]
    assert sequence[:6] != sequence[6:12]  # another order in each epoch


@settings(max_examples=40, deadline=None)
@given(entries=ENTRIES, batch_size=st.integers(1, 4), index=st.integers(0, 60))
def test_samples_are_counted_over_batches_of_any_size_and_over_epochs(entries: list[Entry], batch_size: int, index: int) -> None:
    order = DataOrder(entries, batch_size=batch_size, seed=3)
    assert order.samples_before(index) == sum(len(order.batch(before)) for before in range(index))


def test_a_dataset_smaller_than_the_batch_still_trains() -> None:
    assert DataOrder([Entry(group="a")], batch_size=8, seed=0).batch(3) == (0,)


def test_noise_depends_on_seed_and_step_and_on_nothing_else() -> None:
    first = torch.randn(4, generator=generator_for(0, "noise", 12, 0))
    torch.manual_seed(99)
    assert torch.equal(first, torch.randn(4, generator=generator_for(0, "noise", 12, 0)))
    assert not torch.equal(first, torch.randn(4, generator=generator_for(0, "noise", 13, 0)))
    assert not torch.equal(first, torch.randn(4, generator=generator_for(1, "noise", 12, 0)))


def test_seeds_are_the_same_on_every_machine() -> None:
    assert derive_seed(0, "noise", 1, 0) == 3075251405713853511
    assert derive_seed(0, "order", 0) != derive_seed(0, "noise", 0)
