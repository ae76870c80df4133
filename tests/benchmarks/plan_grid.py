"""Predicted against measured: memory and seconds of a step for a grid of layouts, precisions, sizes and caps, each run as it is planned.

    python -m tests.benchmarks.plan_grid --out grid.jsonl                     every case of the grid, a JSON line each
    python -m tests.benchmarks.plan_grid --out grid.jsonl --skip-done         those that the file does not have yet
    python -m tests.benchmarks.plan_grid --out random.jsonl --random 100 --seed 0 --gpus 4     random plans that are said to fit
    ... --together 3                                                          so many on a card at once as their caps leave room for
    python -m tests.benchmarks.plan_grid --out presets.jsonl --presets        a step of every preset under its cap
    python -m tests.benchmarks.plan_grid --list                               their names and numbers
    python -m tests.benchmarks.plan_grid --summary grid.jsonl [...]           the errors of lines that were written before
    python -m tests.benchmarks.plan_grid --out small.jsonl --small --cases 0-2      a small model on the CPU, to see that all works

A case runs in a process of its own, since one that runs out of memory leaves some behind; compiled kernels are shared by all. A line is
written as soon as its case is done, also where it failed or took longer than --limit. Rates are measured once, before the first case.
Cases that share a card tell whether they fit, and nothing of seconds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import queue
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltx2core.errors import RunError
from ltx2core.hardware.limits import available_memory
from ltx2core.training.compile_cache import kept_kernels
from tests.benchmarks.card_room import Cards, visible_name
from tests.benchmarks.case_process import run_process

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tests.benchmarks.step_cases import Case

_MEASURED_CAPS = (8.0, 78.0)  # GiB, between which caps are drawn
_CARD_GIB = 78.0  # of a card that a case without a cap is looked at for
_SPARE_GIB = 1.0  # of a card that cases share, for what CUDA holds of it by itself
_SHARE_OF_RAM = 0.9  # of what is free, for cases at once
Line = dict[str, Any]
Kind = tuple[object, ...]


def grid() -> dict[str, Case]:
    """By name. Ordered by shape, so that compiled blocks are found again."""
    from ltx2core.planning.step_plan import StepWish
    from tests.benchmarks.step_cases import EIGHT_BIT_ADAM, FP8, FP8_BOTH_WAYS, INT8, NF4, Case

    bf16 = StepWish()
    found: dict[str, Case] = {}

    def add(name: str, tokens: int, wish: StepWish, caps: Iterable[float | None], **others: Any) -> None:
        for cap in caps:
            found[f"{name}-{tokens}-{'all' if cap is None else f'{cap:g}'}"] = Case(tokens=tokens, wish=wish, cap_gib=cap, **others)

    add("bf16", 2688, bf16, (None, 60, 48, 40, 32, 24, 16, 12))
    add("bf16-recomputed", 2688, StepWish(recompute_all=True), (None, 32))
    add("bf16-half-streamed", 2688, StepWish(streamed=24, slots=3), (None,))
    add("bf16-host", 2688, StepWish(inputs_to_host=True), (16,))
    add("fp8-both-ways", 2688, FP8_BOTH_WAYS, (None, 40, 24, 16, 12, 8))
    add("fp8", 2688, FP8, (None, 24, 12))
    add("int8", 2688, INT8, (None, 24, 16, 12, 8))
    add("nf4", 2688, NF4, (None, 16, 8))
    add("nf4-adam8", 2688, NF4, (8,), adam=EIGHT_BIT_ADAM)
    add("bf16-rank8", 2688, bf16, (None, 24), rank=8)
    add("int8-rank128", 2688, INT8, (24,), rank=128)
    add("bf16-video", 2688, bf16, (None, 24), audio=False)
    add("bf16-batch2", 2688, bf16, (None, 48), batch=2)
    add("bf16", 6144, bf16, (None, 60, 48, 24, 16))
    add("fp8-both-ways", 6144, FP8_BOTH_WAYS, (None, 24, 16, 12))
    add("int8", 6144, INT8, (24, 12))
    add("bf16", 14080, bf16, (None, 48, 24))
    add("fp8-both-ways", 14080, FP8_BOTH_WAYS, (None, 24, 16))
    return found


def random_cases(count: int, *, seed: int, shapes: int = 20, most_gib: float = _MEASURED_CAPS[1]) -> dict[str, Case]:
    """So many cases that their plan says fit under their cap, by name.

    shapes: how many kinds of batch and weights they are of, each of which takes a minute to compile. Caps are as often between 8 and 16
    GiB as between 32 and 64.
    """
    import random

    from ltx2core.planning.step_plan import StepWish
    from tests.benchmarks.step_cases import EIGHT_BIT_ADAM, AdamSettings, Case

    ways: tuple[tuple[Any, Any], ...] = (
        ("bf16", "dequant"),
        ("int8", "dequant"),
        ("int8", "w8a8"),
        ("fp8", "w8a8"),
        ("fp8", "w8a8_full"),
        ("nf4", "dequant"),
    )
    drawn, found = random.Random(seed), []
    kinds = [
        {
            "tokens": drawn.choice((1024, 2688, 6144, 14080)),
            "audio": drawn.random() < 0.75,
            "rank": drawn.choice((16, 32, 64)),
            "batch": drawn.choice((1, 1, 2)),
            "wish": StepWish(storage=storage, precision=precision),
        }
        for storage, precision in (drawn.choice(ways) for _ in range(shapes))
    ]
    while len(found) < count:
        kind, asked = drawn.choice(kinds), drawn.random()
        wish = replace(
            kind["wish"],
            streamed=drawn.randint(1, 48) if asked < 0.15 else None,
            slots=drawn.randint(1, 3) if asked < 0.1 else None,
            recompute_all=0.15 <= asked < 0.25,
            inputs_to_host=0.25 <= asked < 0.35,
        )
        case = Case(
            **kind | {"wish": wish},
            cap_gib=round(math.exp(drawn.uniform(math.log(_MEASURED_CAPS[0]), math.log(most_gib))), 1),
            adam=EIGHT_BIT_ADAM if drawn.random() < 0.25 else AdamSettings(),
        )
        if said_to_fit(case):
            found.append(case)
    return one_of_each_first({f"random{seed}-{index}": case for index, case in enumerate(found)})


def one_of_each_first(cases: Mapping[str, Case]) -> dict[str, Case]:
    """The cases that compile something new, then the others, which find it: several at once would each compile it."""
    seen: dict[Kind, int] = {}
    turns = {}
    for name, case in cases.items():
        kind = kind_of(case)
        turns[name] = seen[kind] = seen.get(kind, -1) + 1
    return dict(sorted(cases.items(), key=lambda item: min(turns[item[0]], 1)))


def kind_of(case: Case) -> Kind:
    """What the compiler sees of a case."""
    return case.latents, case.batch, case.audio, case.rank, case.wish.storage, case.wish.precision


def preset_cases() -> dict[str, Case]:
    """A step of every preset, under the memory of the smallest card of its size; of several cards, without what their exchange takes.
    Presets whose steps are the same are one case, their names with + between."""
    from ltx2core.config.load import look_at
    from ltx2core.config.sources import preset_files
    from ltx2core.planning.clips import SPATIAL, TEMPORAL
    from ltx2core.planning.job import job_of
    from ltx2core.planning.make_presets import smallest_of
    from ltx2core.planning.several import EXCHANGE_BYTES
    from tests.benchmarks.random_models import GIB
    from tests.benchmarks.step_cases import Case

    found: dict[Case, list[str]] = {}
    for name, path in preset_files().items():
        preset = json.loads(path.read_text(encoding="utf-8"))
        loaded = look_at(preset["config"], base=Path(), datasets=preset["datasets"])
        job = job_of(loaded.config, datasets=loaded.datasets)
        clip, size = job.clip, preset["for"].get("gpu_memory_gb")
        free = None if size is None else smallest_of(size).free_bytes - (EXCHANGE_BYTES if job.processes > 1 else 0)
        case = Case(
            tokens=clip.tokens,
            grid=((clip.frames - 1) // TEMPORAL + 1, clip.height // SPATIAL, clip.width // SPATIAL),
            wish=job.wish,
            cap_gib=None if free is None else free / GIB,
            audio=job.audio,
            rank=job.rank,
            batch=job.batch,
        )
        found.setdefault(case, []).append(name)
    return one_of_each_first({"+".join(names): case for case, names in found.items()})


def said_to_fit(case: Case) -> bool:
    """Whether a run under the case's cap would find a plan."""
    return host_gib(case) is not None


