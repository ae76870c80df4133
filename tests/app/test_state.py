from __future__ import annotations

import math
from dataclasses import replace

from ltx2core.runs import events
from ltx2core.runs.journal import Entry
from ltx2tui import lines
from ltx2tui.headless import progress_line
from ltx2tui.state import RunState, reduce


def _step(step: int, loss: float | None = 0.5, seconds: float = 2.0) -> events.StepDone:
    return events.StepDone(
        step=step, loss=loss, video_loss=loss, audio_loss=None, learning_rate=1e-4, grad_norm=0.1, seconds=seconds, bucket="256x128@9"
    )


def _after(*happened: events.Event, start: float = 1000.0) -> RunState:
    return reduce(RunState(), [Entry(start + second, event) for second, event in enumerate(happened)])


STARTED = events.RunStarted(name="cats", total_steps=100, resumed_at_step=0, pid=7)


def test_nothing_happened_is_a_run_that_starts() -> None:
    assert RunState().title == "Starting"
    assert RunState().seconds_left is None
    assert reduce(RunState(), []) == RunState()


def test_steps_add_up_to_pace_and_time_left() -> None:
    state = _after(STARTED, events.PhaseStarted(phase="train", total=100, unit="steps"), *(_step(n) for n in range(1, 11)))
    assert (state.step, state.total_steps, state.title) == (10, 100, "Training")
    assert state.seconds_per_step is not None
    assert math.isclose(state.seconds_per_step, 2.0)
    assert state.seconds_left is not None
    assert math.isclose(state.seconds_left, 180.0)


def test_a_run_of_epochs_knows_its_steps_once_it_trains() -> None:
    started = events.RunStarted(name="cats", total_steps=0, resumed_at_step=0, pid=7)
    state = _after(started, events.PhaseStarted(phase="train", total=40, unit="steps"), _step(1))
    assert state.total_steps == 40
    assert state.progress == (1, 40)


def test_caching_tells_time_left_from_its_own_pace() -> None:
    state = _after(
        STARTED,
        events.PhaseStarted(phase="cache_video", total=10, unit="clips"),
        events.Progress(phase="cache_video", done=2, total=10, item="a.mp4"),
    )
    assert state.title == "Caching video"
    assert state.seconds_left == 4.0  # two clips took one second
    assert state.item == "a.mp4"


def test_a_loss_that_is_not_a_number_is_a_gap_an_alarm_and_told_by_the_loop_alone() -> None:
    said = events.Notice(code="non_finite", level="warning", text="Step 2: the loss was not a finite number.")
    state = _after(STARTED, _step(1), _step(2, None), said, _step(3, None))
    assert state.is_alarming
    assert state.not_finite == 2
    assert [math.isnan(value) for value in state.losses.values()] == [False, True, True]
    assert sum("finite number" in line.text for line in state.log) == 1
    assert not _after(STARTED, _step(1), _step(2, None), _step(3)).is_alarming


def test_a_resumed_run_forgets_the_steps_after_its_checkpoint_and_keeps_its_samples() -> None:
    sample = events.SampleReady(step=2, path="samples/step-000002/0.mp4", prompt="a cat", seconds=1.0)
    late = events.SampleReady(step=5, path="samples/step-000005/0.mp4", prompt="a cat", seconds=1.0)
    before = [STARTED, *(_step(n) for n in range(1, 6)), sample, late]
    resumed = events.RunStarted(name="cats", total_steps=100, resumed_at_step=3, pid=8)
    state = _after(*before, resumed, _step(4, 0.25))
    assert list(state.losses.values()) == [0.5, 0.5, 0.5, 0.25]
    assert state.step == 4
    assert state.samples == (sample,)
    assert state.ended is None


def test_held_out_loss_is_told_against_the_base_model() -> None:
    base = events.HeldOutMeasured(step=0, loss=0.4, video_loss=0.4, audio_loss=None, base_loss=None)
    later = events.HeldOutMeasured(step=50, loss=0.3, video_loss=0.3, audio_loss=None, base_loss=None)
    state = _after(STARTED, base, later)
    assert state.base_loss == 0.4
    assert state.log[-1].text == "Step 50: held-out loss 0.3000, -25% against the base model."


def test_ends_are_told_apart() -> None:
    assert _after(STARTED, events.RunFinished(step=100, stopped=False, seconds=9.0)).ended == "finished"
    assert _after(STARTED, events.RunFinished(step=9, stopped=True, seconds=9.0)).ended == "stopped"
    failed = _after(STARTED, events.RunFailed(text="No room.", fix="Free some."))
    assert (failed.ended, failed.log[-1].level, failed.log[-1].fix) == ("failed", "error", "Free some.")


