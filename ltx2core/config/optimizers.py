"""SimpleTuner's names of optimizers, and which rule each of them is here. Loads no torch."""

from __future__ import annotations

from typing import Literal

Rule = Literal["adamw", "adafactor", "came", "prodigy", "schedule-free", "muon"]

RULES: dict[str, Rule] = {
    "adamw": "adamw",
    "adamw_bf16": "adamw",
    "torch-adamw": "adamw",
    "bnb-adamw": "adamw",
    "bnb-adamw-paged": "adamw",
    "optimi-adamw": "adamw",
    "sdnq-adamw": "adamw",
    "adafactor": "adafactor",
    "sdnq-adafactor": "adafactor",
    "came": "came",
    "sdnq-came": "came",
    "prodigy": "prodigy",
    "adamw_schedulefree": "schedule-free",
    "adamw_schedulefree+aggressive": "schedule-free",
    "adamw_schedulefree+no_kahan": "schedule-free",
    "muon": "muon",
    "sdnq-muon": "muon",
}
PACKAGES: dict[Rule, tuple[str, str]] = {  # what a rule needs beside what is always there: the module, and its package's name
    "came": ("came_pytorch", "came-pytorch"),
    "prodigy": ("prodigyopt", "prodigyopt"),
    "schedule-free": ("schedulefree", "schedulefree"),
}
TITLES: dict[Rule, str] = {
    "adamw": "fused AdamW",
    "adafactor": "Adafactor",
    "came": "CAME",
    "prodigy": "Prodigy",
    "schedule-free": "schedule-free AdamW",
    "muon": "Muon",
}
# AdamW with its state in 8 bits, by SimpleTuner's names of libraries and its own spelling; one way of our own stands for each
EIGHT_BIT_ADAM = ("adamw_8bit", "adamw8bit", "bnb-adamw8bit", "bnb-adamw8bit-paged", "ao-adamw8bit")
_SMALL = ("8bit", "4bit", "fp8")  # in names of AdamW with a compressed state


def rule_of(name: str) -> Rule:
    """The rule behind a name that was let through."""
    return RULES.get(name, "adamw")


def has_eight_bit_state(name: str) -> bool:
    """Whether a name is one of AdamW with a compressed state; 8 bits are the smallest that is built."""
    return name not in RULES and "adam" in name and any(word in name for word in _SMALL)


def is_known(name: str) -> bool:
    """Whether a name is one of a rule, or of AdamW with a compressed state."""
    return name in RULES or has_eight_bit_state(name)