def host_gib(case: Case) -> float | None:
    """GiB of host memory that the case's plan takes; None where it finds none under its cap."""
    from ltx2core.planning.phases import host_bytes
    from ltx2core.planning.step_plan import plan_step
    from tests.benchmarks.random_models import GIB
    from tests.benchmarks.step_cases import CONTEXT_GIB, released_need

    need, cap = released_need(case), case.cap_gib or _CARD_GIB
    try:
        plan = plan_step(need, case.wish, free_bytes=int((cap - CONTEXT_GIB) * GIB))
    except RunError:
        return None
    return sum(host_bytes(need, plan, waiting=case.waiting).values()) / GIB


def chosen(names: Sequence[str], wanted: str) -> list[str]:
    """Of these names those that are wanted: names, parts of names ending in *, numbers and ranges of them, with commas between; all for ''.

    Raises ValueError for what is none of them.
    """
    if not wanted:
        return list(names)
    found: list[str] = []
    for part in wanted.split(","):
        first, dash, last = part.partition("-")
        if part in names:
            found.append(part)
        elif part.endswith("*"):
            found += [name for name in names if name.startswith(part[:-1])]
        elif first.isdigit() and (not dash or last.isdigit() or not last):
            end = int(last) if last else len(names) - 1 if dash else int(first)
            found += names[int(first) : end + 1]
        else:
            raise ValueError(f"no case is called {part}; --list shows them")
    return list(dict.fromkeys(found))


