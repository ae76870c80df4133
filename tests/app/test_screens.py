"""Pictures of every screen in every state, compared with those that a person has looked at (tests/app/__snapshots__)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.app.scenes import page_scene, run_scene
from tests.app.scripted import ScriptedFeed

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = [(80, 24), (160, 48)]
RUNS = ["empty", "caching", "training", "paused", "stalled", "sampling", "nan", "failed", "finished", "stopped"]
KEYS_OVER_CLIPS = [("filter", "f", "all clips"), ("edit", "e", "tokens")]
PAGES = ["welcome", "welcome_runs", "hardware", "hardware_gpu", "dataset", "settings", "review", "plan", "plan_misfit"]

Compare = Any


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("state", RUNS)
def test_the_run_screen_looks_as_before(state: str, size: tuple[int, int], snap_compare: Compare) -> None:
    scene = run_scene(state, Path("runs/red-kite"), flat=True)
    assert snap_compare(scene.app, terminal_size=size, run_before=scene.complete)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("page", PAGES)
def test_a_page_looks_as_before(page: str, size: tuple[int, int], snap_compare: Compare) -> None:
    scene = page_scene(page, Path(), flat=True)
    assert snap_compare(scene.app, terminal_size=size, run_before=scene.complete)


def _with_keys(scene: Any, *keys: str) -> Callable[[Any], Any]:
    async def complete(pilot: Any) -> None:
        await scene.complete(pilot)
        await pilot.press(*keys)
        await pilot.pause()

    return complete


@pytest.mark.parametrize(("name", "keys"), [("leave", ["q"]), ("help", ["question_mark"]), ("zoom", ["1"]), ("log_axis", ["y"])])
def test_what_a_key_shows_over_a_run_looks_as_before(name: str, keys: list[str], snap_compare: Compare) -> None:
    scene = run_scene("training", Path("runs/red-kite"), flat=True)
    assert snap_compare(scene.app, terminal_size=(80, 24), run_before=_with_keys(scene, *keys))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(("name", "keys"), [("held_out", ["n"]), ("levels", ["n", "n"])], ids=["held_out", "levels"])
def test_the_other_curves_of_the_loss_look_as_before(name: str, keys: list[str], size: tuple[int, int], snap_compare: Compare) -> None:
    scene = run_scene("training", Path("runs/red-kite"), flat=True)
    assert snap_compare(scene.app, terminal_size=size, run_before=_with_keys(scene, *keys))


async def test_the_curves_go_round_and_say_what_they_wait_for() -> None:
    from tests.app.scenes import shown_text

    scene = run_scene("empty", Path("runs/red-kite"), flat=True)
    async with scene.app.run_test(size=(100, 30)) as pilot:
        await scene.complete(pilot)
        for sign in ("held-out loss", "25 steps", "first step"):
            await pilot.press("n")
            await pilot.pause()
            assert sign in shown_text(scene.app).split("2 Validation")[1]


def test_the_question_for_captions_looks_as_before(snap_compare: Compare) -> None:
    scene = page_scene("dataset", Path(), flat=True)
    assert snap_compare(scene.app, terminal_size=(80, 24), run_before=_with_keys(scene, "c", "down", "down"))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(("name", "key", "sign"), KEYS_OVER_CLIPS, ids=["filter", "edit"])
def test_what_a_key_shows_over_the_dataset_looks_as_before(
    name: str, key: str, sign: str, size: tuple[int, int], snap_compare: Compare
) -> None:
    from ltx2tui.widgets.thumbnail import Thumbnail
    from tests.app.scenes import shown_text, until

    scene = page_scene("dataset", Path(), flat=True)

    async def complete(pilot: Any) -> None:
        await scene.complete(pilot)
        await pilot.press(key)
        await until(pilot, lambda: sign in shown_text(scene.app))
        for picture in scene.app.screen.query(Thumbnail):
            picture.autoplay, picture._rounds_left = False, 0
            await until(pilot, lambda picture=picture: picture._decoded_size is not None)
            picture.rest()
        await pilot.pause(0.2)

    assert snap_compare(scene.app, terminal_size=size, run_before=complete)


async def test_captions_can_be_chosen_while_the_folder_is_typed_and_an_empty_folder_scanned_again(tmp_path: Path) -> None:
    from textual.widgets import Input

    from ltx2tui.screens.captions import CaptionsDialog
    from tests.app.scenes import shown_text, until

    (tmp_path / "new").mkdir()
    scene = page_scene("dataset", Path(), flat=True)
    app = scene.app
    async with app.run_test(size=(160, 48)) as pilot:
        await scene.complete(pilot)
        await pilot.press("slash")
        entry = app.screen.query_one("#folder", Input)
        await until(pilot, lambda: app.focused is entry)
        entry.value = "new"
        await pilot.press("enter")
        await until(pilot, lambda: "holds no" in shown_text(app))
        await pilot.press("f2")
        assert isinstance(app.screen, CaptionsDialog)
        await pilot.press("down", "enter")
        await until(pilot, lambda: "from the clips' names" in shown_text(app))
        for clip in Path("clips").glob("kite-*.mp4"):
            Path("new", clip.name).write_bytes(clip.read_bytes())
        await pilot.press("ctrl+r")
        await until(pilot, lambda: "3 usable" in shown_text(app))


async def test_a_folder_without_text_files_can_be_captioned_by_names_or_by_one_caption() -> None:
    from ltx2tui.screens.dataset import DatasetScreen
    from tests.app.scenes import shown_text, until

    scene = page_scene("dataset", Path(), flat=True)
    app = scene.app
    async with app.run_test(size=(80, 24)) as pilot:
        await scene.complete(pilot)
        assert "3 usable" in shown_text(app)  # no-caption.mp4 is not
        await pilot.press("c", "down", "enter")
        await until(pilot, lambda: "4 usable" in shown_text(app))
        assert "from the clips' names" in shown_text(app)
        await pilot.press("c", "down", "enter")
        assert "Type the caption first." in shown_text(app)
        await pilot.press(*"zorb", "enter")
        await until(pilot, lambda: "for every clip" in shown_text(app) and "4 usable" in shown_text(app))
        assert isinstance(app.screen, DatasetScreen)
        assert app.screen._scan is not None
        assert {row.captions for number in app.screen.clips.shown if (row := app.screen._scan.row(number)) and row.bucket} == {("zorb",)}
        assert app.draft.dataset().caption_strategy == "instanceprompt"


def test_the_light_look_is_as_before(snap_compare: Compare) -> None:
    scene = run_scene("training", Path("runs/red-kite"), flat=True)
    assert snap_compare(scene.app, terminal_size=(120, 36), run_before=_with_keys(scene, "ctrl+t"))


@pytest.mark.parametrize(("key", "asked"), [("s", ["save"]), ("g", ["sample"]), ("p", ["pause"])])
async def test_a_letter_asks_the_run_and_changes_nothing_else(key: str, asked: list[str]) -> None:
    scene = run_scene("training", Path("runs/red-kite"), flat=True)
    feed = scene.app._watch_first
    assert isinstance(feed, ScriptedFeed)
    async with scene.app.run_test(size=(80, 24)) as pilot:
        await scene.complete(pilot)
        await pilot.press(key)
        await pilot.pause(0.1)
        assert feed.asked == asked


async def test_keys_that_do_not_apply_to_an_ended_run_are_dimmed() -> None:
    scene = run_scene("finished", Path("runs/red-kite"), flat=True)
    feed = scene.app._watch_first
    assert isinstance(feed, ScriptedFeed)
    async with scene.app.run_test(size=(80, 24)) as pilot:
        await scene.complete(pilot)
        await pilot.press("s", "g", "p", "x")
        await pilot.pause(0.1)
        assert feed.asked == []
        await pilot.press("q")
    assert scene.app.return_value == "left"


@pytest.mark.parametrize("key", ["q", "x"])
async def test_a_question_about_a_run_goes_away_when_the_run_ends_meanwhile(key: str) -> None:
    from ltx2core.runs import events
    from ltx2core.runs.journal import Entry
    from ltx2tui.screens.dialogs import Question
    from ltx2tui.screens.run import RunScreen
    from tests.app.scenes import shown_text, until

    scene = run_scene("training", Path("runs/red-kite"), flat=True)
    feed = scene.app._watch_first
    assert isinstance(feed, ScriptedFeed)
    async with scene.app.run_test(size=(80, 24)) as pilot:
        await scene.complete(pilot)
        await pilot.press(key)
        await until(pilot, lambda: isinstance(scene.app.screen, Question))
        feed.end(Entry(scene.app.now(), events.RunFinished(step=413, stopped=False, seconds=300.0)))
        await until(pilot, lambda: isinstance(scene.app.screen, RunScreen) and "Finished" in shown_text(scene.app))
        said = [notification.message for notification in scene.app._notifications]
        assert said == ["The run has ended meanwhile: finished after step 413."]
        assert feed.asked == []
        await pilot.press("q")
    assert scene.app.return_value == "left"


async def test_a_run_that_somebody_else_paused_is_shown_as_paused_and_p_goes_on() -> None:
    from tests.app.scenes import shown_text, until

    scene = run_scene("paused", Path("runs/red-kite"), flat=True)
    feed = scene.app._watch_first
    assert isinstance(feed, ScriptedFeed)
    async with scene.app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "Paused" in shown_text(scene.app))
        await pilot.press("p")
        await until(pilot, lambda: "Training" in shown_text(scene.app))
    assert feed.asked == ["resume"]


async def test_the_help_of_a_run_lists_every_key_it_has() -> None:
    from rich.console import Console

    from ltx2tui.screens.dialogs import Help

    scene = run_scene("training", Path("runs/red-kite"), flat=True)
    async with scene.app.run_test(size=(160, 48)) as pilot:
        await scene.complete(pilot)
        below = scene.app.screen
        await pilot.press("question_mark")
        assert isinstance(scene.app.screen, Help)
        console = Console(width=120, color_system=None)
        with console.capture() as taken:
            console.print(scene.app.screen._table())
        keys = {scene.app.get_key_display(binding) for _, binding in below._bindings if "copy_text" not in binding.action}
        listed = {word for line in taken.get().splitlines() for word in line.split("  ")[0].split()}
        assert keys <= listed


async def test_the_wizard_goes_from_hardware_to_review_by_keys_and_keeps_its_answers() -> None:
    from textual.widgets import Input

    from ltx2tui.draft import draft_file, read_draft
    from ltx2tui.screens.dataset import DatasetScreen
    from ltx2tui.screens.review import ReviewScreen
    from ltx2tui.screens.settings import SettingsScreen
    from ltx2tui.widgets.form import FieldRow
    from tests.app.scenes import shown_text, until

    scene = page_scene("dataset", Path(), flat=True)
    app = scene.app
    async with app.run_test(size=(80, 24)) as pilot:
        await scene.complete(pilot)
        assert isinstance(app.screen, DatasetScreen)
        assert "3 usable" in shown_text(app)
        await pilot.press("ctrl+n")
        await until(pilot, lambda: isinstance(app.screen, SettingsScreen) and "usually" in shown_text(app))
        rank = next(row for row in app.screen.query(FieldRow) if row.path == "lora_rank")
        entry = rank.query_one(Input)
        entry.focus()
        entry.value = "0"
        await pilot.pause()
        assert rank.has_class("-wrong")
        await pilot.press("ctrl+n")
        assert isinstance(app.screen, SettingsScreen)  # a wrong value does not go on
        entry.value = "24"
        await pilot.pause()
        assert not rank.has_class("-wrong")
        assert read_draft(draft_file()).set_values["lora_rank"] == 24
        await pilot.press("ctrl+n")
        await until(pilot, lambda: isinstance(app.screen, ReviewScreen) and "set by you" in shown_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, SettingsScreen))


async def test_pictures_decoded_for_a_size_that_is_gone_are_not_shown() -> None:
    from ltx2tui.widgets.frames import read_pictures
    from ltx2tui.widgets.thumbnail import Thumbnail

    scene = run_scene("training", Path("runs/red-kite"), flat=True)
    async with scene.app.run_test(size=(160, 48)) as pilot:
        await scene.complete(pilot)
        shown = next(picture for picture in scene.app.screen.query(Thumbnail) if picture.path is not None)
        assert shown.path is not None
        before = shown._pictures
        shown.post_message(Thumbnail.Decoded(shown.path, (10, 5), read_pictures(shown.path, width=10, height=5)))
        await pilot.pause()
        assert shown._pictures is before


async def test_what_is_wrong_with_a_sample_stands_below_it_and_not_below_others() -> None:
    from ltx2core.runs import events
    from ltx2core.runs.journal import Entry
    from tests.app.scenes import shown_text, until

    scene = run_scene("training", Path("runs/red-kite"), flat=True)
    feed = scene.app._watch_first
    assert isinstance(feed, ScriptedFeed)
    async with scene.app.run_test(size=(160, 48)) as pilot:
        await scene.complete(pilot)
        panel = scene.app.screen.query_one("#video")
        assert not panel.has_class("-faulty")
        text, fix = "Nothing moves in the sample.", "Say what moves."
        fault = events.Notice(code="sample_static", level="warning", text=text, fix=fix, sample="samples/later/0.mp4")
        feed.end(Entry(scene.app.now(), fault))
        await until(pilot, lambda: panel.has_class("-faulty") and "! Nothing moves in the sample." in shown_text(scene.app))
        await pilot.press(*["left_square_bracket"] * 9)
        await until(pilot, lambda: not panel.has_class("-faulty"))  # the base model's sample has none
