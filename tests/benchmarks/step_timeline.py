"""A picture of one step of the 19B on the card: computing over copying, each block by its number, and what waits for weights.

    python -m tests.benchmarks.step_timeline --case cap16-2688 --out docs/step-timeline-16gib.png

The cases are those of step_cases.py. The step that is drawn is a captured one, replayed, optimizer included. Where blocks begin is noted by
kernels of a microsecond that are captured with it. Prints the picture's totals as a line of JSON; `--trace FILE` keeps what was recorded.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks import step_time
from tests.benchmarks.step_cases import Case, cases
from tests.benchmarks.timeline import draw, make_timeline, read_trace

Marks = list[tuple[str, str]]


def mark_blocks(blocks: Any) -> Marks:
    """Let these blocks note on the card where they begin and end; what they note, in order, of the newest forward and backward."""
    marks: Marks = []
    compute, backward, done = blocks.compute, blocks.backward, blocks.done
    last = len(blocks.weights) - 1
    state = {"backwards": False}

    def note(phase: str, text: str) -> None:
        if marks and marks[-1] == (phase, text):  # a block that is computed again, and then its backward
            return
        marks.append((phase, text))
        torch.cuda._sleep(1)

    def marked_compute(index: int, *args: Any, **kwargs: Any) -> Any:
        if index == 0 and not state["backwards"]:
            marks.clear()
        note("backward" if state["backwards"] else "forward", str(index))
        return compute(index, *args, **kwargs)

    def marked_backward(index: int, *args: Any, **kwargs: Any) -> Any:
        state["backwards"] = True
        note("backward", str(index))
        return backward(index, *args, **kwargs)

    def marked_done(index: int, *, forwards: bool, wrap: bool = False) -> None:
        done(index, forwards=forwards, wrap=wrap)
        if index == (last if forwards else 0):
            state["backwards"] = forwards
            note("other", "")

    blocks.compute, blocks.backward, blocks.done = marked_compute, marked_backward, marked_done
    return marks


def loads_of(blocks: Any) -> list[int]:
    """The blocks whose weights come in a step, in the order of the ring's copies."""
    if blocks.ring is None:
        return []
    travelling = [index for index, place in enumerate(blocks.ring_index) if place is not None]
    slots = (len(travelling) * 2 - blocks.ring.loads_per_step()) // 2
    return travelling[slots:] + travelling[: len(travelling) - slots][::-1]


def record(case: Case, *, layers: int) -> tuple[list[dict[str, Any]], Marks, list[int], int]:
    """The trace of a replayed step, its marks, its loads, and the bytes of one."""
    step_time.cap_memory(case)
    measured = step_time.prepare_fast(case, layers)
    marks = mark_blocks(measured.blocks)
    for _ in range(4):  # compiled, captured, replayed until clocks are warm
        measured.step()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        measured.step()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        trace = json.loads(path.read_text())["traceEvents"]
    nbytes = measured.blocks.ring.slot_of(0).nbytes if measured.blocks.ring is not None else 0
    loads = loads_of(measured.blocks)
    measured.close()
    return trace, marks, loads, nbytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", default="cap16-2688")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trace", type=Path, default=None)
    parser.add_argument("--layers", type=int, default=48)
    options = parser.parse_args()
    known = cases()
    if options.case not in known:
        sys.exit(f"no case {options.case}; there are {', '.join(known)}")
    if not torch.cuda.is_available():
        sys.exit("a timeline is of a card: this machine has none")
    case = known[options.case]
    trace, marks, loads, nbytes = record(case, layers=options.layers)
    if options.trace is not None:
        options.trace.write_text(json.dumps({"traceEvents": trace, "marks": marks, "loads": loads, "weight_bytes": nbytes}))
    timeline = make_timeline(read_trace(trace, weight_bytes=nbytes), marks=marks, loads=loads)
    title = f"One step of LTX-2 19B, {case.tokens:,} tokens" + (f", within {case.cap_gib:g} GiB" if case.cap_gib else "")
    title += f", {case.wish.storage} weights: {len(set(loads))} blocks' weights pass through the card"
    draw(timeline, title=title).save(options.out, optimize=True)
    line = {"case": options.case, "device": torch.cuda.get_device_name(), "loads": len(loads), **timeline.totals(), "out": str(options.out)}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