def read_done(path: Path) -> dict[str, Line]:
    """The newest line of each case in a file; a line that was cut off is none."""
    found: dict[str, Line] = {}
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "case" in line:
            found[line["case"]] = line
    return found


class Out:
    """Writes lines to a file, each at once and whole."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        if path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            self._add("\n")  # what was cut off stays a line of its own

    def write(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line)
        self._add(text + "\n")
        print(text, flush=True)

    def _add(self, text: str) -> None:
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


def run_alone(arguments: Sequence[str], *, limit: float, gpu: int | None) -> Line:
    """The line that a process of its own prints; `error` where it printed none, or took too long and was ended."""
    variables = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": visible_name(gpu)}
    output, status = run_process("tests.benchmarks.plan_grid", arguments, limit=limit, variables=variables)
    if status is None:
        return {"error": f"took longer than {limit:g} s"}
    for text in reversed(output.splitlines()):
        if text.startswith("{"):
            found: Line = json.loads(text)
            return found
    return {"error": f"exit status {status}: {output[-600:]}"}


def run_all(names: Sequence[str], options: argparse.Namespace, *, out: Out) -> None:
    """Every case, on as many cards as there are to be used, each card one at a time."""
    together = options.gpus * options.together > 1
    cases = cases_of(options)
    common = [f"--steps={options.steps}", f"--layers={options.layers}", *(["--small"] if options.small else [])]
    if options.random:
        common += [f"--random={options.random}", f"--seed={options.seed}", f"--shapes={options.shapes}"]
    if options.together > 1:
        common.append("--together=2")
    if options.presets:
        common.append("--presets")
    rates = run_alone(["--rates-only", *common], limit=options.limit, gpu=0 if options.gpus > 1 else None)
    out.write(rates)
    if "error" in rates:
        raise SystemExit(f"the card's rates could not be measured: {rates['error']}")
    cards = Cards(
        options.gpus,
        gib=(options.card_gib or rates["card_gib"] - _SPARE_GIB) if options.together > 1 else 0.0,
        ram_gib=_SHARE_OF_RAM * available_memory() / 2**30 if together else math.inf,
    )
    if options.compile_first:
        _compile(names, cases, options, rates, common, out=out)
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        waiting.put(name)
    until = time.monotonic() + options.within

    def work() -> None:
        while time.monotonic() < until:
            try:
                name = waiting.get_nowait()
            except queue.Empty:
                return
            ram = host_gib(cases[name]) if together else None
            with cards.room(cases[name].cap_gib, ram or 0.0) as (card,):
                begun, gpu = time.monotonic(), card if options.gpus > 1 else None
                line = run_alone(["--run", name, f"--rates={json.dumps(rates)}", *common], limit=options.limit, gpu=gpu)
            out.write({"case": name} | line | {"whole_seconds": round(time.monotonic() - begun, 1)})

    workers = [threading.Thread(target=work) for _ in range(options.gpus * options.together)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if not waiting.empty():
        print(json.dumps({"left": waiting.qsize()}), flush=True)


def _compile(
    names: Sequence[str], cases: Mapping[str, Case], options: argparse.Namespace, rates: Line, common: Sequence[str], *, out: Out
) -> None:
    """One small model of each kind, so many at once as were asked for, dealt out to the cards."""
    kinds = list({kind_of(cases[name]): name for name in names}.values())

    def compile_one(turn: int, name: str) -> None:
        gpu = turn % options.gpus if options.gpus > 1 else None
        line = run_alone(["--compile", name, f"--rates={json.dumps(rates)}", *common], limit=options.limit, gpu=gpu)
        out.write({"compiled": name} | line)

    with ThreadPoolExecutor(options.compile_first) as pool:
        list(pool.map(compile_one, range(len(kinds)), kinds))


def summary(paths: Iterable[Path]) -> dict[str, object]:
    """Errors, in percent: of memory those too low apart, for they are what ends a run."""
    lines = list({line["case"]: line for path in paths for line in read_done(path).values()}.values())
    done = [line for line in lines if "error" not in line]
    return {
        "cases": len(lines),
        "failed": {line["case"]: line["error"] for line in lines if "error" in line},
        "took_rungs": [line["case"] for line in done if line.get("rungs")],
        "memory_percent": _errors(done, "planned_gib", "process_gib"),
        "host_percent": _errors(done, "planned_host_gib", "host_gib"),
        "seconds_percent": _errors([line for line in done if not line.get("rungs")], "planned_seconds", "seconds"),
    }


def _errors(lines: Iterable[Line], predicted: str, measured: str) -> dict[str, float] | None:
    found = [100 * (line[predicted] / line[measured] - 1) for line in lines if line.get(predicted) and line.get(measured)]
    if not found:
        return None
    return {"median": round(statistics.median(map(abs, found)), 1), "most": round(max(found), 1), "least": round(min(found), 1)}


def cases_of(options: argparse.Namespace) -> dict[str, Case]:
    found = (
        random_cases(options.random, seed=options.seed, shapes=options.shapes)
        if options.random
        else preset_cases()
        if options.presets
        else grid()
    )
    if not options.small:
        return found
    return {name: replace(case, tokens=32, grid=None, cap_gib=None, batch=min(case.batch, 2), small=True) for name, case in found.items()}


def _run_here(options: argparse.Namespace) -> None:
    """One case, or the rates, in this process."""
    from ltx2core.hardware.rates import rates_from_json
    from tests.benchmarks import plan_case
    from tests.benchmarks.random_models import DEVICE, GIB

    if options.rates_only:
        import torch

        from ltx2core.hardware.bench import CPU_SIZES, measure

        small = replace(CPU_SIZES, product=64, eight_bit=(32, 32, 32), copy_bytes=1 << 16, video_tokens=8, video_width=64, audio_width=32)
        found = measure(DEVICE, sizes=replace(small, heads=4), seconds=0.02) if options.small else measure(DEVICE)
        gib = torch.cuda.get_device_properties(0).total_memory / GIB if DEVICE.type == "cuda" else _CARD_GIB
        plan_case.print_line(
            {"rates": found.rates.as_json(), "notes": list(found.notes), "torch": torch.__version__, "card_gib": round(gib, 2)}
        )
        return
    told = json.loads(options.rates)
    rates = rates_from_json(told["rates"]) if "rates" in told else None
    if options.compile:
        plan_case.print_line(plan_case.compile_kind(options.compile, cases_of(options)[options.compile], rates=rates))
        return
    case, layers = cases_of(options)[options.run], 2 if options.small else options.layers
    plan_case.print_line(
        plan_case.run_case(options.run, case, steps=options.steps, layers=layers, rates=rates, shared=options.together > 1)
    )


def _arguments() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "--out", {"type": Path, "help": "where lines are added"}
    yield "--cases", {"default": "", "help": "names, beginnings with *, numbers or ranges such as 0-9, with commas between"}
    yield "--skip-done", {"action": "store_true", "help": "leave out what the file has, unless it failed"}
    yield "--limit", {"type": float, "default": 240.0, "help": "seconds that a case may take"}
    yield "--within", {"type": float, "default": 1e9, "help": "seconds after which no other case is begun"}
    yield "--together", {"type": int, "default": 1, "help": "cases at once on a card, as far as their caps leave room"}
    yield "--card-gib", {"type": float, "default": 0.0, "help": "of a card that cases share; nearly all of it by default"}
    yield "--gpus", {"type": int, "default": 1, "help": "cards that run cases at once"}
    yield "--steps", {"type": int, "default": 6}
    yield "--layers", {"type": int, "default": 48}
    yield "--small", {"action": "store_true", "help": "a small model of two blocks, on any machine"}
    yield "--random", {"type": int, "default": 0, "help": "so many random plans instead of the grid"}
    yield "--presets", {"action": "store_true", "help": "a step of every preset, under the memory of its size of card"}
    yield "--seed", {"type": int, "default": 0}
    yield "--shapes", {"type": int, "default": 20, "help": "kinds of batch and weights among random plans"}
    yield "--list", {"action": "store_true"}
    yield "--summary", {"nargs": "+", "type": Path}
    yield "--compile-first", {"type": int, "default": 0, "help": "before the cases, compile for so many kinds at once, with four blocks"}
    yield "--compile", {"help": argparse.SUPPRESS}
    yield "--run", {"help": argparse.SUPPRESS}
    yield "--rates", {"default": "{}", "help": argparse.SUPPRESS}
    yield "--rates-only", {"action": "store_true", "help": argparse.SUPPRESS}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, settings in _arguments():
        parser.add_argument(name, **settings)
    options = parser.parse_args(arguments)
    if options.summary:
        print(json.dumps(summary(options.summary), indent=1))
        return
    if options.run or options.compile or options.rates_only:
        _run_here(options)
        return
    try:
        names = chosen(list(cases_of(options)), options.cases)
    except ValueError as error:
        parser.error(str(error))
    if options.list:
        print("\n".join(f"{index:3} {name}" for index, name in enumerate(names)))
        return
    if options.out is None:
        parser.error("--out says where lines go")
    if options.skip_done:
        done = read_done(options.out)
        names = [name for name in names if name not in done or "error" in done[name]]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with kept_kernels():
        run_all(names, options, out=Out(options.out))


if __name__ == "__main__":
    main()
