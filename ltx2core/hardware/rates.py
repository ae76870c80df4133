"""How fast a device computes, copies and launches: the numbers that a prediction of time is made of. Measured, or from a card's datasheet.

`bench.py` measures them, `cards.py` has them for known cards. Plain numbers: nothing here loads torch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

from ltx2core.errors import ConfigError

Source = Literal["measured", "card"]
TERA, GIGA = 1e12, 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTime:
    """The forward of one block of LTX-2's shape without gradients, in bf16 (float32 on a CPU)."""

    video_tokens: Annotated[int, "Tokens of the picture."]
    audio_tokens: Annotated[int, "Tokens of the sound."]
    video_width: Annotated[int, "Width of the picture's stream; LTX-2's is 4096."]
    audio_width: Annotated[int, "Width of the sound's stream; LTX-2's is 2048."]
    seconds: Annotated[float, "Time of one forward."]
    captured: Annotated[bool, "Whether a CUDA graph launched its kernels all at once; a host that launches them is timed, too."] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a device reaches, not what it could at best. None: the device cannot, or it was not measured."""

    device: Annotated[str, "Its name."]
    source: Annotated[Source, "measured here, or from a card's datasheet."]
    bf16_flops_per_second: Annotated[float, "Large products with float32 sums, a multiply and an add being two; of float32 on a CPU."]
    int8_ops_per_second: Annotated[float | None, "The same of int8."]
    fp8_flops_per_second: Annotated[float | None, "The same of fp8 with a scale for each row."]
    to_device_bytes_per_second: Annotated[float | None, "Copies from page-locked memory; null on a CPU, where nothing is copied."]
    memory_bytes_per_second: Annotated[float, "Its memory, reads and writes added."]
    launch_seconds: Annotated[float, "From one small kernel to the next, launched one by one."]
    block: Annotated[BlockTime | None, "The time of a block."] = None

    def as_json(self) -> dict[str, object]:
        """The rates as plain JSON values."""
        return dataclasses.asdict(self)


def rates_from_json(value: object) -> Rates:
    """Rates that `as_json` wrote. Raises ConfigError for anything else."""
    try:
        assert isinstance(value, dict)
        block = value.get("block")
        kept = {name: item for name, item in value.items() if name != "block"}
        rates = Rates(**kept, block=None if block is None else BlockTime(**block))
        numbers = [item for item in dataclasses.astuple(rates)[2:8] if item is not None]
        assert all(isinstance(number, int | float) and number > 0 for number in numbers)
    except (AssertionError, TypeError, AttributeError):
        raise ConfigError(["These are not a device's rates; `ltx2tui probe --measure --json` writes them."]) from None
    return rates
