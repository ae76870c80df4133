"""The held-out split by content, and the same number for the same model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from engine_fixtures import MakeConfig, OpenRun, events_of, write_clip

from ltx2core.caching.passes import CachedClip
from ltx2core.data.clip import Bucket, Clip, Sample, Treatment
from ltx2core.runs.events import HeldOutMeasured, Notice, StepDone
from ltx2core.training.engine import FastEngine
from ltx2core.validation import held_out
from ltx2core.validation.held_out import HeldOutLoss, split_clips, split_held_out

if TYPE_CHECKING:
    from ltx2core.training.objective import Losses
    from ltx2core.training.session import TrainingSession


def _clips(*sources: str) -> list[CachedClip]:
    bucket = Bucket(width=64, height=64, frames=9)
    return [
        CachedClip(
            sample=Sample(clip=Clip(path=Path(f"{number}.mp4")), bucket=bucket, fps=25.0, captions=("x",)),
            source=source,
            video=source,
            audio=None,
            captions=("x",),
        )
        for number, source in enumerate(sources)
    ]


def test_the_split_follows_content_and_not_names_or_order() -> None:
    sources = [f"digest{number}" for number in range(20)]
    train, held_out = split_held_out(_clips(*sources), share=0.2)
    assert len(held_out) == 4
    assert len(train) == 16
    _, again = split_held_out(_clips(*reversed(sources)), share=0.2)
    assert {clip.source for clip in held_out} == {clip.source for clip in again}


def test_copies_of_a_clip_never_lie_on_both_sides() -> None:
    train, held_out = split_held_out(_clips(*["a", "b", "c", "d"] * 3), share=0.25)
    assert held_out
    assert not {clip.source for clip in train} & {clip.source for clip in held_out}


@pytest.mark.parametrize(("count", "share", "expected"), [(3, 0.5, 0), (4, 0.1, 1), (10, 0.0, 0), (1000, 0.5, 8)])
def test_a_small_dataset_spares_none_and_a_large_one_no_more_than_eight(count: int, share: float, expected: int) -> None:
    _, held_out = split_held_out(_clips(*(str(number) for number in range(count))), share=share)
    assert len(held_out) == expected


def _treated(clips: list[CachedClip], **treatment: object) -> list[CachedClip]:
    return [replace(clip, sample=replace(clip.sample, treatment=Treatment(**treatment))) for clip in clips]  # type: ignore[arg-type]


def test_eval_clips_are_measured_and_their_copies_are_not_trained_on() -> None:
    parts = split_clips([*_clips("a", "b", "c", "d", "e"), *_treated(_clips("x", "b"), dataset="eval", measured=True)], share=0.0)
    assert [clip.source for clip in parts.trained] == ["a", "c", "d", "e"]
    assert [clip.source for clip in parts.measured] == ["x", "b"]
    assert [clip.source for clip in parts.also_trained] == ["b"]


def test_regularisation_is_never_held_out() -> None:
    clips = [*_clips("a", "b", "c", "d"), *_treated(_clips(*(f"r{n}" for n in range(20))), dataset="r", regularisation=True)]
    parts = split_clips(clips, share=0.5)
    assert len(parts.measured) == 2
    assert not any(clip.sample.treatment.regularisation for clip in parts.measured)


def test_all_stretches_of_a_held_out_clip_stay_out_and_the_first_is_measured() -> None:
    clips = _clips("a", "b", "c", "d")
    stretches = [replace(clip, sample=replace(clip.sample, start=start)) for clip in clips for start in (2.0, 0.0, 4.0)]
    parts = split_clips(stretches, share=0.25)
    assert [clip.sample.start for clip in parts.measured] == [0.0]
    assert len(parts.trained) == 9
    assert not {clip.source for clip in parts.trained} & {clip.source for clip in parts.measured}


def test_the_base_is_measured_the_same_in_every_run_and_kept_across_a_resume(
    make_config: MakeConfig, open_run: OpenRun, tmp_path: Path
) -> None:
    folder = tmp_path / "clips"
    for seed in range(4):
        write_clip(folder / f"clip{seed}.mp4", seed=seed)
    runs = []
    for name, seed in (("one", 0), ("two", 1)):
        run = open_run(make_config(folder=folder, max_train_steps=2, eval_steps_interval=2, eval_split=0.5, seed=seed), name)
        assert run.run() == "finished"
        runs.append([event for event in events_of(run) if isinstance(event, HeldOutMeasured)])
        assert [event.step for event in runs[-1]] == [0, 2]
        assert [event.step for event in events_of(run) if isinstance(event, StepDone)] == [1, 2]
    assert runs[0][0] == runs[1][0]  # another seed, the same base: the same number to the last bit
    assert runs[0][1].loss != runs[0][0].loss
    assert runs[0][1].base_loss == runs[0][0].loss
    longer = open_run(make_config(folder=folder, max_train_steps=4, eval_steps_interval=2, eval_split=0.5, seed=0), "one", resume=True)
    assert longer.run() == "finished"
    last = [event for event in events_of(longer) if isinstance(event, HeldOutMeasured)][-1]
    base = runs[0][0]
    assert (last.step, last.base_loss, last.base_video_loss, last.base_audio_loss) == (4, base.loss, base.video_loss, base.audio_loss)
    assert last.clips == 2
    assert None not in (last.loss_band, last.video_band, last.audio_band)
    assert base.loss_band is None


def test_a_measurement_that_does_not_fit_beside_the_steps_memory_is_made_once_that_is_given_back(
    make_config: MakeConfig, open_run: OpenRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full card, where captured steps keep their memory."""
    for seed in range(4):
        write_clip(tmp_path / "clips" / f"clip{seed}.mp4", seed=seed, sound=False)
    keys: dict[str, object] = {"folder": tmp_path / "clips", "max_train_steps": 4, "eval_steps_interval": 2, "eval_split": 0.25}
    usual = open_run(make_config(step_engine="fast", **keys), "usual")
    assert usual.run() == "finished", usual.failure

    full, measured = [False], held_out.losses_at
    compute, park = FastEngine.run, FastEngine.park

    def step(engine: FastEngine, *given: object, **named: object) -> Losses:
        full[0] = True
        return compute(engine, *given, **named)  # type: ignore[arg-type]

    def give_back(engine: FastEngine) -> None:
        full[0] = False
        park(engine)

    def losses_at(*given: Any, **named: Any) -> Losses:
        if full[0]:
            raise torch.OutOfMemoryError("the steps' memory is in the way")
        return measured(*given, **named)

    monkeypatch.setattr(FastEngine, "run", step)
    monkeypatch.setattr(FastEngine, "park", give_back)
    monkeypatch.setattr(held_out, "losses_at", losses_at)
    run = open_run(make_config(step_engine="fast", **keys), "full")
    assert run.run() == "finished", run.failure
    losses = [[event.loss for event in events_of(one) if isinstance(event, HeldOutMeasured)] for one in (usual, run)]
    assert losses[0] == losses[1]
    assert len(losses[1]) == 3


