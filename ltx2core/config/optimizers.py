"""SimpleTuner's names of optimizers, and which rule each of them is here. Loads no torch."""

from __future__ import annotations

from typing import Literal

Rule = Literal["adamw", "adafactor", "came", "prodigy", "schedule-free", "muon"]

RULES: dict[str, Rule] = {
    "adamw": "adamw",
    "adamw_bf16": "adamw",
    "torch-adamw": "adamw",
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
EIGHT_BIT = ("8bit", "4bit", "fp8")  # in names of AdamW with a compressed state


def rule_of(name: str) -> Rule:
    """The rule behind a name that was let through."""
    return RULES.get(name, "adamw")


def is_known(name: str) -> bool:
    """Whether a name is one of a rule, or of AdamW with a compressed state."""
    return name in RULES or ("adam" in name and any(word in name for word in EIGHT_BIT))
