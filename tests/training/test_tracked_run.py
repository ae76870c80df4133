"""A run that reports and publishes: numbers arrive, and no token is in any file that it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from engine_fixtures import events_of

from ltx2core.config.load import load_config_dict
from ltx2core.errors import ConfigError
from ltx2core.runs.events import Notice, PhaseStarted

if TYPE_CHECKING:
    from pathlib import Path

    from engine_fixtures import MakeConfig, OpenRun

TOKEN, KEY = "hf_" + "Q" * 34, "c0ffee" * 6


def test_no_token_is_in_any_file_of_a_run_that_reports_and_publishes(
    make_config: MakeConfig, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("WANDB_API_KEY", KEY)

    class Refusing:
        def create_repo(self, *_: object, **__: object) -> None:
            raise OSError(f"401 for Bearer {TOKEN}")

    monkeypatch.setattr("huggingface_hub.HfApi", Refusing)
    config = make_config(
        max_train_steps=2, report_to="tensorboard", push_to_hub=True, webhook_config={"url": f"https://me:{KEY}@host/{TOKEN}"}
    )
    run = open_run(config)
    assert run.run() == "finished"
    told = {event.code: event.text for event in events_of(run) if isinstance(event, Notice)}
    assert "401" in told["not_published"]
    assert list((run.folder.path / "tensorboard").glob("events.*"))
    shown = capfd.readouterr()
    for secret in (TOKEN, KEY):
        assert secret not in shown.out + shown.err
        for path in run.folder.path.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_a_token_in_a_config_is_refused_without_being_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_config_dict({"hub_token": TOKEN}, base=tmp_path, datasets=[{"instance_data_dir": str(tmp_path)}])
    said = " ".join([*error.value.problems, str(error.value)])
    assert "hub_token" in said
    assert "login" in said
    assert TOKEN not in said
    with pytest.raises(ConfigError, match=r"swanlab is not built; use tensorboard, wandb"):
        load_config_dict({"report_to": "swanlab"}, base=tmp_path, datasets=[{"instance_data_dir": str(tmp_path)}])


def test_a_run_that_cannot_report_fails_before_anything_is_cached(
    make_config: MakeConfig, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    run = open_run(make_config(report_to="wandb"))
    assert run.run() == "failed"
    assert run.failure is not None
    assert "wandb is not installed" in run.failure.text
    assert not any(isinstance(event, PhaseStarted) for event in events_of(run))
