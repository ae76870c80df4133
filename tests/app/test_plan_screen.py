"""The Plan page: levers re-plan at once, recommendations are taken, used and written; no GPU is needed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ltx2core.config.sources import read_source
from ltx2core.errors import ConfigError
from ltx2tui.draft import Draft, draft_file, read_draft
from ltx2tui.plan_sheet import (
    Advice,
    Known,
    advice_for,
    advised,
    changes_between,
    levers_of,
    loaded_of,
    named_cards,
    predicted,
    pulled,
    start_of,
)
from ltx2tui.screens.card import described
from tests.app.scenes import page_scene, shown_text, until

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from ltx2tui.app import Ltx2App
    from ltx2tui.plan_sheet import Lever

LTX2 = Draft(folder="clips", set_values={"pretrained_model_name_or_path": "Lightricks/LTX-2"})
HERE = Path()


def lever(draft: Draft, name: str, card: str = "RTX 4090") -> Lever:
    return next(one for one in levers_of(draft, described(card, "64")) if one.name == name)


def moved(draft: Draft, name: str, word: str) -> Draft:
    one = lever(draft, name)
    return pulled(draft, one, [option.word for option in one.options].index(word))


@pytest.mark.parametrize("name", ["precision", "resolution", "frames", "batch", "audio", "rank", "recompute", "streamed"])
def test_every_place_of_a_lever_changes_what_is_predicted(name: str) -> None:
    card = described("L40S", "512")
    one = lever(LTX2, name, "L40S")
    plans = {}
    for at, option in enumerate(one.options):
        found = predicted(pulled(LTX2, one, at), card, HERE, Known(clips=20))
        plans[option.word] = (found.vram_bytes, round(found.step_seconds, 4), found.fits, None if found.plan is None else found.plan.layout)
    assert len(set(plans.values())) == len(one.options), plans


@pytest.mark.parametrize("name", ["precision", "resolution", "frames", "batch", "audio", "rank", "recompute", "streamed"])
def test_every_place_of_a_lever_is_a_config_that_loads_and_is_where_the_lever_then_stands(name: str) -> None:
    one = lever(LTX2, name)
    for at, option in enumerate(one.options):
        draft = pulled(LTX2, one, at)
        loaded_of(draft, HERE)
        assert lever(draft, name).word == option.word


def test_samples_follow_clips_that_they_were_as_large_and_long_as_and_no_others() -> None:
    usual = moved(moved(start_of(Draft()), "resolution", "704"), "frames", "297")
    assert (usual.value("validation_resolution"), usual.value("validation_num_video_frames")) == ("704x1056", 121)
    own = LTX2.having("validation_resolution", "256x256").having("validation_num_video_frames", 9)
    kept = moved(moved(own, "resolution", "704"), "frames", "297")
    assert (kept.value("validation_resolution"), kept.value("validation_num_video_frames")) == ("256x256", 9)


def test_a_value_between_the_places_of_a_lever_is_a_place_of_its_own() -> None:
    assert lever(LTX2.having("lora_rank", 24), "rank").word == "24"
    assert lever(LTX2.having("musubi_blocks_to_swap", 13), "streamed").word == "13"


def test_places_that_a_card_has_no_products_for_are_not_offered() -> None:
    assert "fp8 both ways" in {option.word for option in lever(LTX2, "precision", "RTX 4090").options}
    assert "fp8 both ways" not in {option.word for option in lever(LTX2, "precision", "RTX 3090").options}


def test_a_draft_of_nano_is_planned_as_the_usual_run_on_ltx_2_with_what_the_user_set() -> None:
    start = start_of(Draft(folder="films", set_values={"lora_rank": 8}))
    assert not start.is_nano
    assert (start.value("lora_rank"), start.value("dataset.video.num_frames"), start.folder) == (8, 49, "films")


def test_what_is_recommended_fits_once_it_is_in_the_draft() -> None:
    card, draft = described("RTX 4070", "64"), LTX2.having("dataset.video.num_frames", 121)
    advice = advice_for(draft, card, HERE, Known(clips=20), misfit=None)
    assert [one.goal for one in advice.recommendations] == ["fastest", "best_quality", "longest"]
    for one in advice.recommendations:
        taken = advised(draft, one)
        found = predicted(taken, card, HERE, Known(clips=20))
        assert found.fits
        assert found.step_seconds == pytest.approx(one.prediction.step_seconds)
        assert changes_between(draft, taken)


def test_a_recommendation_without_sound_leaves_sound_out_of_the_draft() -> None:
    first = advice_for(LTX2, described("4090", "64"), HERE, Known(), misfit=None).recommendations[0]
    found = advised(LTX2, dataclasses.replace(first, of_datasets={"audio": None}))
    assert lever(found, "audio").word == "without"
    assert "audio" not in found.config()[1][0]


@pytest.mark.parametrize(
    ("card", "gib"), [("4090", 24.0), ("RTX 3080 10GB", 10.0), ("24", 24.0), ("11.5", 11.5), ("48 GiB", 48.0), ("h100", 79.6)]
)
def test_a_card_is_named_by_its_name_or_its_memory(card: str, gib: float) -> None:
    assert described(card, "32").memory_bytes == int(gib * 2**30)


@pytest.mark.parametrize(("card", "ram"), [("", "64"), ("RTX 9999", "64"), ("4090", "much"), ("2", "64"), ("4090", "-3")])
def test_nonsense_for_a_machine_is_refused_in_a_line(card: str, ram: str) -> None:
    with pytest.raises(ConfigError):
        described(card, ram)


def test_cards_to_choose_from_begin_with_the_one_that_is_here() -> None:
    here = described("L4", "32")
    assert named_cards(here)[0] is here
    assert len({card.card for card in named_cards(None)}) == len(named_cards(None))


async def opened(pilot: Pilot[str], app: Ltx2App) -> None:
    await until(pilot, lambda: "3 Longest clips" in shown_text(app))


async def test_a_lever_replans_at_once_and_recommendations_follow_when_it_rests() -> None:
    scene = page_scene("plan", Path())
    async with scene.app.run_test(size=(160, 48)) as pilot:
        await scene.complete(pilot)
        assert "768x512, 49 frames" in shown_text(scene.app)
        await pilot.press("down", "down", "down", "down", "right")
        assert "768x512, 65 frames" in shown_text(scene.app)
        await opened(pilot, scene.app)
        await pilot.press("up", "up", "left")  # there is nothing left of bf16
        assert "768x512, 65 frames" in shown_text(scene.app)


async def test_keys_that_come_faster_than_plans_are_all_counted() -> None:
    from ltx2tui.widgets.levers import Levers

    scene = page_scene("plan", Path())
    async with scene.app.run_test(size=(80, 24)) as pilot:
        await scene.complete(pilot)
        levers = scene.app.screen.query_one(Levers)
        for _ in range(4):
            levers.post_message(Levers.Moved("resolution", 1))
        levers.post_message(Levers.Moved("frames", -99))
        await until(pilot, lambda: "1152x768, 1 frames" in shown_text(scene.app))


async def test_a_recommendation_is_taken_taken_back_and_used_for_the_new_run() -> None:
    scene = page_scene("plan", Path())
    app = scene.app
    async with app.run_test(size=(80, 24)) as pilot:
        await scene.complete(pilot)
        await pilot.press("1")
        assert "◂ fp8 both ways" in shown_text(app)
        await pilot.press("0")
        assert "◂ fp8 both ways" not in shown_text(app)
        await pilot.press("1", "u")
        await until(pilot, lambda: "Plan" not in shown_text(app).splitlines()[0])
    draft = read_draft(draft_file())
    assert draft.value("base_model_precision") == "fp8-torchao"
    assert draft.value("pretrained_model_name_or_path") == "Lightricks/LTX-2"
    assert (draft.folder, draft.value("lora_rank")) == ("clips", 8)  # what was there stays


async def test_escape_leaves_the_draft_as_it_was() -> None:
    scene = page_scene("plan", Path())
    before = scene.app.draft
    async with scene.app.run_test(size=(80, 24)) as pilot:
        await scene.complete(pilot)
        await pilot.press("1", "escape")
    assert scene.app.draft == before


async def test_a_plan_is_written_as_a_config_that_reads_back_and_no_file_is_replaced() -> None:
    scene = page_scene("plan", Path())
    app = scene.app
    async with app.run_test(size=(80, 24)) as pilot:
        await scene.complete(pilot)
        await pilot.press("3", "e", "enter")
        await until(pilot, lambda: Path("config.json").is_file())
        await pilot.press("e", "enter")
        await until(pilot, lambda: "exists already" in shown_text(app))
        await pilot.press("escape")
    written = json.loads(Path("config.json").read_text())
    assert written["data_backend_config"] == "datasets.json"
    loaded = read_source("config.json", root=Path()).loaded
    assert loaded.config.base_model_precision == "fp8-torchao"
    assert loaded.datasets.videos[0].video.num_frames == 497


async def test_another_card_is_planned_for_by_its_name_and_a_wrong_one_is_said_in_the_question() -> None:
    scene = page_scene("plan", Path())
    app = scene.app
    async with app.run_test(size=(80, 24)) as pilot:
        await scene.complete(pilot)
        await pilot.press("c", *"rtx99", "enter")
        await until(pilot, lambda: "no such card is known" in shown_text(app))
        await pilot.press(*["backspace"] * 5, *"h200", "enter")
        await until(pilot, lambda: "H200, 140" in shown_text(app).splitlines()[0])


async def test_what_cannot_be_planned_is_said_and_nothing_is_offered_for_it() -> None:
    scene = page_scene("plan", Path())
    app = scene.app
    app.draft = LTX2.having("mixed_precision", "no")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "only bf16 is predicted" in shown_text(app))
        await pilot.press("u", "e", "1")
        assert "only bf16 is predicted" in shown_text(app)
        assert not Path("config.json").exists()


async def test_a_search_that_breaks_is_said_and_levers_go_on() -> None:
    from ltx2tui.screens.plan import PlanScreen

    def broken(*_: object, **__: object) -> Advice:
        raise ValueError("a bug")

    app = page_scene("welcome", Path()).app
    async with app.run_test(size=(160, 48)) as pilot:
        await until(pilot, lambda: "New run" in shown_text(app))
        app.push_screen(PlanScreen(advise=broken))
        await until(pilot, lambda: "None was found: a bug" in shown_text(app))
        await pilot.press("down", "down", "down", "right")
        await until(pilot, lambda: "864x576" in shown_text(app))


async def test_the_welcome_and_the_wizard_lead_to_the_plan_and_back() -> None:
    from ltx2tui.screens.hardware import HardwareScreen
    from ltx2tui.screens.plan import PlanScreen
    from ltx2tui.screens.review import ReviewScreen
    from ltx2tui.screens.settings import SettingsScreen

    app = page_scene("welcome", Path()).app
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "New run" in shown_text(app))
        for below, key in ((None, "p"), (HardwareScreen, "p"), (SettingsScreen, "ctrl+l"), (ReviewScreen, "p")):
            if below is not None:
                app.push_screen(below())
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, PlanScreen))
            await pilot.press("escape")
            await until(pilot, lambda: not isinstance(app.screen, PlanScreen))


async def test_the_settings_and_the_review_show_a_plan_that_was_taken_over() -> None:
    from ltx2tui.screens.plan import PlanScreen

    scene = page_scene("review", Path(), flat=True)
    app = scene.app
    async with app.run_test(size=(160, 48)) as pilot:
        await scene.complete(pilot)
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, PlanScreen) and "3 Longest clips" in shown_text(app))
        await pilot.press("1", "u")
        await until(pilot, lambda: "Review" in shown_text(app))
        await until(pilot, lambda: "fp8-torchao" in shown_text(app) or app.screen.query_one("#review").max_scroll_y > 0)
        app.screen.query_one("#review").scroll_end(animate=False)
        await until(pilot, lambda: "fp8-torchao" in shown_text(app))
