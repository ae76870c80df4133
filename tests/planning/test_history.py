"""What runs took corrects what is predicted for the next ones."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from test_before_run import MACHINE, settings

from ltx2core.config.train import TrainConfig
from ltx2core.hardware.device_memory import CONTEXT_BYTES
from ltx2core.planning.before_run import hardware_here, largest_batch, predicted_for
from ltx2core.planning.hardware import hardware_of
from ltx2core.planning.history import Check, checked_in, correction, errors, predicted_events, told
from ltx2core.planning.step_memory import kernels_bytes
from ltx2core.runs import events
from ltx2core.runs.events import to_json
from ltx2core.runs.journal import Journal, read_journal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from engine_fixtures import MakeConfig, OpenRun

    from ltx2core.planning.hardware import Hardware
    from ltx2core.planning.predict import Prediction
    from ltx2core.runs.events import Event, Phase

GIB = 2**30


def here() -> Hardware:
    found = hardware_of(MACHINE)
    assert found is not None
    return found


def predicted(folder: Path, hardware: Hardware | None = None, **values: object) -> Prediction:
    found = predicted_for(hardware or here(), settings(folder, **values), clips=4)
    assert found is not None
    return found


def measured(phase: Phase, *, seconds: float = 10.0, gib: float = 8.0, total: int = 4) -> list[Event]:
    peaks = events.PhaseMeasured(phase=phase, seconds=seconds, ram_peak_bytes=4 * GIB, vram_reserved_bytes=int(gib * GIB))
    return [events.PhaseStarted(phase=phase, total=total, unit="clips"), peaks]


def engine(prediction: Prediction, **changes: object) -> events.EngineChosen:
    assert prediction.plan is not None
    chosen = events.EngineChosen(
        engine="fast",
        attention="cudnn",
        products="bf16",
        compiled=True,
        captured=True,
        num_blocks=48,
        streamed=prediction.plan.streamed,
        recomputed=48 - prediction.plan.kept,
        matmul_tflops=150.0,
    )
    return dataclasses.replace(chosen, **changes)  # type: ignore[arg-type]


def step(number: int, seconds: float, *, bucket: str, stall_ms: float | None = 0.0) -> events.StepDone:
    return events.StepDone(
        step=number,
        loss=0.1,
        video_loss=None,
        audio_loss=None,
        learning_rate=1e-4,
        grad_norm=None,
        seconds=seconds,
        bucket=bucket,
        stall_ms=stall_ms,
    )


def session(prediction: Prediction, hardware: Hardware, *, slower: float = 1.0, steps: int = 40, **changes: object) -> list[Event]:
    """A session whose steps take `slower` times as long as predicted, the first ones far longer, with some of a smaller bucket."""
    clip, seconds = prediction.job.clip, prediction.step_seconds * slower
    done: list[Event] = [step(number, 30.0, bucket=f"{clip.width}x{clip.height}@{clip.frames}") for number in range(1, 4)]
    for number in range(4, steps + 1):
        done.append(step(number, seconds, bucket=f"{clip.height}x{clip.width}@{clip.frames}"))  # upright: as many tokens
        done.append(step(number, seconds / 4, bucket="256x256@9"))
    return [
        events.RunStarted(name="run", total_steps=steps, resumed_at_step=0, pid=1),
        *predicted_events(prediction, hardware),
        *measured("cache_text"),
        *measured("cache_video"),
        *measured("load", gib=2),
        engine(prediction, **changes),
        events.PhaseStarted(phase="train", total=steps, unit="steps"),
        *done,
        events.PhaseMeasured(phase="train", seconds=100.0, ram_peak_bytes=6 * GIB, vram_reserved_bytes=20 * GIB),
        events.RunFinished(step=steps, stopped=False, seconds=300.0),
    ]


def write(root: Path, name: str, happened: Iterable[Event]) -> Path:
    folder = root / "runs" / name
    folder.mkdir(parents=True)
    journal = Journal(folder / "journal.jsonl")
    for event in happened:
        journal.emit(event)
    journal.close()
    return folder / "journal.jsonl"


def check_of(checks: Iterable[Check], phase: str, what: str) -> Check:
    return next(check for check in checks if (check.phase, check.what) == (phase, what))


def test_every_phase_of_a_run_is_held_against_its_prediction(tmp_path: Path) -> None:
    prediction = predicted(tmp_path)
    write(tmp_path, "red-kite", session(prediction, here(), slower=1.25))
    (run,) = errors(tmp_path)
    assert (run.name, run.card, run.as_planned) == ("red-kite", MACHINE.gpus[0].name, True)
    assert {check.phase for check in run.checks} == {"text", "encode", "train"}  # no sample was drawn
    vram = check_of(run.checks, "train", "vram")
    train = prediction.phase("train")
    assert train is not None
    assert vram.predicted == train.vram_bytes
    assert prediction.plan is not None
    held = 20 * GIB + CONTEXT_BYTES + kernels_bytes(joint=True, again=prediction.plan.kept < 48)
    assert vram.measured == held
    assert vram.error == pytest.approx(train.vram_bytes / held - 1)
    assert check_of(run.checks, "train", "step").error == pytest.approx(1 / 1.25 - 1)
    assert check_of(run.checks, "train", "seconds").measured == 110.0  # loading counts
    assert check_of(run.checks, "encode", "seconds").measured == 10.0


def test_samples_are_one_phase_that_takes_the_higher_peak_of_drawing_and_decoding(tmp_path: Path) -> None:
    prediction = predicted(tmp_path, validation_step_interval=250)
    sample, decode = prediction.phase("sample"), prediction.phase("decode")
    assert sample is not None
    assert decode is not None
    happened = session(prediction, here())
    write(tmp_path, "run", [*happened[:-1], *measured("sample", gib=14), *measured("sample", gib=15), happened[-1]])
    (run,) = errors(tmp_path)
    vram = check_of(run.checks, "sample", "vram")
    assert vram.predicted == max(sample.vram_bytes, decode.vram_bytes)
    assert vram.measured == 15 * GIB + CONTEXT_BYTES
    assert check_of(run.checks, "sample", "seconds").measured == 20.0


def test_what_was_in_the_cache_or_not_finished_has_no_seconds_to_compare(tmp_path: Path) -> None:
    prediction = predicted(tmp_path)
    happened = [
        events.RunStarted(name="run", total_steps=9, resumed_at_step=0, pid=1),
        *predicted_events(prediction, here()),
        *measured("cache_text", total=0),
        *measured("cache_video", total=1),
        *measured("train"),
        events.RunFinished(step=3, stopped=True, seconds=30.0),
    ]
    write(tmp_path, "run", happened)
    (run,) = errors(tmp_path)
    assert {(check.phase, check.what) for check in run.checks} == {
        ("encode", "vram"),
        ("encode", "ram"),
        ("train", "vram"),
        ("train", "ram"),
    }


def test_sound_that_is_encoded_for_pictures_in_the_cache_is_not_held_against_encoding_both(tmp_path: Path) -> None:
    prediction = predicted(tmp_path)
    happened = [
        events.RunStarted(name="run", total_steps=1, resumed_at_step=0, pid=1),
        *predicted_events(prediction, here()),
        *measured("cache_video", gib=0, total=0),
        *measured("cache_audio", gib=0.3),
    ]
    checked = checked_in(write(tmp_path, "run", happened))
    assert checked is not None
    assert not [check for check in checked.checks if check.phase == "encode"]


def test_sessions_of_a_resumed_run_are_compared_each_with_its_own_prediction(tmp_path: Path) -> None:
    prediction = predicted(tmp_path)
    first = session(prediction, here())[:-1]  # killed
    second = session(prediction, here(), slower=2)
    second[0] = events.RunStarted(name="run", total_steps=40, resumed_at_step=10, pid=2)
    write(tmp_path, "run", [*first, *second])
    newer, older = errors(tmp_path)
    assert check_of(older.checks, "train", "step").error == pytest.approx(0)
    assert check_of(newer.checks, "train", "step").error == pytest.approx(-0.5)
    assert not any(check.phase == "train" and check.what == "seconds" for check in (*older.checks, *newer.checks))


def test_plans_are_corrected_by_the_median_of_past_runs(tmp_path: Path) -> None:
    assert correction(tmp_path, here()) == 1.0
    prediction = predicted(tmp_path)
    for name, slower in (("a", 1.3), ("b", 1.2), ("c", 9.0)):
        write(tmp_path, name, session(prediction, here(), slower=slower))
    assert correction(tmp_path, here()) == pytest.approx(1.3)
    corrected = hardware_here(MACHINE, tmp_path)
    assert corrected is not None
    assert predicted(tmp_path, corrected).step_seconds > prediction.step_seconds


def test_a_correction_that_was_at_work_is_not_lost_by_the_runs_after_it(tmp_path: Path) -> None:
    slow = dataclasses.replace(here(), correction=1.5)
    write(tmp_path, "as-corrected", session(predicted(tmp_path, slow), slow, slower=1.0))
    assert correction(tmp_path, here()) == pytest.approx(1.5)


@pytest.mark.parametrize(("slower", "bound"), [(7.0, 2.0), (0.1, 0.5)])
def test_a_correction_has_bounds(tmp_path: Path, slower: float, bound: float) -> None:
    write(tmp_path, "run", session(predicted(tmp_path), here(), slower=slower))
    assert correction(tmp_path, here()) == bound


@pytest.mark.parametrize("reason", ["another card", "other rates", "few steps", "held otherwise", "reference", "waited", "not known"])
def test_runs_that_say_nothing_about_this_cards_compute_correct_nothing(tmp_path: Path, reason: str) -> None:
    prediction, hardware = predicted(tmp_path), here()
    changes: dict[str, object] = {}
    if reason == "another card":
        hardware = dataclasses.replace(hardware, card="NVIDIA GeForce RTX 3090")
    if reason == "other rates":
        hardware = dataclasses.replace(hardware, rates=dataclasses.replace(hardware.rates, source="measured"))
    if reason == "held otherwise":
        changes = {"recomputed": 0, "streamed": 0}
    if reason == "reference":
        changes = {"engine": "reference"}
    happened = session(prediction, hardware, slower=1.5, steps=15 if reason == "few steps" else 40, **changes)
    if reason in ("waited", "not known"):
        stalled = 400 * prediction.step_seconds if reason == "waited" else None
        happened = [dataclasses.replace(e, stall_ms=stalled) if isinstance(e, events.StepDone) else e for e in happened]
        assert prediction.plan is not None
        assert prediction.plan.streamed
    write(tmp_path, "run", happened)
    assert correction(tmp_path, here()) == 1.0


def test_a_journal_that_is_cut_or_has_no_prediction_corrects_nothing(tmp_path: Path) -> None:
    whole = session(predicted(tmp_path), here(), slower=1.5)
    write(tmp_path, "plain", [event for event in whole if not isinstance(event, events.RunPredicted)])
    cut = write(tmp_path, "cut", whole[:2])
    with cut.open("a") as file:
        file.write('{"kind":"step_done","at":1.0,"st')
    assert correction(tmp_path, here()) == 1.0
    assert [run.name for run in errors(tmp_path)] == ["cut"]
    assert told(errors(tmp_path)[0]) is None


def test_a_run_on_nano_is_not_predicted_and_a_prediction_is_compared_with_what_such_a_run_measured(
    tmp_path: Path, make_config: MakeConfig, open_run: OpenRun
) -> None:
    opened = open_run(make_config(max_train_steps=4))
    opened.run()
    journal = opened.folder.journal
    assert checked_in(journal) is None
    lines = journal.read_text().splitlines()
    told_by_hand = [json.dumps(to_json(event, seconds_since_epoch=1.0)) for event in predicted_events(predicted(tmp_path), here())]
    journal.write_text("\n".join([lines[0], *told_by_hand, *lines[1:]]) + "\n")
    run = checked_in(journal)
    assert run is not None
    peaks = {event.phase: event for entry in read_journal(journal) if isinstance(event := entry.event, events.PhaseMeasured)}
    assert check_of(run.checks, "train", "ram").measured == peaks["train"].ram_peak_bytes
    assert not run.as_planned  # diffusers and PEFT have computed it
    assert not any(check.what == "vram" for check in run.checks)  # nothing was on a card
    notice = told(run)
    assert notice is not None
    assert "RAM" in notice.text


def test_a_session_writes_its_prediction_before_it_encodes_and_says_at_its_end_how_near_that_was(
    tmp_path: Path, make_config: MakeConfig, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips: list[object] = []

    def by_clip(hardware: Hardware | None, loaded: object, **others: object) -> Prediction:  # nano itself is never predicted
        clips.append((others["largest"], others["clips"]))
        return predicted(tmp_path)

    crowded = dataclasses.replace(MACHINE, gpus=(dataclasses.replace(MACHINE.gpus[0], used_by_others_bytes=9 * GIB),))
    monkeypatch.setattr("ltx2core.training.session.TrainingSession._probe", lambda self: crowded)
    monkeypatch.setattr("ltx2core.training.pipeline.predicted_for", by_clip)
    opened = open_run(make_config(max_train_steps=2))
    assert opened.run() == "finished"
    happened = [entry.event for entry in read_journal(opened.folder.journal)]
    kinds = [event.kind for event in happened]
    encoding = next(n for n, event in enumerate(happened) if isinstance(event, events.PhaseStarted) and event.phase == "cache_video")
    assert kinds.count("run_predicted") == 1
    assert kinds.index("run_predicted") < kinds.index("phase_predicted") < encoding
    assert str(clips[0]).count("width=64, height=64, frames=9") == 1
    notices = [event for event in happened if isinstance(event, events.Notice)]
    assert [notice.code for notice in notices].count("prediction_checked") == 1
    held = next(n for n, event in enumerate(happened) if isinstance(event, events.Notice) and event.code == "gpu_in_use")
    assert held < encoding, "what should be known is told before anything takes long"
    assert kinds[-1] == "run_finished"


def test_nothing_with_pictures_has_no_largest_batch() -> None:
    assert largest_batch([], TrainConfig()) is None


def test_the_command_prints_errors_by_run_and_phase_and_json_for_scripts(tmp_path: Path) -> None:
    write(tmp_path, "red-kite", session(predicted(tmp_path), here(), slower=1.25))
    call = [sys.executable, "-m", "ltx2tui.cli", "--root", str(tmp_path), "plan", "--history"]
    shown = subprocess.run(call, capture_output=True, text=True, check=True).stdout
    assert "red-kite" in shown
    assert "-20.0%" in shown
    document = json.loads(subprocess.run([*call, "--json"], capture_output=True, text=True, check=True).stdout)
    assert document["errors"]["step"]["median"] == 0.2
    assert document["runs"][0]["checks"][0]["phase"] == "text"


def test_the_command_says_so_when_nothing_was_predicted_yet(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "ltx2tui.cli", "--root", str(tmp_path), "plan", "--history"]
    assert "No run here" in subprocess.run(call, capture_output=True, text=True, check=True).stdout
