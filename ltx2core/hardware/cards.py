"""NVIDIA cards that are known by name: memory, rates and link, to plan for a card that is not there.

Sources, all NVIDIA's own: the architecture papers of GA102 (Ampere), AD102 (Ada), GB202 (Blackwell) and of RTX PRO Blackwell; the
datasheets of A2, A10, A30, A40, A100, L4, L40, L40S, H100, H200, HGX B200 and of each RTX A and Ada workstation card; the product pages
of GeForce cards. AWS's page for A10G. Rates are of dense products (datasheets often print twice as much, for sparse ones). bf16 and fp8
are with float32 sums, which GeForce cards do at half the rate of their fp16 sums: per clock and FP32 lane 2 x for bf16, 4 x for fp8,
8 x for int8; workstation cards have twice the first two. Laptop cards: cores x highest boost x the same factors, at the makers' highest
power. Memory is what the driver reports, in GiB: less than what is printed on the box where ECC or the driver keep some.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ltx2core.hardware.rates import GIGA, TERA, Rates

if TYPE_CHECKING:
    from collections.abc import Iterable

GIB = 1 << 30

# GB/s of one lane in one direction after 128b/130b encoding, by PCIe generation.
_LANE = {3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.563e9}

# What is reached of a datasheet's figure, as bench.py measures it over half a second each: on an H100 SXM 659 of 989 TFLOP/s in bf16 at
# 8192^3 (for a moment 791); row-scaled fp8 1109 of 1979 and int8 `_int_mm` 823 of 1979 at 6144 x 4096 x 16384; 54.3 of 63.0 GB/s; 2.73 of
# 3.35 TB/s. Other cards are taken to reach the same shares; a laptop card less, since it seldom holds its highest clock.
REACHED = {"bf16": 0.666, "fp8": 0.56, "int8": 0.416, "link": 0.862, "memory": 0.815}
_LAPTOP_SHARE = 0.75
_LAUNCH_SECONDS = 6e-6


class Card(NamedTuple):
    """A card as its datasheet tells it. `words` is a pattern of its name without the maker's words, in lower case."""

    name: str
    words: str
    memory_gib: float
    bf16_tflops: float
    int8_tops: float
    fp8_tflops: float | None
    memory_gb_per_second: float
    pcie_generation: int
    pcie_width: int
    capability: tuple[int, int]

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_gib * GIB)

    @property
    def laptop(self) -> bool:
        return "Laptop" in self.name

    @property
    def link_bytes_per_second(self) -> float:
        """What its own link can carry in one direction; the machine may give it less."""
        return link_bytes_per_second(self.pcie_generation, self.pcie_width)


AMPERE, AMPERE_100, ADA, HOPPER, BLACKWELL, BLACKWELL_100 = (8, 6), (8, 0), (8, 9), (9, 0), (12, 0), (10, 0)
_L = ".*(laptop|mobile)"

