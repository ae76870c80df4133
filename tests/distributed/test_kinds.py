"""Which cards may train together."""

from __future__ import annotations

import pytest
import torch
from rank_threads import in_ranks

from ltx2core.distributed.kinds import Kind, check_one_kind, kind_of
from ltx2core.errors import RunError
from ltx2core.training.agreement import same_devices

A100 = Kind("NVIDIA A100-SXM4-40GB", "8.0", 108)


def test_gpus_of_one_kind_may_have_other_names_and_memory() -> None:
    check_one_kind([A100, Kind("NVIDIA A100-SXM4-80GB", "8.0", 108)])


@pytest.mark.parametrize("odd", [Kind("RTX 3090", "8.6", 82), Kind("NVIDIA A100-SXM4-40GB", "8.0", 42)], ids=["architecture", "slice"])
def test_gpus_of_different_kinds_are_refused_by_rank_and_name_with_what_to_set(odd: Kind) -> None:
    with pytest.raises(RunError) as found:
        check_one_kind([A100, A100, odd])
    assert found.value.text.startswith(
        f"Rank 2 of 3 would train on {odd.name} ({odd.multiprocessors} multiprocessors), rank 0 on NVIDIA A100"
    )
    assert "CUDA_VISIBLE_DEVICES" in found.value.fix


def test_ranks_hear_the_names_of_all_devices() -> None:
    assert in_ranks(2, lambda ranks: same_devices(ranks, torch.device("cpu"))) == [["a CPU", "a CPU"]] * 2
    assert kind_of(torch.device("cpu")) == Kind("a CPU")
