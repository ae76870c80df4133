"""How many processes there may be, and what each of them sees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ltx2core.distributed.places import check_processes, environment_of
from ltx2core.errors import RunError
from ltx2core.hardware.machine import Gpu, Machine
from ltx2core.hardware.probe import probe_machine


def machine(*, visible: int, hidden: int = 0) -> Machine:
    """This one, with so many cards."""
    gpus = tuple(
        Gpu(
            index=index,
            name="GeForce RTX 4090",
            total_bytes=24 << 30,
            free_bytes=24 << 30,
            capability=(8, 9),
            percent=0,
            temperature_celsius=40,
            power_watts=20.0,
            visible=index < visible,
            cuda_index=index if index < visible else None,
        )
        for index in range(visible + hidden)
    )
    return replace(probe_machine(Path()), gpus=gpus, visible_devices="0,1" if hidden else None)


def test_more_processes_than_cards_that_can_be_used_are_refused_with_how_many_can() -> None:
    check_processes(2, machine(visible=2))
    check_processes(8, machine(visible=0))  # a CPU takes any number
    with pytest.raises(RunError, match=r"num_processes = 4: .* 2 can be used, CUDA_VISIBLE_DEVICES=0,1 hiding 2") as found:
        check_processes(4, machine(visible=2, hidden=2))
    assert found.value.fix == "Use 2, or let CUDA_VISIBLE_DEVICES name more."


@pytest.mark.parametrize(
    ("visible", "expected"),
    [(None, ["0", "1", "2"]), ("3,1,GPU-77", ["3", "1", "GPU-77"]), ("2", ["2", "", ""])],
)
def test_each_process_sees_one_card_in_the_order_that_the_user_names(visible: str | None, expected: list[str]) -> None:
    given = {"PATH": "/bin"} if visible is None else {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": visible}
    found = [environment_of(rank, 3, variables=given) for rank in range(3)]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in found] == expected
    assert all(each["PATH"] == "/bin" and int(each["OMP_NUM_THREADS"]) >= 1 for each in found)
    assert environment_of(1, 3, variables={"OMP_NUM_THREADS": "5"})["OMP_NUM_THREADS"] == "5"
