"""A plan as the Plan page draws it: the verdict, bars by phase, why, and a recommendation. Pure: from values to rich's text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ltx2tui.plan_lines import GOALS, PHASES
from ltx2tui.plan_sheet import card_words
from ltx2tui.words import duration, pace, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ltx2core.planning.hardware import Hardware
    from ltx2core.planning.predict import Prediction
    from ltx2core.planning.recommend import Recommendation
    from ltx2core.runs.events import Planned

GIB = 1 << 30
ORDER: tuple[Planned, ...] = ("text", "encode", "train", "sample", "decode")
_WIDE = 60  # cells from which a phase's time is said beside its bars


@dataclass(frozen=True, slots=True)
class Look:
    """Styles, from the theme."""

    good: str
    bad: str
    bar: str
    quiet: str


def verdict(found: Prediction, look: Look) -> Text:
    """Whether it fits and how long it takes, a line or two."""
    if not found.fits:
        return Text.assemble(("✕ Does not fit", f"bold {look.bad}"), (f"  {_shape(found)}", look.quiet))
    text = Text.assemble(("✓ Fits", f"bold {look.good}"), (f"  {pace(found.step_seconds)}", "bold"))
    if found.job.steps:
        low, high = found.seconds_range
        text.append(f", {duration(low)} to {duration(high)} in all")
    return text.append(f"\n{_shape(found)}", look.quiet)


def bars(found: Prediction, hardware: Hardware, look: Look, *, width: int) -> Text:
    """A line for each phase: GPU memory against what is free on the card, RAM against what is free, and its time where there is room."""
    wide = width >= _WIDE
    room = width - 9 - 8 - 8 - (12 if wide else 0)
    gpu, ram = max(4, room * 3 // 5), max(3, room * 2 // 5)
    text = Text(no_wrap=True)
    card = f"GPU of {hardware.free_bytes / GIB:.1f}{' GiB' if wide else ''}"
    text.append(f"{'':<9}{card:<{gpu + 8}}", look.quiet)
    text.append(f"{f'RAM of {hardware.ram_bytes / GIB:.0f} GiB':<{ram + 8}}", look.quiet)
    if wide:
        text.append(f"{'time':>12}", look.quiet)
    for name in ORDER:
        phase = found.phase(name)
        text.append(f"\n{PHASES[name]:<9}")
        if phase is None:
            text.append("does not fit", look.bad) if name in ("text", "train") else text.append("–", look.quiet)
            continue
        for used, most, cells in ((phase.vram_bytes, hardware.free_bytes, gpu), (phase.ram_bytes, hardware.ram_bytes, ram)):
            over = used > most
            text.append_text(_bar(used / most if most else 2.0, cells, look))
            text.append(f" {used / GIB:>5.1f}{'!' if over else ' '} ", f"bold {look.bad}" if over else "")
        if wide:
            text.append(f"{'?' if phase.seconds is None else duration(phase.seconds):>12}")
    return text


def sentences(lines: Iterable[str], look: Look) -> Table:
    """A sentence a row; one that is longer than the line goes on below itself."""
    table = Table.grid(padding=(0, 1, 0, 0))
    for line in lines:
        table.add_row(Text("·", look.quiet), Text(line))
    return table


def recommendation(one: Recommendation, changes: Mapping[str, object], look: Look, *, number: int, taken: bool) -> Group:
    """What it sets, why, what binds it and what the next card would give. changes: keys and values that are not yet so."""
    found = one.prediction
    text = heading(one, number=number, taken=taken, look=look)
    text.append(f"\n{_shape(found)}, {found.vram_bytes / GIB:.1f} GiB", look.quiet)
    for change in [f"{name} = {_shown(value)}" for name, value in changes.items()] or ["as it is set now"]:
        text.append(f"\n  {change}", look.bar)
    return Group(text, sentences((*one.why, one.binds, one.next_card), look))


def heading(one: Recommendation, *, number: int, taken: bool, look: Look) -> Text:
    """Its name, key and times in a line."""
    text = Text.assemble((f"{number} {GOALS[one.goal]}", "bold"), f"  {pace(one.prediction.step_seconds)}")
    text.append(f", {duration(one.prediction.total_seconds)}")
    return text.append("  ✓ taken", f"bold {look.good}") if taken else text


def machine(hardware: Hardware, *, here: bool) -> str:
    """The card and where its speed is from, for the head of the page."""
    rates = "measured" if hardware.rates.source == "measured" else "by datasheet"
    return f"{card_words(hardware)}, {size(hardware.memory_bytes)}, {rates}{', this machine' if here else ''}"


def _shape(found: Prediction) -> str:
    job = found.job
    return f"{job.clip}, {'sound' if job.audio else 'no sound'}, {job.batch} at a time"


def _bar(share: float, cells: int, look: Look) -> Text:
    """Full cells for what is used; a sliver is still seen."""
    filled = cells if share >= 1 else max(1, round(share * cells))
    return Text("█" * filled, look.bad if share > 1 else look.bar).append("░" * (cells - filled), look.quiet)


def _shown(value: object) -> str:
    if value is None:
        return "left out"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
