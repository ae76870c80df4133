"""The Dataset page by its keys: what is found, shown, filtered, edited and mended. Real clips, the real scan."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from textual.widgets import Input, TextArea

from ltx2core.errors import Stopped
from ltx2tui.clip_list import ALL, LEFT_OUT, WARNED, ClipFacts, ClipList
from ltx2tui.scanning import Found
from ltx2tui.screens.dataset import DatasetScreen
from ltx2tui.widgets.clip_table import ClipTable
from tests.app.scenes import CAPTION, Scene, page_scene, shown_text, until

if TYPE_CHECKING:
    from textual.pilot import Pilot

BOTH = pytest.mark.parametrize("size", [(80, 24), (160, 48)], ids=lambda size: f"{size[0]}x{size[1]}")


def scene() -> Scene:
    return page_scene("dataset", Path(), flat=True)


def page(pilot: Pilot[Any]) -> DatasetScreen:
    screen = pilot.app.screen
    assert isinstance(screen, DatasetScreen)
    return screen


async def choose(pilot: Pilot[Any], name: str) -> None:
    """Put the cursor on a clip, and wait for what is known of it."""
    screen = page(pilot)
    number = next(number for number in screen.clips.shown if screen.clips[number].name == name)
    screen.query_one(ClipTable).focus()
    screen.query_one(ClipTable).choose_number(number)
    await until(pilot, lambda: screen._row is not None and screen._row.clip.path.name == name)


def facts(number: int, **changes: Any) -> ClipFacts:
    plain = ClipFacts(number, f"{number:06d}.mp4", 256, 160, 24, 24.0, 1.0, 0, 12, "192x128@17", (), "")
    return plain._replace(**changes)


# -- the list


def test_a_list_counts_as_clips_come_and_change() -> None:
    clips = ClipList()
    clips.put([facts(0), facts(1, codes=("hard_cut",), level="warning"), facts(2, bucket="", codes=("too_short",), level="error")])
    clips.arrange()
    assert (len(clips), clips.usable, clips.seconds, clips.warned) == (3, 2, 2.0, 2)
    assert dict(clips.buckets) == {"192x128@17": 2}
    clips.put([facts(2, codes=("hard_cut",), level="warning")])
    assert (clips.usable, clips.codes["too_short"], clips.codes["hard_cut"]) == (3, 0, 2)


def test_a_list_is_sorted_by_any_column_and_back_by_path() -> None:
    clips = ClipList()
    clips.put([facts(0, frames=30), facts(1, frames=10), facts(2, frames=20, bucket="", level="error", codes=("too_short",))])
    clips.arrange()
    assert clips.shown == [0, 1, 2]
    clips.sort_by("frames")
    assert clips.shown == [1, 2, 0]
    clips.sort_by("frames")
    assert clips.shown == [0, 2, 1]
    clips.sort_by("notes")
    assert clips.shown == [2, 0, 1]
    clips.sort_by("clip")
    assert clips.shown == [0, 1, 2]


def test_a_list_is_filtered_by_problem() -> None:
    clips = ClipList()
    clips.put([facts(0), facts(1, codes=("hard_cut",), level="warning"), facts(2, bucket="", codes=("too_short",), level="error")])
    for wanted, shown in ((LEFT_OUT, [2]), (WARNED, [1, 2]), ("hard_cut", [1]), ("frozen", []), (ALL, [0, 1, 2])):
        clips.filter_by(wanted)
        assert clips.shown == shown


# -- the page


@BOTH
async def test_a_problem_is_found_by_filter_and_read_beside_its_clip(size: tuple[int, int]) -> None:
    one = scene()
    async with one.app.run_test(size=size) as pilot:
        await one.complete(pilot)
        await pilot.press("f")
        await until(pilot, lambda: "left out of training" in shown_text(one.app))
        await pilot.press("down", "enter")
        await until(pilot, lambda: isinstance(one.app.screen, DatasetScreen) and "left out (3 of 6)" in shown_text(one.app))
        await until(pilot, lambda: "kite-0.mp4" not in shown_text(one.app))  # the panel beside follows a moment later
        await choose(pilot, "notes.mp4")
        await until(pilot, lambda: "✕ notes.mp4 is a text" in shown_text(one.app))
        assert page(pilot)._row is not None
        assert page(pilot)._row.clip.problems[0].code == "not_a_video"
        await pilot.press("f")
        await pilot.press("up", "enter")
        await until(pilot, lambda: isinstance(one.app.screen, DatasetScreen) and "kite-0.mp4" in shown_text(one.app))


async def test_columns_are_sorted_by_key_and_by_click() -> None:
    one = scene()
    async with one.app.run_test(size=(160, 48)) as pilot:
        await one.complete(pilot)
        screen = page(pilot)
        await pilot.press("s")
        assert screen.clips.sort_key == "size"
        await pilot.press("r")
        assert screen.clips.reverse
        assert "size ▾" in shown_text(one.app)
        await pilot.click(ClipTable, offset=(3, 0))
        assert (screen.clips.sort_key, screen.clips.reverse) == ("clip", False)


@BOTH
async def test_a_caption_is_edited_in_place_and_its_clip_judged_anew(size: tuple[int, int]) -> None:
    one = scene()
    async with one.app.run_test(size=size) as pilot:
        await one.complete(pilot)
        await choose(pilot, "no-caption.mp4")
        assert page(pilot).clips.usable == 3
        await pilot.press("e")
        await until(pilot, lambda: "No caption yet." in shown_text(one.app))
        await pilot.press(*"a kite")
        await until(pilot, lambda: "of 128 tokens" in shown_text(one.app))  # nano's own tokenizer counts
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(one.app.screen, DatasetScreen) and one.app.screen.clips.usable == 4)
        assert Path("clips/no-caption.txt").read_text() == "a kite\n"
        assert "4 usable" in shown_text(one.app)


async def test_changes_to_a_caption_are_not_thrown_away_by_one_key() -> None:
    one = scene()
    async with one.app.run_test(size=(80, 24)) as pilot:
        await one.complete(pilot)
        Path("clips/kite-0.txt").write_bytes(b"\xff\xfe" + CAPTION.encode("utf-16-le") + "\r\n".encode("utf-16-le"))
        await choose(pilot, "kite-0.mp4")
        await pilot.press("e")
        await until(pilot, lambda: bool(one.app.screen.query(TextArea)))
        assert one.app.screen.query_one(TextArea).text == CAPTION
        await pilot.press(*" Birds.", "escape")
        await until(pilot, lambda: "esc again throws them away" in " ".join(shown_text(one.app).split()))
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(one.app.screen, DatasetScreen))
        assert Path("clips/kite-0.txt").read_bytes() == b"\xff\xfe" + f"{CAPTION} Birds.\r\n".encode("utf-16-le")
        await pilot.press("e")
        await until(pilot, lambda: bool(one.app.screen.query(TextArea)))
        await pilot.press("x", "escape", "escape")
        await until(pilot, lambda: isinstance(one.app.screen, DatasetScreen))
        assert "x" not in Path("clips/kite-0.txt").read_bytes().decode("utf-16")[-5:]


async def test_a_caption_with_line_breaks_that_the_editor_has_not_is_no_change_of_its_own() -> None:
    one = scene()
    async with one.app.run_test(size=(80, 24)) as pilot:
        await one.complete(pilot)
        data = "A kite.\u2028High\x0bup\r\n".encode()
        Path("clips/kite-0.txt").write_bytes(data)
        await choose(pilot, "kite-0.mp4")
        for key in ("escape", "ctrl+o"):  # neither asks, and neither writes
            await pilot.press("e")
            await until(pilot, lambda: bool(one.app.screen.query(TextArea)))
            await pilot.press(key)
            await until(pilot, lambda: isinstance(one.app.screen, DatasetScreen))
            assert Path("clips/kite-0.txt").read_bytes() == data


async def test_where_nothing_can_be_mended_no_question_is_asked() -> None:
    one = scene()
    async with one.app.run_test(size=(80, 24)) as pilot:
        await one.complete(pilot)
        await pilot.press("x")
        await until(pilot, lambda: bool(one.app._notifications))
        (said,) = [notification.message for notification in one.app._notifications]
        assert said.startswith("Nothing that can be mended was found. Nothing can be done about: static clip (4)")
        assert isinstance(one.app.screen, DatasetScreen)


@BOTH
async def test_all_clips_are_mended_into_a_folder_that_the_page_goes_on_with(size: tuple[int, int], make_clip, tmp_path: Path) -> None:
    from tests.shots import panning, then

    one = scene()
    make_clip("clips/cut.mp4", frames=50, picture=then((panning(1), 25), (panning(2), 25)))
    async with one.app.run_test(size=size) as pilot:
        await one.complete(pilot)
        await pilot.press("x")
        await until(pilot, lambda: "1 clip: hard cut, split there" in shown_text(one.app))
        await pilot.press("m")
        await until(pilot, lambda: "u goes on with clips-fixed" in shown_text(one.app), seconds=60)
        assert "cut.mp4: split at its cuts: 1.00 s" in " ".join(shown_text(one.app).split())
        await pilot.press("u")
        await until(pilot, lambda: isinstance(one.app.screen, DatasetScreen) and "in all." in shown_text(one.app), seconds=60)
        assert one.app.draft.folder == "clips-fixed"
        names = {page(pilot).clips[number].name for number in page(pilot).clips.shown}
        assert {"cut-part1.mp4", "cut-part2.mp4"} <= names
        assert "empty.mp4" not in names
    assert Path("clips/cut.mp4").is_file()


async def test_a_folder_is_chosen_by_walking() -> None:
    one = scene()
    Path("more/inner").mkdir(parents=True)
    async with one.app.run_test(size=(80, 24)) as pilot:
        await one.complete(pilot)
        page(pilot).query_one("#folder", Input).value = "more"
        await pilot.press("f3")
        await until(pilot, lambda: "inner" in shown_text(one.app))
        await pilot.press("down", "space")
        await until(pilot, lambda: isinstance(one.app.screen, DatasetScreen) and "holds no clips" in shown_text(one.app))
        assert page(pilot)._scanning == "more/inner"


@pytest.mark.parametrize(("size", "key"), [((160, 48), None), ((80, 24), "b")])
async def test_buckets_are_counted_in_bars_at_either_width(size: tuple[int, int], key: str | None) -> None:
    one = scene()
    async with one.app.run_test(size=size) as pilot:
        await one.complete(pilot)
        if key is not None:
            await pilot.press(key)
        await until(pilot, lambda: "█ 3" in shown_text(one.app))
        assert ("kite-1.mp4" in shown_text(one.app)) == (key is None)
        if key is not None:
            await pilot.press(key)
            await until(pilot, lambda: "kite-1.mp4" in shown_text(one.app))


async def test_a_second_look_at_a_folder_reads_no_clip_again(monkeypatch: pytest.MonkeyPatch) -> None:
    one = scene()
    async with one.app.run_test(size=(80, 24)) as pilot:
        await one.complete(pilot)
        from ltx2core.data import children

        monkeypatch.setattr(children, "_Child", None)  # a reader that is started now fails
        Path("clips/kite-0.txt").write_text("")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: "2 usable" in shown_text(one.app) and "in all." in shown_text(one.app))


async def test_a_scan_that_the_next_page_put_off_goes_on_when_one_comes_back() -> None:
    one = scene()
    async with one.app.run_test(size=(80, 24)) as pilot:
        await one.complete(pilot)
        screen = page(pilot)
        screen._finished = False  # as if it were long
        await pilot.press("ctrl+n")
        await until(pilot, lambda: "usually" in shown_text(one.app))
        assert screen._stop.is_set()
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(one.app.screen, DatasetScreen) and screen._finished and "in all." in shown_text(one.app))


async def test_what_a_given_up_scan_still_says_is_not_taken_for_the_new_one() -> None:
    one = scene()
    async with one.app.run_test(size=(80, 24)) as pilot:
        await one.complete(pilot)
        screen, given_up = page(pilot), threading.Event()
        screen.post_message(DatasetScreen.Scanned(Found([facts(77)]), given_up))
        screen.post_message(DatasetScreen.Scanned(Found([], done=True, trouble=Stopped("The scan was stopped.")), given_up))
        await pilot.pause()
        assert screen.clips.get(77) is None
        assert "3 usable" in shown_text(one.app)


@BOTH
async def test_a_hundred_thousand_clips_are_shown_at_once(size: tuple[int, int]) -> None:
    """What one key costs must not grow with the list. 60 ms is a third of what a person takes for at once."""
    one = scene()
    async with one.app.run_test(size=size) as pilot:
        await one.complete(pilot)
        screen = page(pilot)
        screen.clips.put(facts(number, frames=number % 300) for number in range(100, 100_100))
        screen.clips.arrange()
        table = screen.query_one(ClipTable)
        table.show(screen.clips)
        table.focus()
        await pilot.pause()
        begun = time.process_time()
        for place in range(100):
            table.action_jump(place * 997)
            for line in range(table.size.height):
                table.render_line(line)
        assert (time.process_time() - begun) / 100 < 0.06
        await pilot.press("end")
        await until(pilot, lambda: "100099.mp4" in shown_text(one.app))
        await pilot.press("home")
        await until(pilot, lambda: "empty.mp4" in shown_text(one.app))


async def test_the_cursor_stays_on_the_first_line_until_somebody_moves_it_and_then_on_its_clip() -> None:
    one = scene()
    async with one.app.run_test(size=(80, 24)) as pilot:
        await one.complete(pilot)
        table, clips = page(pilot).query_one(ClipTable), ClipList()
        for number in (5, 3):  # files are read in no order
            clips.put([facts(number)])
            clips.arrange()
            table.show(clips)
            assert table.chosen == number
        table.focus()
        await pilot.press("down")
        assert table.chosen == 5
        clips.put([facts(1)])
        clips.arrange()
        table.show(clips)
        assert table.chosen == 5


def test_the_cursor_and_levels_are_told_without_colour() -> None:
    from ltx2tui.widgets.clip_table import notes

    assert notes(facts(0, codes=("hard_cut", "odd_size"), level="warning")) == "! hard cut +1"
    assert notes(facts(0, bucket="", codes=("too_short",), level="error")) == "✕ too short"
    assert notes(facts(0)) == ""
