"""In which way a run will decode its samples, as validation/decoding.py finds it: what fits, or is tried in any case. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ltx2core.planning.phases import decode_phase, host_bytes
from ltx2core.planning.several import of_all
from ltx2core.validation.decode_ways import decode_ways, in_any_case

if TYPE_CHECKING:
    from ltx2core.planning.hardware import Hardware
    from ltx2core.planning.host_plan import HostPlan
    from ltx2core.planning.job import Job
    from ltx2core.planning.phases import Phase
    from ltx2core.planning.step_plan import StepNeed, StepPlan
    from ltx2core.validation.decode_ways import DecodeWay


@dataclass(frozen=True, slots=True)
class Decoding:
    """How samples are decoded. other: what is other than was asked for, in words; asked_bytes: what that would hold on the card."""

    phase: Phase
    other: str
    asked_bytes: int


def decoding(job: Job, need: StepNeed, plan: StepPlan, host: HostPlan, hardware: Hardware, free: int) -> Decoding | None:
    """In the first way that fits, else in the one that needs least. None without samples.

    A way that is tried in any case may fill the card: where that is full, the allocator gives back what lies idle. Where RAM cannot take
    the weights, the last way that was passed over is tried so, then tiles beside the weights.
    """
    if job.sample is None or not job.sample.count:
        return None
    ram = host_bytes(need, plan, waiting=host.waiting)
    rest = [(way, decode_phase(need, plan, job.version, job.sample, way, ram=ram, rates=hardware.rates)) for way in decode_ways(job.levers)]
    least, asked = min((phase for _, phase in rest), key=lambda phase: phase.vram_bytes), rest[0][1]

    def found(way: DecodeWay, phase: Phase) -> Decoding | None:
        together = of_all(phase, job.processes)
        if together.vram_bytes > free or together.ram_bytes > hardware.ram_bytes:
            return None
        return Decoding(phase, way.words(job.levers), asked.vram_bytes)

    def filling(phase: Phase) -> Phase:
        return _with_less_idle(phase, of_all(phase, job.processes).vram_bytes - free)

    passed: list[tuple[DecodeWay, Phase]] = []
    while rest:
        (way, phase), rest = rest[0], rest[1:]
        if way.alone and of_all(phase, job.processes).ram_bytes > hardware.ram_bytes:
            beside = passed[-1:] + [other for other in rest if not other[0].alone]
            return next(filter(None, (found(other, filling(one)) for other, one in beside)), Decoding(least, "", asked.vram_bytes))
        must = in_any_case(way, (other for other, _ in rest))
        if decoded := found(way, filling(phase) if must else phase):
            return decoded
        if not must:
            passed.append((way, phase))
    return Decoding(least, "", asked.vram_bytes)


def _with_less_idle(phase: Phase, over: int) -> Phase:
    """With as much less lying idle as the phase is over what is free."""
    idle = phase.vram["reserve"]
    return replace(phase, vram=phase.vram | {"reserve": idle - min(idle, max(0, over))})
