"""The sentences of the Run screen: what a state and a view of it say, in the width there is. Pure; no widget, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich.text import Text

from ltx2tui import words

if TYPE_CHECKING:
    from ltx2tui.state import RunState

Mood = Literal["live", "bad", "done", "still"]
LossView = Literal["chart", "held-out", "levels"]
VIEWS: dict[LossView, str] = {
    "chart": "1 Loss · n more",
    "held-out": "1 Held-out loss against the base · n more",
    "levels": "1 Loss by noise level · n more",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a viewer knows of a run beside its journal."""

    alive: bool
    paused: bool
    stopping: bool
    here: bool
    still_for: float = 0.0  # seconds that nothing got on, when that is unusual


def mood(state: RunState, view: View) -> Mood:
    """How the run is, as a class for colours; the words say the same."""
    if state.ended == "failed" or state.is_alarming or (state.ended is None and not view.alive and state.last_at > 0):
        return "bad"
    if state.ended == "finished":
        return "done"
    return "still" if state.ended == "stopped" or view.paused or view.stopping or view.still_for else "live"


def status(state: RunState, view: View) -> str:
    """The state of a run in a few words."""
    if state.ended is None and not view.alive and state.last_at > 0:
        return "Interrupted"
    if state.ended is None and view.stopping:
        return "Stopping after this step"
    if state.ended is None and view.paused:
        return "Paused"
    return state.title


def place(state: RunState, view: View) -> str:
    """Where the run is and for how long, for the right end of the first line."""
    where = "in this process" if view.here else f"process {state.pid}" if view.alive and state.pid else "not running"
    seconds = state.session_seconds or state.last_at - state.session_started_at
    return f"{where} · {words.clock(seconds)}" if state.session_started_at else where


def phase_line(state: RunState, view: View, *, width: int) -> Text:
    """State, progress, pace and time left, in one line; what does not fit is left out from the right."""
    mark = {"live": "●", "bad": "✕", "done": "✓", "still": "‖"}[mood(state, view)]
    stalled = view.still_for > 0 and not view.paused and view.alive and state.ended is None
    if stalled:
        mark = "!"
    text = Text(f"{mark} {status(state, view)}", style="bold", no_wrap=True)
    done, total = state.progress
    unit = "" if state.phase == "train" or state.ended else state.unit
    parts = []
    if state.phase == "train" or state.ended:
        parts.append(f"step {done:,} of {total:,}" if total else f"step {done:,}" if done else "")
    elif total:
        parts.append(f"{done:,} of {total:,} {unit}".rstrip())
    if state.ended is None and view.alive and view.paused and not view.stopping:
        parts.append("p goes on")
    elif stalled:
        parts.append(f"nothing new for {words.duration(view.still_for)}")
    elif state.phase == "train" and state.ended is None and state.seconds_per_step is not None:
        parts.append(words.pace(state.seconds_per_step))
    if state.seconds_left is not None and not view.paused and not stalled and view.alive:
        parts.append(f"{words.duration(state.seconds_left)} left")
    if state.lora and state.ended == "finished":
        parts.append(f"LoRA in {state.lora}")
    if state.item and state.ended is None:
        parts.append(state.item)
    elif state.phase not in ("train", None) and state.step and state.ended is None:
        parts.append(f"at step {state.step:,} of {state.total_steps:,}")
    if state.ended is None and not view.alive and state.last_at > 0:
        parts.append("its process is gone; train with --resume goes on")
    return _joined(text, [part for part in parts if part], width)


def numbers_line(state: RunState, *, width: int) -> Text:
    """The newest numbers of training."""
    if state.failure is not None:
        return Text("  " + " ".join(f"{state.failure.text} {state.failure.fix}".split()), no_wrap=True, overflow="ellipsis")
    parts = []
    if len(state.losses):
        parts.append(f"loss {words.loss(state.smoothed.mean if state.smoothed.weight else None)}")
    if state.is_alarming:
        parts.append(f"not a number for {words.count(state.not_finite, 'step')}")
    if state.held_out:
        last = state.held_out[-1]
        base = " (base)" if not last.step else f" ({words.change(last.change, short=True)})" if last.change else ""
        parts.append(f"held out {words.loss(last.loss)}{base}")
    if state.learning_rate is not None:
        parts.append(f"lr {_exponent(state.learning_rate)}")
    if state.grad_norm is not None:
        parts.append(f"grad {state.grad_norm:.3g}")
    if state.bucket:
        parts.append(state.bucket)
    if state.checkpoints:
        parts.append(f"saved at {state.checkpoints[-1].step:,}")
    return _joined(Text("  ", no_wrap=True), parts, width, first="")


