from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ltx2core.data.scan import scan_folder
from ltx2core.demo import HOT_PINK, STEPS, demo_verdict, judge, prepare_demo
from ltx2core.models.nano.measure import share_of_colour
from ltx2core.models.nano.vocabulary import COLOURS, every_word
from ltx2core.runs.folder import RunFolder
from ltx2core.training.session import TrainingSession

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.config.load import LoadedConfig


SHORT = 60  # steps, instead of 450: nano has the zorb already, with the loss down by a third; benchmarks/demo.py runs all of them


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LoadedConfig]:
    """The demo's root, its clips written, and the settings that train on them."""
    root = tmp_path_factory.mktemp("demo")
    return root, prepare_demo(root, steps=SHORT)


def test_the_demo_makes_clips_with_sound_that_nothing_is_wrong_with(prepared: tuple[Path, LoadedConfig]) -> None:
    root, loaded = prepared
    found = scan_folder(root / "clips")
    assert len(found) == 24
    assert all(clip.usable and clip.audio is not None and clip.caption and "zorb" in clip.caption for clip in found)
    assert loaded.config.max_train_steps == SHORT
    assert loaded.notices == ()


def test_the_clips_show_what_nano_does_not_know(prepared: tuple[Path, LoadedConfig]) -> None:
    from ltx2core.data.clip import Bucket
    from ltx2core.data.decode import decode_frames

    frames = decode_frames(prepared[0] / "clips" / "zorb-00.mp4", bucket=Bucket(width=128, height=128, frames=17), fps=25)
    assert share_of_colour(frames, HOT_PINK) > 0.02
    assert "zorb" not in every_word()
    assert all(max(abs(a - b) for a, b in zip(rgb, HOT_PINK, strict=True)) > 60 for rgb in COLOURS.values())


def test_making_the_clips_again_leaves_them_as_they_are(prepared: tuple[Path, LoadedConfig]) -> None:
    root, _ = prepared
    before = {path: path.stat().st_mtime_ns for path in (root / "clips").iterdir()}
    prepare_demo(root)
    assert {path: path.stat().st_mtime_ns for path in (root / "clips").iterdir()} == before


def test_the_demo_trains_for_450_steps_unless_told_otherwise(prepared: tuple[Path, LoadedConfig]) -> None:
    assert prepare_demo(prepared[0]).config.max_train_steps == STEPS == 450


def test_a_verdict_of_a_run_that_never_sampled_says_nothing_false(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "empty")
    folder.create()
    assert demo_verdict(folder) == []
    assert not judge(folder).learned


@pytest.fixture(scope="module")
def demo_run(prepared: tuple[Path, LoadedConfig]) -> RunFolder:
    """The demo with fewer steps, run once."""
    root, loaded = prepared
    session = TrainingSession(loaded, root=root, name="demo", resume=False)
    assert session.run() == "finished", session.failure
    return session.folder


@pytest.mark.slow
def test_the_demo_lowers_the_held_out_loss_by_a_quarter(demo_run: RunFolder) -> None:
    fell = judge(demo_run).loss_fell_by
    assert fell is not None
    assert fell >= 0.25
    assert demo_run.lora.exists()
    assert (demo_run.path / "before-after.png").exists()
    assert len(demo_verdict(demo_run)) >= 4


@pytest.mark.slow
def test_the_demo_shows_a_zorb_after_and_none_before(demo_run: RunFolder) -> None:
    verdict = judge(demo_run)
    assert verdict.learned, verdict
