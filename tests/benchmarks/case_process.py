"""A case of plan_grid in a process of its own, forked from one that has imported all that cases need: a third of a short case's time.

That one must not have touched the card, which a forked process could not use then; so it counts cards by NVML, which does not.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.context import ForkServerContext


@cache
def _server() -> ForkServerContext:
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.benchmarks.plan_case"])
    return context


def run_process(module: str, arguments: Sequence[str], *, limit: float, variables: dict[str, str]) -> tuple[str, int | None]:
    """What `python -m module arguments` prints, errors too, and its exit status; None when it took longer than `limit` seconds and was
    ended. variables: of its environment, beside ours."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told"
        process = _server().Process(target=_run, args=(module, list(arguments), variables, str(told)))
        process.start()
        process.join(limit)
        status = process.exitcode
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)  # a group of its own: the compiler has processes, too
        process.kill()
        process.join()
        return (told.read_text(encoding="utf-8", errors="replace") if told.exists() else ""), status


def _run(module: str, arguments: list[str], variables: dict[str, str], told: str) -> None:
    os.setsid()
    os.environ.update(variables)
    file = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=False)
    except BaseException:  # noqa: BLE001 - whatever ended it is told
        traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads of the compiler's are not waited for