def test_memory_keeps_its_peak_and_has_no_vram_without_a_card() -> None:
    state = _after(events.MemorySampled(ram_used_bytes=5, ram_total_bytes=10), events.MemorySampled(ram_used_bytes=3, ram_total_bytes=10))
    assert (state.ram_peak, list(state.ram.values()), len(state.vram)) == (5, [5.0, 3.0], 0)


def test_the_log_is_bounded_and_a_hundred_thousand_steps_fold_in_seconds() -> None:
    import time

    entries = [Entry(float(n), _step(n)) for n in range(1, 100_001)]
    started = time.perf_counter()
    state = reduce(RunState(), entries)
    assert time.perf_counter() - started < 20  # some 2 s here; twenty times that would mean copies
    assert len(state.losses) == 100_000
    notices = [Entry(float(n), events.Notice(code="x", text=str(n))) for n in range(2000)]
    assert len(reduce(state, notices).log) == 500


def test_what_is_wrong_with_a_sample_goes_with_it_and_with_the_one_that_takes_its_place() -> None:
    sample = events.SampleReady(step=5, path="samples/step-000005/sample.mp4", prompt="a cat", seconds=1.0)
    fault = events.Notice(code="sample_static", level="warning", text="Nothing moves.", fix="Say what moves.", sample=sample.path)
    other = events.Notice(code="x", text="About the run.")
    state = reduce(RunState(), [Entry(1.0, sample), Entry(2.0, fault), Entry(3.0, other)])
    assert state.faults == (fault,)
    assert reduce(state, [Entry(4.0, sample)]).faults == ()


def test_what_steps_cost_adds_up_and_is_said_in_a_line_that_fits() -> None:
    chosen = events.EngineChosen(
        engine="fast",
        attention="cudnn",
        products="fp8 both ways",
        compiled=True,
        captured=True,
        num_blocks=48,
        streamed=28,
        recomputed=48,
        matmul_tflops=640.0,
    )
    first = replace(_step(1), compute_ms=None, stall_ms=None, mfu=0.01)
    cost = replace(_step(2), compute_ms=480.0, stall_ms=20.0, link_gb_per_s=54.2, mfu=0.41)
    train = events.PhaseStarted(phase="train", total=100, unit="steps")
    state = _after(STARTED, chosen, train, first, *(replace(cost, step=step) for step in range(2, 60)))
    assert lines.speed_parts(state) == ["MFU 41%", "stall 20 ms", "compute 480 ms", "link 54.2 GB/s"]
    assert lines.speed_line(state, width=26).plain == "MFU 41% · stall 20 ms"
    assert lines.engine_line(state, width=99).plain == (
        "fp8 both ways · cudnn · captured · 28 of 48 blocks stream · 48 computed twice · matmul 640 TFLOP/s"
    )
    assert "MFU 41%  stall 20 ms" in progress_line(state)
    resident = _after(STARTED, replace(chosen, streamed=0), replace(cost, stall_ms=0.0, link_gb_per_s=None))
    assert lines.speed_parts(resident) == ["MFU 41%", "compute 480 ms"]  # nothing waits where nothing travels
    assert lines.speed_parts(_after(STARTED, _step(1))) == []  # a journal of before
    several = _after(STARTED, replace(chosen, ranks=4), *(replace(_step(step), seconds=0.5, samples=8) for step in range(1, 9)))
    assert lines.speed_parts(several)[0] == "4 ranks 16 clips/s"
    assert "captured · 4 ranks" in lines.engine_line(several, width=99).plain


def test_a_held_out_loss_is_said_with_its_change_and_how_sure_that_is() -> None:
    base = events.HeldOutMeasured(step=0, loss=0.5, video_loss=0.3, audio_loss=0.2, base_loss=0.5, base_video_loss=0.3, base_audio_loss=0.2)
    later = replace(
        base, step=100, loss=0.4, video_loss=0.21, audio_loss=0.19, loss_band=0.01, video_band=0.006, audio_band=0.03, best=True
    )
    state = _after(STARTED, base, later)
    assert [line.text for line in state.log[1:]] == [
        "Step 0: held-out loss 0.5000.",
        "Step 100: held-out loss 0.4000, -20% ± 2.0 against the base model (video -30% ± 2.0, audio -5.0% ± 15); the lowest so far.",
    ]
    assert "held out 0.4000 (-20%±2.0)" in lines.numbers_line(state, width=80).plain
    point = state.held_out[-1]
    assert point.audio is not None
    assert point.audio.band is not None
    assert math.isclose(point.audio.band, 0.15)


def test_a_held_out_loss_of_an_older_journal_is_said_as_far_as_it_goes() -> None:
    older = events.HeldOutMeasured(step=100, loss=0.4, video_loss=0.2, audio_loss=None, base_loss=0.5)
    state = _after(STARTED, older)
    assert state.log[-1].text == "Step 100: held-out loss 0.4000, -20% against the base model."
    assert state.held_out[-1].video is None
