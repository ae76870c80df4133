"""What ranks say to each other, and that one that has ended is noticed."""

from __future__ import annotations

import pytest
import torch
from rank_threads import in_ranks
from torch.distributed import HashStore

from ltx2core.distributed.ranks import ALONE, RankLost, Together, _card_error


def test_all_hear_what_the_owner_says_and_what_each_says_however_long() -> None:
    long = "ü" * 2000

    def act(ranks: Together) -> tuple[list[str], list[list[str]]]:
        told = [ranks.told(text if ranks.owner else None) for text in ("stop", "", long)]
        met = [ranks.meet(f"rank {ranks.rank}"), ranks.meet(long if ranks.rank == 1 else "")]
        ranks.wait()
        return told, met

    for told, met in in_ranks(3, act):
        assert told == ["stop", "", long]
        assert met == [["rank 0", "rank 1", "rank 2"], ["", long, ""]]


def test_tensors_large_and_small_become_their_mean_and_the_owner_s_values_spread_to_all() -> None:
    def tensors(rank: int) -> list[torch.Tensor]:
        return [torch.full((3 << 20,), float(rank)), torch.full((2, 3), 10.0 * rank), torch.tensor(float(rank + 1))]

    def act(ranks: Together) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        mean, spread = tensors(ranks.rank), tensors(ranks.rank + 5)
        ranks.average(mean)
        ranks.spread(spread)
        return mean, spread

    for mean, spread in in_ranks(2, act):
        assert [float(tensor.flatten()[-1]) for tensor in mean] == [0.5, 5.0, 1.5]
        assert all(torch.equal(found, expected) for found, expected in zip(spread, tensors(5), strict=True))


def test_a_rank_that_has_ended_is_an_error_of_those_that_wait_for_it() -> None:
    def act(ranks: Together) -> str:
        if ranks.rank == 1:
            return "gone"  # its connections close with it
        with pytest.raises(RankLost, match="Rank 0 of 2 has waited in vain"):
            ranks.meet("here")
        return "noticed"

    assert in_ranks(2, act) == ["noticed", "gone"]


def test_a_rank_that_is_none_of_them_is_refused_and_one_alone_waits_for_nobody() -> None:
    with pytest.raises(ValueError, match="rank 2 is none of 2"):
        Together(HashStore(), rank=2, size=2, device=torch.device("cpu"))
    assert ALONE.told("text") == "text"
    assert ALONE.meet("text") == ["text"]


def test_cards_that_do_not_reach_each_other_may_be_another_rank_s_fault_but_memory_that_ran_out_is_this_one_s() -> None:
    assert isinstance(_card_error(RuntimeError("NCCL error: remote process exited")), RankLost)
    assert isinstance(_card_error(torch.OutOfMemoryError("Tried to allocate 2 GiB")), torch.OutOfMemoryError)
    assert isinstance(_card_error(RuntimeError("unhandled cuda error\nCuda failure 2 'out of memory'")), torch.OutOfMemoryError)