# The first row whose words are found in a name counts, so "4070 ti super" stands before "4070 ti"; of rows with the same words, memory
# decides.
CARDS: tuple[Card, ...] = (
    # name, words, GiB, bf16 TFLOP/s, int8 TOP/s, fp8 TFLOP/s, memory GB/s, PCIe generation and lanes, compute capability
    Card("B200", r"\bg?b200", 179.1, 2250, 4500, 4500, 8000, 5, 16, BLACKWELL_100),
    Card("H200", r"\bg?h200", 140.4, 989, 1979, 1979, 4800, 5, 16, HOPPER),
    Card("H100 NVL", r"\bh100 nvl", 93.6, 835, 1671, 1671, 3938, 5, 16, HOPPER),
    Card("H100 PCIe", r"\bh100 pcie", 79.6, 756, 1513, 1513, 2039, 5, 16, HOPPER),
    Card("H100", r"\bg?h100", 79.6, 989, 1979, 1979, 3350, 5, 16, HOPPER),
    Card("H20", r"\bh20\b", 95.6, 148, 296, 296, 4000, 5, 16, HOPPER),
    Card("A100 80GB PCIe", r"\ba100 (pcie 80(gb)?|80gb pcie)", 80.0, 312, 624, None, 1935, 4, 16, AMPERE_100),
    Card("A100 80GB", r"\ba100", 80.0, 312, 624, None, 2039, 4, 16, AMPERE_100),
    Card("A100 40GB", r"\ba100", 40.0, 312, 624, None, 1555, 4, 16, AMPERE_100),
    Card("A30", r"\ba30\b", 24.0, 165, 330, None, 933, 4, 16, AMPERE_100),
    Card("A40", r"\ba40\b", 45.0, 149.7, 299.3, None, 696, 4, 16, AMPERE),
    Card("A10G", r"\ba10g\b", 22.5, 70, 140, None, 600, 4, 16, AMPERE),
    Card("A10", r"\ba10\b", 22.5, 125, 250, None, 600, 4, 16, AMPERE),
    Card("A2", r"\ba2\b", 15.0, 18, 36, None, 200, 4, 8, AMPERE),
    Card("L40S", r"\bl40s\b", 45.0, 362, 733, 733, 864, 4, 16, ADA),
    Card("L40", r"\bl40\b", 45.0, 181, 362, 362, 864, 4, 16, ADA),
    Card("L4", r"\bl4\b", 22.5, 121, 242, 242, 300, 4, 16, ADA),
    Card("RTX PRO 6000 Blackwell Max-Q", r"\bpro 6000.*max q", 95.6, 439, 878, 878, 1792, 5, 16, BLACKWELL),
    Card("RTX PRO 6000 Blackwell", r"\bpro 6000", 95.6, 504, 1008, 1008, 1792, 5, 16, BLACKWELL),
    Card("RTX PRO 5000 Blackwell", r"\bpro 5000", 47.8, 258, 516, 516, 1344, 5, 16, BLACKWELL),
    Card("RTX 6000 Ada", r"\b6000 ada", 48.0, 364, 728, 728, 960, 4, 16, ADA),
    Card("RTX 5000 Ada", r"\b5000 ada", 32.0, 261, 522, 522, 576, 4, 16, ADA),
    Card("RTX 4500 Ada", r"\b4500 ada", 24.0, 158, 317, 317, 432, 4, 16, ADA),
    Card("RTX 4000 SFF Ada", r"\b4000 sff ada", 20.0, 77, 153, 153, 280, 4, 16, ADA),
    Card("RTX A6000", r"\ba6000\b", 48.0, 154.8, 309.7, None, 768, 4, 16, AMPERE),
    Card("RTX A5500", r"\ba5500\b", 24.0, 136.4, 272.8, None, 768, 4, 16, AMPERE),
    Card("RTX A5000", r"\ba5000\b", 24.0, 111.1, 222.2, None, 768, 4, 16, AMPERE),
    Card("RTX A4500", r"\ba4500\b", 20.0, 94.6, 189.2, None, 640, 4, 16, AMPERE),
    Card("RTX A4000", r"\ba4000\b", 16.0, 76.7, 153.4, None, 448, 4, 16, AMPERE),
    Card("RTX A2000 12GB", r"\ba2000\b", 12.0, 31.9, 63.9, None, 288, 4, 16, AMPERE),
    Card("GeForce RTX 5090 Laptop", r"\b5090" + _L, 23.9, 90.7, 363, 181, 896, 5, 16, BLACKWELL),
    Card("GeForce RTX 5080 Laptop", r"\b5080" + _L, 15.9, 70.3, 281, 141, 896, 5, 16, BLACKWELL),
    Card("GeForce RTX 5090", r"\b5090", 31.8, 209.5, 838, 419, 1792, 5, 16, BLACKWELL),
    Card("GeForce RTX 5080", r"\b5080", 15.9, 112.6, 450, 225, 960, 5, 16, BLACKWELL),
    Card("GeForce RTX 5070 Ti", r"\b5070 ti", 15.9, 87.9, 351.5, 175.8, 896, 5, 16, BLACKWELL),
    Card("GeForce RTX 5070", r"\b5070", 11.9, 61.7, 246.9, 123.5, 672, 5, 16, BLACKWELL),
    Card("GeForce RTX 5060 Ti 16GB", r"\b5060 ti", 15.9, 47.4, 189.8, 94.9, 448, 5, 8, BLACKWELL),
    Card("GeForce RTX 5060 Ti 8GB", r"\b5060 ti", 7.9, 47.4, 189.8, 94.9, 448, 5, 8, BLACKWELL),
    Card("GeForce RTX 5060", r"\b5060", 7.9, 38.4, 153.5, 76.7, 448, 5, 8, BLACKWELL),
    Card("GeForce RTX 4090 Laptop", r"\b4090" + _L, 16.0, 79.4, 318, 159, 576, 4, 16, ADA),
    Card("GeForce RTX 4080 Laptop", r"\b4080" + _L, 12.0, 67.7, 271, 135, 432, 4, 16, ADA),
    Card("GeForce RTX 4070 Laptop", r"\b4070" + _L, 8.0, 40.1, 160, 80.2, 256, 4, 8, ADA),
    Card("GeForce RTX 4060 Laptop", r"\b4060" + _L, 8.0, 29.1, 116, 58.2, 256, 4, 8, ADA),
    Card("GeForce RTX 4090 D", r"\b4090 ?d\b", 24.0, 147, 588, 294, 1008, 4, 16, ADA),
    Card("GeForce RTX 4090", r"\b4090", 24.0, 165.2, 660.6, 330.3, 1008, 4, 16, ADA),
    Card("GeForce RTX 4080 SUPER", r"\b4080 super", 16.0, 104.4, 417.8, 208.9, 736, 4, 16, ADA),
    Card("GeForce RTX 4080", r"\b4080", 16.0, 97.5, 389.9, 194.9, 717, 4, 16, ADA),
    Card("GeForce RTX 4070 Ti SUPER", r"\b4070 ti super", 16.0, 88.2, 352.9, 176.4, 672, 4, 16, ADA),
    Card("GeForce RTX 4070 Ti", r"\b4070 ti", 12.0, 80.2, 320.7, 160.4, 504, 4, 16, ADA),
    Card("GeForce RTX 4070 SUPER", r"\b4070 super", 12.0, 71.0, 283.9, 141.9, 504, 4, 16, ADA),
    Card("GeForce RTX 4070", r"\b4070", 12.0, 58.3, 233.2, 116.6, 504, 4, 16, ADA),
    Card("GeForce RTX 4060 Ti 16GB", r"\b4060 ti", 16.0, 44.1, 176.5, 88.2, 288, 4, 8, ADA),
    Card("GeForce RTX 4060 Ti 8GB", r"\b4060 ti", 8.0, 44.1, 176.5, 88.2, 288, 4, 8, ADA),
    Card("GeForce RTX 4060", r"\b4060", 8.0, 30.2, 121.0, 60.5, 272, 4, 8, ADA),
    Card("GeForce RTX 3080 Ti Laptop", r"\b3080 ti" + _L, 16.0, 47.2, 189, None, 512, 4, 16, AMPERE),
    Card("GeForce RTX 3080 Laptop", r"\b3080" + _L, 16.0, 42.0, 168, None, 448, 4, 16, AMPERE),
    Card("GeForce RTX 3070 Laptop", r"\b3070" + _L, 8.0, 33.2, 133, None, 448, 4, 16, AMPERE),
    Card("GeForce RTX 3060 Laptop", r"\b3060" + _L, 6.0, 26.2, 105, None, 336, 4, 8, AMPERE),
    Card("GeForce RTX 3090 Ti", r"\b3090 ti", 24.0, 80.0, 320, None, 1008, 4, 16, AMPERE),
    Card("GeForce RTX 3090", r"\b3090", 24.0, 71.2, 284.7, None, 936, 4, 16, AMPERE),
    Card("GeForce RTX 3080 Ti", r"\b3080 ti", 12.0, 68.2, 272.8, None, 912, 4, 16, AMPERE),
    Card("GeForce RTX 3080 10GB", r"\b3080", 10.0, 59.5, 238, None, 760, 4, 16, AMPERE),
    Card("GeForce RTX 3080 12GB", r"\b3080", 12.0, 61.3, 245, None, 912, 4, 16, AMPERE),
    Card("GeForce RTX 3070 Ti", r"\b3070 ti", 8.0, 43.5, 174, None, 608, 4, 16, AMPERE),
    Card("GeForce RTX 3070", r"\b3070", 8.0, 40.6, 162.6, None, 448, 4, 16, AMPERE),
    Card("GeForce RTX 3060 Ti", r"\b3060 ti", 8.0, 32.4, 129.6, None, 448, 4, 16, AMPERE),
    Card("GeForce RTX 3060 12GB", r"\b3060", 12.0, 25.5, 102, None, 360, 4, 16, AMPERE),
    Card("GeForce RTX 3060 8GB", r"\b3060", 8.0, 25.5, 102, None, 240, 4, 16, AMPERE),
)