def test_a_measurement_that_does_not_fit_at_all_ends_the_run(
    make_config: MakeConfig, open_run: OpenRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(4):
        write_clip(tmp_path / "clips" / f"clip{seed}.mp4", seed=seed, sound=False)

    def losses_at(*_: object, **__: object) -> Losses:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(held_out, "losses_at", losses_at)
    run = open_run(make_config(folder=tmp_path / "clips", max_train_steps=2, eval_steps_interval=2, eval_split=0.25))
    assert run.run() == "failed"


def test_a_held_out_loss_that_is_not_finite_is_said_and_does_not_end_the_run(
    make_config: MakeConfig, open_run: OpenRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(4):
        write_clip(tmp_path / "clips" / f"clip{seed}.mp4", seed=seed, sound=False)
    nan = HeldOutLoss(loss=float("nan"), video=float("nan"), audio=None, clips={"loss": {}})
    monkeypatch.setattr("ltx2core.training.between.measure_held_out", lambda *_, **__: nan)
    run = open_run(make_config(folder=tmp_path / "clips", max_train_steps=1, eval_steps_interval=1, eval_split=0.25))
    assert run.run() == "finished", run.failure
    events = events_of(run)
    assert not [event for event in events if isinstance(event, HeldOutMeasured)]
    assert len([event for event in events if isinstance(event, Notice) and event.code == "held_out_not_finite"]) == 2


def test_clips_that_join_a_resumed_run_do_not_change_what_is_held_out(make_config: MakeConfig, open_run: OpenRun, tmp_path: Path) -> None:
    def held_out_names(run: TrainingSession) -> str:
        return [event.text for event in events_of(run) if isinstance(event, Notice) and event.code == "held_out"][-1]

    folder = tmp_path / "clips"
    for seed in range(4):
        write_clip(folder / f"clip{seed}.mp4", seed=seed, sound=False)
    first = open_run(make_config(folder=folder, max_train_steps=1, eval_steps_interval=1, eval_split=0.25))
    assert first.run() == "finished", first.failure
    for seed in range(4, 12):  # a quarter of these would be three, and perhaps three others
        write_clip(folder / f"clip{seed}.mp4", seed=seed, sound=False)
    grown = open_run(make_config(folder=folder, max_train_steps=2, eval_steps_interval=1, eval_split=0.25), resume=True)
    assert grown.run() == "finished", grown.failure
    assert held_out_names(grown) == held_out_names(first)
    (folder / held_out_names(first).rpartition(" ")[2].strip(".").removesuffix(".mp4")).with_suffix(".mp4").unlink()
    less = open_run(make_config(folder=folder, max_train_steps=3, eval_steps_interval=1, eval_split=0.25), resume=True)
    assert less.run() == "finished", less.failure
    said = [event.text for event in events_of(less) if isinstance(event, Notice) and event.code == "held_out_changed"]
    assert said == ["1 of 1 clips that the held-out loss was measured on are gone or changed: the curve has a step."]
