"""Predicted against measured, run by run and phase by phase, for `ltx2tui plan --history`: a table, and JSON for scripts."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ltx2tui.plan_lines import PHASES
from ltx2tui.words import duration, pace, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from ltx2core.planning.history import Check, CheckedRun, What

WHATS: dict[What, str] = {"vram": "GPU memory", "ram": "RAM", "step": "step", "seconds": "time"}


def history_json(runs: Sequence[CheckedRun], *, correction: float) -> dict[str, Any]:
    """The same as plain JSON values; error is a share of what was measured, negative where the prediction was too low."""
    return {
        "correction": correction,
        "errors": {what: _summary(runs, what) for what in WHATS},
        "runs": [
            {
                **{name: getattr(run, name) for name in ("name", "at", "card", "correction", "as_planned")},
                "checks": [{**dataclasses.asdict(check), "error": round(check.error, 4)} for check in run.checks],
            }
            for run in runs
        ],
    }


def show_history(runs: Sequence[CheckedRun], *, correction: float, console: Console | None = None) -> None:
    """Print it."""
    (console or Console(highlight=False)).print(history_lines(runs, correction=correction))


def history_lines(runs: Sequence[CheckedRun], *, correction: float) -> RenderableType:
    """All of it: a table for each run, then the errors of all together, then what this machine's plans are corrected by."""
    if not runs:
        return Text("No run here has been predicted yet: runs on a GPU are, as they start.")
    parts: list[RenderableType] = []
    for run in runs:
        parts += [_heading(run), _table(run) if run.checks else Text("  Nothing was measured."), Text("")]
    for what, name in WHATS.items():
        summary = _summary(runs, what)
        if summary is not None:
            median, low, high = (summary[key] for key in ("median", "least", "most"))
            text = f"off by {median:.1%} in the middle case, {low:+.1%} to {high:+.1%} of what was measured"
            parts.append(Text.assemble((f"{name:<11}", "bold"), text))
    parts.append(Text(_corrected(correction)))
    return Group(*parts)


def _heading(run: CheckedRun) -> Text:
    when = time.strftime("%d %b %Y %H:%M", time.localtime(run.at))
    text = Text.assemble((run.name, "bold"), f"  {when}, {run.card}")
    if run.correction != 1.0:
        text.append(f", steps corrected by {run.correction:.2f}")
    if not run.as_planned:
        text.append(", blocks held otherwise than predicted for", "yellow")
    return text


def _table(run: CheckedRun) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("  phase", "", "predicted", "measured", "error"):
        table.add_column(heading, no_wrap=True, justify="right" if heading in ("predicted", "measured", "error") else "left")
    before = ""
    for check in run.checks:
        phase = f"  {PHASES[check.phase]}"
        predicted, measured = (_said(check, value) for value in (check.predicted, check.measured))
        table.add_row(phase if phase != before else "", WHATS[check.what], predicted, measured, f"{check.error:+.1%}")
        before = phase
    return table


def _said(check: Check, value: float) -> str:
    return size(int(value)) if check.what in ("vram", "ram") else pace(value) if check.what == "step" else duration(value)


def _summary(runs: Sequence[CheckedRun], what: What) -> dict[str, float] | None:
    errors = [check.error for run in runs for check in run.checks if check.what == what]
    if not errors:
        return None
    return {"median": round(statistics.median(map(abs, errors)), 4), "least": round(min(errors), 4), "most": round(max(errors), 4)}


def _corrected(correction: float) -> str:
    if correction == 1.0:
        return "Plans for this machine are not corrected: that takes a run of 20 steps on its card, held as predicted."
    return f"Compute is taken to last {correction:.2f} times what rates alone say: so much it did in runs on this card."