# The card that stands for a size of memory when nothing else is known: the most common one of that size.
_TYPICAL = {
    6: "GeForce RTX 3060 Laptop",
    8: "GeForce RTX 4060",
    10: "GeForce RTX 3080 10GB",
    12: "GeForce RTX 3060 12GB",
    16: "GeForce RTX 4060 Ti 16GB",
    20: "RTX A4500",
    24: "GeForce RTX 4090",
    32: "GeForce RTX 5090",
    40: "A100 40GB",
    48: "RTX A6000",
    80: "H100",
    96: "RTX PRO 6000 Blackwell",
    141: "H200",
    180: "B200",
}


def find_card(name: str, *, memory_bytes: int | None = None) -> Card | None:
    """The card of a name as a driver or a person writes it ("NVIDIA GeForce RTX 4090", "rtx4090", "a100 40gb"); None for an unknown one.

    Of cards that are sold with several sizes of memory, `memory_bytes` or a size in the name decides, else the first in the table.
    """
    words = _plain(name)
    first = next(
        (card for card in CARDS if re.search(rf"{card.words}\b", words) and _variants(words) <= _variants(_plain(card.name))), None
    )
    if first is None:
        return None
    same = [card for card in CARDS if card.words == first.words]
    written = re.search(r"(?<!\d)(\d{1,3}) ?(?:gb|gib|g)\b", words)
    wanted = memory_bytes / GIB if memory_bytes else float(written[1]) if written else first.memory_gib
    return min(same, key=lambda card: abs(card.memory_gib - wanted))


