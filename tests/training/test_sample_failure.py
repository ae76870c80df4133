from __future__ import annotations

from typing import TYPE_CHECKING

from engine_fixtures import events_of

from ltx2core.runs.events import Notice, SampleReady

if TYPE_CHECKING:
    from engine_fixtures import MakeConfig, OpenRun


def test_a_sample_that_cannot_be_written_is_said_and_training_goes_on(make_config: MakeConfig, open_run: OpenRun) -> None:
    session = open_run(make_config(max_train_steps=2, validation_disable=False, validation_step_interval=2), "in-the-way")
    session.folder.create()
    session.folder.samples.write_text("a file where the folder should be")
    assert session.run() == "finished", session.failure
    events = events_of(session)
    failed = [event for event in events if isinstance(event, Notice) and event.code == "sample_failed"]
    assert [event.text.split(":")[0] for event in failed] == ["Step 0", "Step 2"]
    assert failed[0].fix
    assert not [event for event in events if isinstance(event, SampleReady)]
    assert session.folder.lora.exists()
