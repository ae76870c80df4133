from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ltx2core.errors import DatasetError
from ltx2core.runs import events
from ltx2tui.draft import Draft, problem_with, read_draft, write_draft
from ltx2tui.headless import PlainLines
from ltx2tui.state import LogLine
from ltx2tui.training import Launch, LocalFeed, Training
from tests.app.scripted import Script, training_script

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def _lines(script: Script, *, every: int = 1) -> list[str]:
    plain, said = PlainLines(), []
    for start in range(0, len(script.entries), every):
        batch = script.entries[start : start + every]
        said += plain.after(batch, now=batch[-1].at)
    return [line.text if isinstance(line, LogLine) else line for line in said]


def test_progress_is_said_every_few_seconds_and_at_the_end_of_a_phase() -> None:
    said = _lines(
        Script()
        .started(200)
        .cached("cache_video", 12, "clips")
        .train(200)
        .steps(1, 200)
        .add(events.RunFinished(step=200, stopped=False, seconds=99))
    )
    caching = [line for line in said if line.startswith("Caching video")]
    assert "12 of 12 clips" in caching[-1]
    assert len(caching) <= 6  # 17 seconds of it
    training = [line for line in said if line.startswith("Training")]
    assert "step 1 of 200" in training[0]
    assert 15 <= len(training) <= 22  # 84 seconds of it
    assert "step 200 of 200" in training[-1] or "step 200 of 200" in said[-1]


def test_every_line_of_the_log_is_said_once_however_the_entries_arrive() -> None:
    script = training_script(steps=200)
    for every in (1, 7, 10_000):
        said = _lines(script, every=every)
        assert said.count("Step 100: checkpoint saved.") == 1
        assert said.count("Run red-kite started.") == 1


def test_what_fails_before_the_run_has_a_journal_is_told_by_its_feed(tmp_path: Path) -> None:
    def prepare() -> Any:
        raise DatasetError("clips holds no clips.", fix="Put some there.")

    training = Training(Launch(root=tmp_path, name="x", prepare=prepare))
    training.start()
    training.join()
    assert training.outcome == "failed"
    feed = LocalFeed(training)
    (entry,) = feed.read()
    assert entry.event == events.RunFailed(text="clips holds no clips.", fix="Put some there.")
    assert feed.read() == []


def test_a_draft_keeps_only_what_was_set_and_survives_its_file(tmp_path: Path) -> None:
    draft = Draft(folder="clips").having("lora_rank", 24).having("max_train_steps", 200)
    assert draft.set_values == {"lora_rank": 24}  # 200 is what nano does anyway
    write_draft(tmp_path / "a" / "draft.json", draft)
    assert read_draft(tmp_path / "a" / "draft.json") == draft
    (tmp_path / "bad.json").write_text('{"folder": 3, "set": [')
    assert read_draft(tmp_path / "bad.json") == Draft()


def test_another_model_changes_what_is_usual_and_nothing_that_was_set() -> None:
    nano = Draft(folder="clips").having("lora_rank", 24)
    assert nano.value("dataset.resolution") == 128
    real = nano.having("pretrained_model_name_or_path", "Lightricks/LTX-2")
    assert real.value("dataset.resolution") == 512
    assert real.value("lora_rank") == 24


def test_a_draft_loads_as_a_config_that_can_be_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    loaded = Draft(folder="clips").having("lora_rank", 24).loaded(tmp_path)
    assert loaded.config.lora_rank == 24
    assert loaded.config.pretrained_model_name_or_path == "nano"
    assert loaded.datasets.videos[0].video.num_frames == 17
    assert loaded.datasets.videos[0].audio is not None
    silent = Draft(folder="clips").having("dataset.audio.auto_split", False).loaded(tmp_path)
    assert silent.datasets.videos[0].audio is None


def test_a_value_that_cannot_stand_is_explained_in_a_sentence() -> None:
    assert problem_with("lora_rank", 16) == ""
    assert problem_with("lora_rank", 0)
    assert problem_with("max_train_steps", "many")
    assert problem_with("dataset.video.num_frames", 0)
    assert problem_with("validation_resolution", "wide")