def typical_card(memory_gib: float) -> Card:
    """The card that stands for one of so much memory, when only that is known: the nearest size that is not larger, at least 6 GiB."""
    size = max((size for size in _TYPICAL if size <= memory_gib + 0.5), default=min(_TYPICAL))
    return next(card for card in CARDS if card.name == _TYPICAL[size])


def card_names() -> tuple[str, ...]:
    """Every known card."""
    return tuple(card.name for card in CARDS)


def rates_of(card: Card, *, pcie_generation: int | None = None, pcie_width: int | None = None) -> Rates:
    """What a card reaches, by its datasheet and the shares in REACHED; through a narrower or older link, if that is given."""
    share = _LAPTOP_SHARE if card.laptop else 1.0
    link = link_bytes_per_second(
        min(pcie_generation or card.pcie_generation, card.pcie_generation), min(pcie_width or card.pcie_width, card.pcie_width)
    )
    return Rates(
        device=card.name,
        source="card",
        bf16_flops_per_second=card.bf16_tflops * TERA * REACHED["bf16"] * share,
        int8_ops_per_second=card.int8_tops * TERA * REACHED["int8"] * share,
        fp8_flops_per_second=None if card.fp8_tflops is None else card.fp8_tflops * TERA * REACHED["fp8"] * share,
        to_device_bytes_per_second=link * REACHED["link"],
        memory_bytes_per_second=card.memory_gb_per_second * GIGA * REACHED["memory"],
        launch_seconds=_LAUNCH_SECONDS,
    )


def link_bytes_per_second(generation: int, width: int) -> float:
    """What a PCIe link carries in one direction at best. Raises ValueError for a generation before 3 or after 6."""
    if generation not in _LANE:
        raise ValueError(f"PCIe generation {generation}: it is one of {', '.join(map(str, _LANE))}")
    return _LANE[generation] * width


def _variants(words: str) -> set[str]:
    """The words that make another card of a number: a 5070 Ti Laptop is no 5070 Ti, and there is no 4090 SUPER."""
    return {"laptop" if word == "mobile" else word for word in words.split()} & {"ti", "super", "laptop", "nvl"}


def _plain(name: str) -> str:
    """A name in lower case without the maker's words, its parts separated by single spaces, a digit apart from a following "ti"."""
    spaced = re.sub(r"[^a-z0-9]+", " ", name.lower())
    spaced = re.sub(r"\brtx(?=[a\d])", "rtx ", spaced)
    spaced = re.sub(r"(\d{4})(ti|super|laptop|mobile)\b", r"\1 \2", spaced).replace("tisuper", "ti super")
    return " ".join(_without(spaced.split(), ("nvidia", "geforce", "quadro", "tesla", "rtx", "gpu", "sxm", "sxm4", "sxm5")))


def _without(words: Iterable[str], left_out: tuple[str, ...]) -> list[str]:
    return [word for word in words if word not in left_out]
