from __future__ import annotations

import json
import re

import pytest

from ltx2core.errors import ConfigError
from ltx2core.hardware.cards import CARDS, GIB, card_names, find_card, link_bytes_per_second, rates_of, typical_card
from ltx2core.hardware.rates import BlockTime, Rates, rates_from_json


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("NVIDIA GeForce RTX 4090", "GeForce RTX 4090"),
        ("NVIDIA GeForce RTX 4090 D", "GeForce RTX 4090 D"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "GeForce RTX 4090 Laptop"),
        ("rtx4090", "GeForce RTX 4090"),
        ("NVIDIA A100-PCIE-80GB", "A100 80GB PCIe"),
        ("4070ti super", "GeForce RTX 4070 Ti SUPER"),
        ("RTX 4070 Ti", "GeForce RTX 4070 Ti"),
        ("rtx-3060", "GeForce RTX 3060 12GB"),
        ("3080 12GB", "GeForce RTX 3080 12GB"),
        ("NVIDIA GeForce RTX 3080 Laptop GPU", "GeForce RTX 3080 Laptop"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB PCIe"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H20", "H20"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA RTX A4000", "RTX A4000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX PRO 6000 Blackwell"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX PRO 6000 Blackwell Max-Q"),
    ],
)
def test_a_card_is_found_by_the_name_that_a_driver_or_a_person_writes(written: str, name: str) -> None:
    card = find_card(written)
    assert card is not None
    assert card.name == name


@pytest.mark.parametrize("name", card_names())
def test_a_card_is_found_by_its_own_name_and_no_earlier_row_hides_it(name: str) -> None:
    card = find_card(name)
    assert card is not None
    assert card.name == name


def test_memory_tells_cards_of_one_name_apart() -> None:
    small, large = (find_card("NVIDIA GeForce RTX 4060 Ti", memory_bytes=gib * GIB) for gib in (8, 16))
    assert small is not None
    assert large is not None
    assert (small.memory_gib, large.memory_gib) == (8, 16)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "409000x",
        "40900",
        "RTX 4090 SUPER",
        "RTX 5070 Ti Laptop GPU",
        "H1000",
        "GeForce GTX 1080",
        "Radeon RX 7900",
        "Tesla V100-SXM2-16GB",
        "NVIDIA",
    ],
)
def test_an_unknown_card_is_none(name: str) -> None:
    assert find_card(name) is None


def test_dense_rates_keep_the_ratios_of_their_architecture() -> None:
    """A sparse figure or a slip of a digit breaks a ratio: int8 is twice bf16, and four times on GeForce; fp8 lies between."""
    for card in CARDS:
        geforce = card.name.startswith("GeForce")
        assert card.int8_tops / card.bf16_tflops == pytest.approx(4 if geforce else 2, rel=0.02), card.name
        assert (card.fp8_tflops is None) == (card.capability < (8, 9)), card.name
        if card.fp8_tflops is not None:
            assert card.fp8_tflops / card.bf16_tflops == pytest.approx(2, rel=0.02), card.name
        re.compile(card.words)


def test_the_h100_reaches_what_was_measured_on_it() -> None:
    card = find_card("H100")
    assert card is not None
    rates = rates_of(card)
    assert rates.bf16_flops_per_second == pytest.approx(659e12, rel=0.02)
    assert rates.to_device_bytes_per_second == pytest.approx(54.3e9, rel=0.02)
    assert rates.int8_ops_per_second == pytest.approx(823e12, rel=0.02)
    assert rates.fp8_flops_per_second == pytest.approx(1109e12, rel=0.02)


def test_a_narrow_slot_slows_copies_and_a_wide_one_does_not_speed_a_narrow_card_up() -> None:
    card = find_card("4090")
    narrow = find_card("4060")
    assert card is not None
    assert narrow is not None
    whole, quarter = rates_of(card), rates_of(card, pcie_width=4)
    assert whole.to_device_bytes_per_second == pytest.approx(4 * (quarter.to_device_bytes_per_second or 0))
    assert rates_of(narrow, pcie_generation=5, pcie_width=16) == rates_of(narrow)


def test_a_size_of_memory_stands_for_a_card_that_has_no_more_than_it() -> None:
    for gib in (6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 80, 96, 141):
        card = typical_card(gib)
        assert card.memory_gib <= gib + 0.5
        assert card.memory_gib >= gib * 0.9
    assert typical_card(23.5).name == "GeForce RTX 4090"
    assert typical_card(2).memory_gib == 6


def test_a_link_is_its_lanes_times_their_generation() -> None:
    assert link_bytes_per_second(5, 16) == pytest.approx(63.0e9, rel=0.001)
    assert link_bytes_per_second(3, 4) == pytest.approx(3.94e9, rel=0.001)
    with pytest.raises(ValueError, match="PCIe generation 9"):
        link_bytes_per_second(9, 16)


def test_rates_come_back_from_json_as_they_were() -> None:
    block = BlockTime(video_tokens=2688, audio_tokens=50, video_width=4096, audio_width=2048, seconds=0.004)
    rates = Rates(
        device="H100",
        source="measured",
        bf16_flops_per_second=791e12,
        int8_ops_per_second=None,
        fp8_flops_per_second=1.3e15,
        to_device_bytes_per_second=55.1e9,
        memory_bytes_per_second=2.9e12,
        launch_seconds=5e-6,
        block=block,
    )
    assert rates_from_json(json.loads(json.dumps(rates.as_json()))) == rates


@pytest.mark.parametrize("value", [None, [], {}, {"device": "x"}, "rates"])
def test_what_are_no_rates_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="not a device's rates"):
        rates_from_json(value)
