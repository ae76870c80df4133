"""The command that holds plans against a card: which cases it takes, what it does with one that breaks, and how it adds errors up."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ltx2core.config.sources import preset_files
from tests.benchmarks.card_room import Cards
from tests.benchmarks.plan_grid import (
    Out,
    chosen,
    grid,
    one_of_each_first,
    preset_cases,
    random_cases,
    read_done,
    run_alone,
    said_to_fit,
    summary,
)
from tests.benchmarks.step_cases import INT8, NF4, Case, planned, released_need

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.planning.step_plan import StepNeed

NAMES = ["bf16-2688-all", "bf16-2688-60", "int8-2688-24", "nf4-2688-8"]


def test_the_grid_has_forty_cases_and_more_from_8_to_60_gib() -> None:
    cases = grid()
    assert len(cases) >= 40
    caps = {case.cap_gib for case in cases.values() if case.cap_gib is not None}
    assert (min(caps), max(caps)) == (8, 60)
    assert {case.wish.storage for case in cases.values()} == {"bf16", "int8", "fp8", "nf4"}


def test_cases_are_taken_by_name_by_number_by_range_and_by_how_they_begin() -> None:
    assert chosen(NAMES, "") == NAMES
    assert chosen(NAMES, "int8-2688-24,0") == [NAMES[2], NAMES[0]]
    assert chosen(NAMES, "1-2") == NAMES[1:3]
    assert chosen(NAMES, "2-") == NAMES[2:]
    assert chosen(NAMES, "bf16*,0-1") == NAMES[:2]
    with pytest.raises(ValueError, match="no case is called int9"):
        chosen(NAMES, "int9")


def test_a_line_that_was_cut_off_counts_as_not_done_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "grid.jsonl"
    path.write_text('{"rates": {}}\n{"case": "a", "seconds": 1}\n{"case": "b", "sec')
    Out(path).write({"case": "c", "seconds": 2})
    assert list(read_done(path)) == ["a", "c"]


def test_a_case_that_takes_too_long_is_ended_and_one_that_breaks_is_a_line() -> None:
    assert run_alone(["--run", "x"], limit=0.01, gpu=None) == {"error": "took longer than 0.01 s"}
    error = run_alone(["--run", "no such case"], limit=60, gpu=None)["error"]
    assert "exit status 1" in error
    assert "KeyError: 'no such case'" in error


def test_cases_share_a_card_as_far_as_their_caps_and_their_host_memory_leave_room() -> None:
    cards = Cards(1, gib=78, ram_gib=100)
    with cards.room(30, 60), cards.room(40, 40):
        for cap, ram in ((12, 0), (1, 1)):
            waits = threading.Thread(target=lambda cap=cap, ram=ram: cards.room(cap, ram).__enter__(), daemon=True)
            waits.start()
            waits.join(0.05)
            assert waits.is_alive()
    cards = Cards(2)
    with cards.room(None) as first, cards.room(None, 1000) as second:
        assert {*first, *second} == {0, 1}


def test_a_card_has_all_of_its_room_again_when_its_cases_have_ended() -> None:
    cards = Cards(1, gib=78.0)
    for cap in (25.591, 13.544, 0.1, 0.7):
        with cards.room(cap), cards.room(cap / 3):
            pass
    with cards.room(None) as (card,):
        assert card == 0


def test_a_case_of_several_cards_waits_until_all_of_them_have_room() -> None:
    cards = Cards(2, gib=78)
    with cards.room(70):
        waits = threading.Thread(target=lambda: cards.room(20, count=2).__enter__(), daemon=True)
        waits.start()
        waits.join(0.05)
        assert waits.is_alive()
        with cards.room(40) as (other,):
            assert other == 1
    waits.join(5)
    assert not waits.is_alive()


def test_errors_are_added_up_by_the_newest_line_of_a_case(tmp_path: Path) -> None:
    path = tmp_path / "grid.jsonl"
    lines = [
        {"case": "a", "error": "out of memory"},
        {"case": "a", "planned_gib": 10.2, "process_gib": 10.0, "planned_seconds": 0.9, "seconds": 1.0, "rungs": []},
        {"case": "b", "planned_gib": 9.9, "process_gib": 10.0, "planned_seconds": 9.0, "seconds": 1.0, "rungs": ["a smaller layout"]},
        {"case": "c", "error": "took longer than 240 s"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = summary([path])
    assert found["failed"] == {"c": "took longer than 240 s"}
    assert found["took_rungs"] == ["b"]
    assert found["memory_percent"] == {"median": 1.5, "most": 2.0, "least": -1.0}
    assert found["seconds_percent"] == {"median": 10.0, "most": -10.0, "least": -10.0}  # of a plan that held alone


def test_every_preset_is_a_case_under_the_memory_of_its_card() -> None:
    cases = preset_cases()
    by_preset = {preset: case for name, case in cases.items() for preset in name.split("+")}
    assert set(by_preset) == set(preset_files())
    case, alone = by_preset["12gb-motion"], by_preset["24gb-style"]
    assert (case.latents[0] - 1) * 8 + 1 == 89
    assert case.tokens == case.latents[0] * case.latents[1] * case.latents[2]
    assert case.cap_gib is not None
    assert 11 < case.cap_gib < 12
    assert all(one.cap_gib is None or said_to_fit(one) for one in cases.values())
    assert (by_preset["2x24gb-style"].cap_gib or 0) < (alone.cap_gib or 0)  # what the cards tell each other takes some


def test_random_plans_are_the_same_for_a_seed_and_are_said_to_fit() -> None:
    cases = random_cases(6, seed=3)
    assert cases == random_cases(6, seed=3)
    assert cases != random_cases(6, seed=4)
    assert all(said_to_fit(case) for case in cases.values())
    assert not said_to_fit(Case(tokens=14_080, cap_gib=4.0))


def test_one_case_of_each_kind_that_compiles_anew_comes_before_the_others() -> None:
    cases = {"a": Case(cap_gib=8), "b": Case(cap_gib=9), "c": Case(tokens=6144, cap_gib=30)}
    assert list(one_of_each_first(cases)) == ["a", "c", "b"]
    drawn = random_cases(12, seed=1, shapes=3)
    assert len({(case.tokens, case.audio, case.rank, case.batch, case.wish.storage, case.wish.precision) for case in drawn.values()}) <= 3


@pytest.mark.parametrize("case", [Case(), Case(wish=INT8, rank=64, batch=2), Case(wish=NF4, audio=False)])
def test_a_step_is_made_of_the_same_by_the_released_sizes_and_by_the_model(case: Case) -> None:
    _, _, need = planned(case, layers=48)
    by_sizes = released_need(case)
    assert by_sizes.block_bytes == pytest.approx(need.block_bytes, rel=0.001)
    assert by_sizes.outside_bytes == pytest.approx(need.outside_bytes, rel=0.001)
    assert _without_bytes(by_sizes) == _without_bytes(need)


def _without_bytes(need: StepNeed) -> StepNeed:
    return replace(need, block_bytes=0, outside_bytes=0)