def speed_parts(state: RunState) -> list[str]:
    """What the recent steps cost, the most telling first; empty before there is any."""
    parts = []
    if state.engine is not None and state.engine.ranks > 1 and state.samples_per_second is not None:
        parts.append(f"{state.engine.ranks} ranks {state.samples_per_second:.3g} clips/s")
    if state.mfu.weight:
        parts.append(f"MFU {state.mfu.mean:.0%}" if state.mfu.mean >= 0.1 else f"MFU {state.mfu.mean:.1%}")
    if state.stall_ms.weight and state.engine is not None and state.engine.streamed:
        parts.append(f"stall {_milliseconds(state.stall_ms.mean)}")
    if state.compute_ms.weight:
        parts.append(f"compute {_milliseconds(state.compute_ms.mean)}")
    if state.link_gb_per_s is not None:
        parts.append(f"link {state.link_gb_per_s:.3g} GB/s")
    return parts


def speed_line(state: RunState, *, width: int) -> Text:
    """The same in a line, as much as fits."""
    return _joined(Text(no_wrap=True), speed_parts(state), width, first="", between=" · ")


def engine_line(state: RunState, *, width: int) -> Text:
    """What computes the steps, as much as fits."""
    engine = state.engine
    if engine is None:
        return Text()
    parts = [engine.products, engine.attention]
    parts += ["captured"] if engine.captured else ["compiled"] if engine.compiled else ["eager"]
    parts += [f"{engine.ranks} ranks"] if engine.ranks > 1 else []
    parts += [f"{engine.streamed} of {engine.num_blocks} blocks stream"] if engine.streamed else []
    parts += [f"{engine.recomputed} computed twice"] if engine.recomputed else []
    parts.append(f"matmul {engine.matmul_tflops:.3g} TFLOP/s")
    return _joined(Text(no_wrap=True), parts, width, first="", between=" · ")


def legend(state: RunState, *, view: LossView, log_scale: bool, width: int) -> str:
    """What the marks mean, as far as they are drawn."""
    if view == "held-out":
        return _held_out_legend(state, width=width)
    if view == "levels":
        return "smoothed · against its start"
    parts = (["log"] if log_scale else []) + (["─ smoothed", ": each step"] if len(state.losses) else [])
    if any(point.step for point in state.held_out):
        parts.append("◆ held out")
    if state.base_loss is not None:
        parts.append("╌ base")
    while len(parts) > 1 and len(" · ".join(parts)) > width:
        parts.pop()
    return " · ".join(parts)


def _held_out_legend(state: RunState, *, width: int) -> str:
    last = state.held_out[-1] if state.held_out else None
    if last is None or not last.step:
        return ""
    parts = [
        f"{mark} {name} {words.change(change, short=True)}"
        for mark, name, change in (("◆", "video", last.video), ("●", "audio", last.audio))
        if change
    ]
    band = any(change.band is not None for change in (last.change, last.video, last.audio) if change)
    parts += ["│ 95 % band"] if band else []
    while len(parts) > 1 and len(" · ".join(parts)) > width:
        parts.pop()
    return " · ".join(parts)


def ending(state: RunState) -> str:
    """How a run that is over ended, in a few words."""
    what = {"finished": "finished", "stopped": "stopped", "failed": "failed", None: "its process is gone"}[state.ended]
    return f"{what} after step {state.step:,}"


def leaving(state: RunState) -> str:
    """What the question at leaving says."""
    saved = f"last checkpoint at step {state.checkpoints[-1].step:,}" if state.checkpoints else "no checkpoint yet"
    return f"It trains in this process: step {state.step:,} of {state.total_steps:,}, {saved}."


def _milliseconds(value: float) -> str:
    return f"{value / 1000:.2f} s" if value >= 1000 else f"{value:.0f} ms"


def _joined(text: Text, parts: list[str], width: int, first: str = "   ", between: str = "   ") -> Text:
    separator = first
    for part in parts:
        if text.cell_len + len(separator) + len(part) > width:
            break
        text.append(separator + part, style="not bold")
        separator = between
    return text


def _exponent(value: float) -> str:
    """1e-4 for 0.0001: learning rates are spoken so."""
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
