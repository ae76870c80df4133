"""Page 2: a folder of clips, what is in it, what is wrong with it, and what can be done about that."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.suggester import Suggester
from textual.widgets import Input, Static

from ltx2core.errors import Ltx2Error, Stopped
from ltx2tui import words
from ltx2tui.clip_list import ALL, SORT_KEYS, ClipList
from ltx2tui.screens.captions import Captions, CaptionsDialog
from ltx2tui.screens.wizard import Page
from ltx2tui.widgets.buckets import Buckets
from ltx2tui.widgets.clip_table import MARKS, NARROW, ClipTable
from ltx2tui.widgets.head import Head
from ltx2tui.widgets.keys import Keys
from ltx2tui.widgets.thumbnail import Thumbnail

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from ltx2core.data.clip import Problem
    from ltx2core.data.repair.folder import Outcome
    from ltx2core.data.survey import Row
    from ltx2tui.scanning import Found, Scan

WIDE = 120
_SETTLED = 0.12  # seconds that the cursor rests on a clip before it is read: keys may repeat 30 times a second


class FolderSuggester(Suggester):
    """Completes the path of a folder, one level at a time."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)

    async def get_suggestion(self, value: str) -> str | None:
        if not value:
            return None
        path = Path(value).expanduser()
        parent, start = (path, "") if value.endswith("/") else (path.parent, path.name)
        try:
            names = sorted(
                entry.name
                for entry in parent.iterdir()
                if entry.name.startswith(start) and not entry.name.startswith(".") and entry.is_dir()
            )
        except OSError:
            return None
        return None if not names else value[: len(value) - len(start)] + names[0] + "/"


class DatasetScreen(Page):
    """Scans in a worker; a line a clip, the chosen one with picture, caption and problems beside the table."""

    CSS_PATH = "dataset.tcss"
    step = 1
    title_word = "Dataset"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("e", "edit", "Edit", tooltip="Edit the caption of the chosen clip", id="dataset.edit"),
        Binding("f", "filter", "Filter", tooltip="Show only clips with one problem", id="dataset.filter"),
        Binding("s", "sort", "Sort", tooltip="Sort by the next column", id="dataset.sort"),
        Binding("x", "fix", "Fix all", tooltip="Write mended copies of the clips into a folder of their own", id="dataset.fix"),
        Binding("slash", "path", "Folder", tooltip="Type another folder", id="dataset.path"),
        Binding("S,r", "reverse", "Reverse", tooltip="Sort the other way round", show=False, id="dataset.reverse"),
        Binding(
            "b", "buckets", "Buckets", tooltip="Show the buckets instead of the clips, or the clips again", show=False, id="dataset.buckets"
        ),
        Binding("v", "play", "Play", tooltip="Play the chosen clips, or stop", show=False, id="dataset.play"),
        Binding("f3,o", "browse", "Browse", tooltip="Choose a folder by walking through them", show=False, id="dataset.browse"),
        Binding(
            "f2,c", "captions", "Captions", tooltip="Where captions come from, and words put before them", show=False, id="dataset.captions"
        ),
        Binding("ctrl+r", "rescan", "Scan again", tooltip="Look at the folder again", show=False, id="dataset.rescan"),
    ]

    @dataclass
    class Scanned(Message):
        """The scan tells something; `scan` is the one that does, which may have been given up for another."""

        found: Found
        scan: threading.Event

    @dataclass
    class Read(Message):
        """All about the chosen clip."""

        row: Row
        scan: threading.Event

    @dataclass
    class Mending(Message):
        """A clip was mended; `done` with the last, `trouble` when it ended early."""

        outcome: Outcome | None
        done: bool = False
        trouble: Ltx2Error | None = None

    def __init__(self) -> None:
        super().__init__()
        self.clips = ClipList()
        self._scanning = ""
        self._scan: Scan | None = None
        self._stop = threading.Event()  # of the present scan
        self._finished = True
        self._stop_mending: threading.Event | None = None
        self._outcomes: list[Outcome] = []
        self._row: Row | None = None
        self._arranged = 0.0
        self._progress = ""
        self._note = ""

    def compose(self) -> ComposeResult:
        yield Head("Dataset", step=self.step)
        with Horizontal(id="folder-row"):
            yield Static("Folder of clips", id="folder-label")
            entry = Input(self.draft.folder, placeholder="~/videos/my-subject", suggester=FolderSuggester(), compact=True, id="folder")
            entry.cursor_blink = False
            yield entry
        with Horizontal(id="captions-row"):
            yield Static("Captions", id="captions-label")
            yield Static("", id="captions-line", markup=False)
        yield Static("", id="scan-line", markup=False)
        with Horizontal(id="dataset-panels"):
            with Vertical(id="left"):
                with Vertical(id="clips", classes="panel") as clips:
                    clips.border_title = "Clips"
                    yield ClipTable(self.clips, id="clip-table")
                with Vertical(id="buckets", classes="panel") as buckets:
                    buckets.border_title = "Buckets"
                    yield Buckets(id="bucket-bars")
            with Vertical(id="clip", classes="panel") as clip:
                clip.border_title = "Clip"
                yield Thumbnail(nothing="The chosen clip appears here.", autoplay=False, id="clip-picture")
                yield VerticalScroll(Static("", id="clip-text", markup=False), id="clip-words", can_focus=False)
        yield Keys()

    def on_mount(self) -> None:
        self._settle = self.set_timer(_SETTLED, self._read_chosen, pause=True)
        self._say_captions()
        self.query_one("#folder", Input).focus()
        if self.draft.folder:
            self.scan_folder(self.draft.folder)
        else:
            self._say("Type a folder and press enter, or f3 to choose one: .mp4 .mov .mkv .webm, each with a caption.")

    def on_unmount(self) -> None:
        self._stop.set()
        if self._stop_mending is not None:
            self._stop_mending.set()

    def on_screen_resume(self) -> None:
        if self._scanning and self._stop.is_set() and not self._finished:
            self.scan_folder(self._scanning)  # it was put off for the pages that follow; what it knew is known

    def on_resize(self) -> None:
        self.set_class(self.app.size.width < WIDE, "-narrow")

    # -- scanning

    def scan_folder(self, folder: str) -> None:
        """Look at a folder from the start; what is known of its clips is shown at once."""
        from ltx2tui.scanning import Scan

        self._stop.set()
        stop = self._stop = threading.Event()
        self._finished = False
        self.clips = ClipList()
        self._scanning, self._row, self._progress, self._note = folder, None, "", ""
        self.query_one(ClipTable).show(self.clips)
        self._show_buckets()
        self._show_row(None)
        self._say("Reading …")
        self._scan = Scan(
            folder=Path(folder).expanduser(),
            draft=self.draft,
            results_file=self.ltx.results_file,
            stopped=stop.is_set,
            tell=lambda found: self._tell(self.Scanned(found, stop)),
        )
        self._run_scan(self._scan)

    def _tell(self, message: Message) -> None:
        """From a worker: post a message, which is nothing to a page that is gone."""
        self.post_message(message)

    @work(thread=True, group="scan", exit_on_error=False)
    def _run_scan(self, scan: Scan) -> None:
        scan.run()

    @on(Scanned)
    def _arrived(self, message: Scanned) -> None:
        if message.scan is not self._stop:
            return
        found = message.found
        if found.trouble is not None:
            self._finished = True
            self._say(str(found.trouble), wrong=True)
            return
        self._note = found.note or self._note
        self.clips.put(found.facts)
        self._finished = found.done
        if found.progress is not None:
            self._progress = _progress_words(found)
        self._show_list(now=found.done)
        self._say(self._summary(done=found.done))
        if found.done:
            self.keep(replace(self.draft, folder=self._scanning))
            self._read_chosen()
            if len(self.clips) and self.focused is self.query_one("#folder"):
                self.query_one(ClipTable).focus()

    def _show_list(self, *, now: bool) -> None:
        """Sort and filter what has come; of large lists once a second, since sorting takes the loop a tenth of one."""
        clock = self.ltx.monotonic()
        if now or len(self.clips) < 2000 or clock - self._arranged > 1.0:
            self.clips.arrange()
            self._arranged = clock
            self.query_one(ClipTable).show(self.clips)
            self._show_buckets()
            self._title()
        else:
            self.query_one(ClipTable).redraw()

    def _summary(self, *, done: bool) -> str:
        clips = self.clips
        said = f"{words.count(len(clips), 'clip')}, {clips.usable:,} usable"
        left_out = len(clips) - clips.usable
        if not done:
            return f"{said} …  {self._progress}"
        said += f", {words.duration(clips.seconds)} in all."
        if left_out:
            said += f" {left_out:,} left out: f shows why."
        if clips.warned > left_out:
            said += f" {clips.warned - left_out:,} with warnings."
        return f"{said} {self._note}".rstrip()

    # -- the table and the buckets

    def _title(self) -> None:
        clips = self.clips
        shown = "" if clips.filter == ALL else f" · {clips.filter.replace('_', ' ')} ({len(clips.shown):,} of {len(clips):,})"
        self.query_one("#clips").border_title = f"Clips{shown}"

    def _show_buckets(self) -> None:
        self.query_one(Buckets).show(self.clips.buckets, int(str(self.draft.value("train_batch_size"))))
        count = sum(number > 0 for number in self.clips.buckets.values())
        self.query_one("#buckets").border_title = f"Buckets ({count})" if count else "Buckets"

    @on(ClipTable.Chosen)
    def _choose(self, event: ClipTable.Chosen) -> None:
        self._settle.stop()
        self._settle = self.set_timer(_SETTLED, self._read_chosen)

    @on(ClipTable.SortWanted)
    def _sort_wanted(self, event: ClipTable.SortWanted) -> None:
        self.clips.sort_by(event.key)
        self.query_one(ClipTable).show(self.clips)

    # -- the chosen clip

    def _read_chosen(self) -> None:
        number = self.query_one(ClipTable).chosen
        if number is None or self._scan is None:
            self._show_row(None)
        else:
            self._read_row(self._scan, number, self._stop)

    @work(thread=True, exclusive=True, group="clip", exit_on_error=False)
    def _read_row(self, scan: Scan, number: int, stop: threading.Event) -> None:
        row = scan.row(number)
        if row is not None:
            self._tell(self.Read(row, stop))

    @on(Read)
    def _take_row(self, message: Read) -> None:
        if message.scan is self._stop and message.row.number == self.query_one(ClipTable).chosen:
            self._show_row(message.row)

    def _show_row(self, row: Row | None) -> None:
        self._row = row
        self.query_one("#clip").border_title = row.clip.path.name if row is not None else "Clip"
        self.query_one(Thumbnail).show(row.clip.path if row is not None and row.clip.width else None)
        self.query_one("#clip-text", Static).update(self._words(row) if row is not None else "")
        self.refresh_bindings()

    def _words(self, row: Row) -> Text:
        """Problems that matter, the caption, then remarks and facts."""
        text = Text()
        caption = "\n".join(row.captions) or (row.clip.caption or "").strip()
        for problem in row.clip.problems:
            if problem.level != "info":
                text.append(self._said(problem))
        text.append(f"{caption}\n" if caption else "")
        quiet = self.app.theme_variables["text-quiet"]
        if row.clip.width:
            text.append(f"{_facts(row)}\n", style=quiet)
        for problem in row.clip.problems:
            if problem.level == "info":
                text.append(self._said(problem))
        return text

    def _said(self, problem: Problem) -> Text:
        colour = self.app.theme_variables[{"error": "error", "warning": "warning", "info": "text-quiet"}[problem.level]]
        return Text(f"{MARKS[problem.level]} {problem.text} {problem.fix}".rstrip() + "\n", style=colour)

    def _say(self, text: str, *, wrong: bool = False) -> None:
        line = self.query_one("#scan-line", Static)
        line.update(text)
        line.set_class(wrong, "-wrong")

    def relook(self) -> None:
        """Colours are in the text: draw it again in the new look."""
        self.query_one(ClipTable).redraw()
        self._show_row(self._row)

    # -- mending

    @work
    async def action_fix(self) -> None:
        from ltx2core.data.repair.folder import mended_folder
        from ltx2tui.screens.dialogs import Choice, Question

        if self._stop_mending is not None:
            self._stop_mending.set()
            return
        if self._scan is None or not self._finished:
            self.notify("The scan goes first: wait until it has seen every clip.", severity="warning")
            return
        can, cannot = _mending_words(self.clips)
        if not can:
            self.notify(f"Nothing that can be mended was found. {cannot}".rstrip(), markup=False)
            return
        out = mended_folder(self._scan.folder)
        choice = Choice("m", f"Mend into {out.name}", "clips without a fault are linked there; nothing in this folder is changed", True)
        if await self.app.push_screen_wait(Question("Fix all", f"{can}\n\n{cannot}".rstrip(), [choice])):
            self._outcomes = []
            self._stop_mending = threading.Event()
            self._mend(self._scan, out, self._stop_mending)

    @work(thread=True, exclusive=True, group="mend", exit_on_error=False)
    def _mend(self, scan: Scan, out: Path, stop: threading.Event) -> None:
        try:
            for outcome in replace(scan, stopped=stop.is_set).mend(out):
                self._tell(self.Mending(outcome))
        except Ltx2Error as error:
            self._tell(self.Mending(None, done=True, trouble=error))
            return
        self._tell(self.Mending(None, done=True))

    @on(Mending)
    async def _mended(self, message: Mending) -> None:
        if message.outcome is not None:
            self._outcomes.append(message.outcome)
            self._say(
                f"Mending: {len(self._outcomes):,} of {words.count(len(self.clips), 'clip')}, {message.outcome.path.name}.  (x stops)"
            )
        if not message.done:
            return
        self._stop_mending = None
        self._say(self._summary(done=True))
        if isinstance(message.trouble, Stopped):
            self._say(f"Mending was stopped; {len(self._outcomes):,} clips are done, and x goes on from there.")
        elif message.trouble is not None:
            self.ltx.trouble("The clips cannot be mended", message.trouble)
        else:
            self._offer_mended()

    @work
    async def _offer_mended(self) -> None:
        from ltx2core.data.repair.folder import mended_folder
        from ltx2tui.screens.mended import MendedDialog

        folder = str(mended_folder(Path(self._scanning).expanduser()))
        shown = f"{self._scanning.rstrip('/')}-fixed"
        if await self.app.push_screen_wait(MendedDialog(self._outcomes, shown)):
            folder = shown if Path(shown).expanduser().absolute() == Path(folder) else folder
            self.query_one("#folder", Input).value = folder
            self.scan_folder(folder)

    # -- keys

    @on(Input.Submitted, "#folder")
    def _submitted(self, event: Input.Submitted) -> None:
        if event.value.strip():
            self.scan_folder(event.value.strip())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("play", "filter", "sort", "reverse", "fix", "buckets") and not len(self.clips):
            return None
        if action == "rescan" and not self._scanning:
            return None
        if action == "edit" and (self._row is None or not self._row_has_caption_file):
            return None
        return True

    @property
    def _row_has_caption_file(self) -> bool:
        return self._scan is not None and self._scan.rule is not None and self._scan.rule.captions.needs_text_file

    def action_rescan(self) -> None:
        if self._scanning:
            self.scan_folder(self._scanning)

    def action_play(self) -> None:
        picture = self.query_one(Thumbnail)
        picture.autoplay = not picture.playing
        picture.toggle()

    def action_sort(self) -> None:
        keys = NARROW if self.has_class("-narrow") else SORT_KEYS
        present = self.clips.sort_key
        self.clips.sort_by(keys[(keys.index(present) + 1) % len(keys)] if present in keys else keys[0])
        self.query_one(ClipTable).show(self.clips)

    def action_reverse(self) -> None:
        self.clips.sort_by(self.clips.sort_key)
        self.query_one(ClipTable).show(self.clips)

    def action_buckets(self) -> None:
        """Where there is no room for both, one takes the place of the other."""
        self.toggle_class("-buckets")
        if self.has_class("-narrow", "-buckets"):
            self.query_one(Thumbnail).rest()

    @work
    async def action_filter(self) -> None:
        from ltx2tui.screens.clip_filter import FilterDialog

        wanted = await self.app.push_screen_wait(FilterDialog(self.clips))
        if wanted is not None:
            self.clips.filter_by(wanted)
            self.query_one(ClipTable).show(self.clips)
            self._title()
            self.query_one(ClipTable).focus()

    @work
    async def action_edit(self) -> None:
        from ltx2core.data.caption_file import open_caption
        from ltx2tui.screens.caption_editor import CaptionEditor

        row, scan = self._row, self._scan
        if row is None or scan is None or scan.rule is None or scan.counter is None:
            return
        try:
            file = open_caption(row.clip.path)
        except Ltx2Error as error:
            self.ltx.trouble("The caption cannot be edited", error)
            return
        counter = scan.counter
        editor = CaptionEditor(
            file,
            clip=row.clip.path if row.clip.width else None,
            split_lines=scan.rule.captions.split_lines,
            count=counter.count,
            limit=counter.limit,
            exact=counter.exact,
        )
        if await self.app.push_screen_wait(editor):
            self._reread(scan, row.number, self._stop)

    @work(thread=True, group="clip", exit_on_error=False)
    def _reread(self, scan: Scan, number: int, stop: threading.Event) -> None:
        from ltx2tui.scanning import facts_again

        row = scan.row(number)
        if row is not None:
            self._tell(self.Scanned(facts_again(scan, row, done=self._finished), stop))
            self._tell(self.Read(row, stop))

    @work
    async def action_browse(self) -> None:
        from ltx2tui.screens.folder_picker import FolderPicker

        typed = Path(self.query_one("#folder", Input).value.strip() or ".").expanduser()
        start = next((folder for folder in (typed, *typed.absolute().parents) if folder.is_dir()), Path())
        found = await self.app.push_screen_wait(FolderPicker(start))
        if found is not None:
            here = Path.cwd()
            folder = str(found.relative_to(here) if found.is_relative_to(here) else found)
            self.query_one("#folder", Input).value = folder
            self.scan_folder(folder)

    @work
    async def action_captions(self) -> None:
        found = await self.app.push_screen_wait(CaptionsDialog(Captions.of(self.draft)))
        if found is None:
            return
        self.keep(found.put_in(self.draft))
        self._say_captions()
        if self._scanning:
            self.scan_folder(self._scanning)

    def _say_captions(self) -> None:
        self.query_one("#captions-line", Static).update(f"{Captions.of(self.draft).said}  (f2 changes it)")

    def action_path(self) -> None:
        self.query_one("#folder", Input).focus()

    def action_next(self) -> None:
        typed = self.query_one("#folder", Input).value.strip()
        if typed and typed != self._scanning:
            self.scan_folder(typed)
        elif not self.clips.usable:
            self.notify("There is no usable clip yet.", severity="warning")
        else:
            from ltx2tui.screens.settings import SettingsScreen

            self.keep(replace(self.draft, folder=self._scanning))  # a long scan may not have come to its end
            if not self._finished:
                self._stop.set()  # the cores are for what comes next; coming back goes on
            self.app.push_screen(SettingsScreen())


def _progress_words(found: Found) -> str:
    """`Pictures 12 of 340, about 2 min left.`"""
    progress = found.progress
    if progress is None or progress.done >= progress.total:
        return ""
    what = "headers" if found.depth == "header" else "pictures and sound"
    left = f", about {words.duration(progress.seconds_left)} left" if progress.seconds_left else ""
    return f"Looking at {what}: {progress.done:,} of {progress.total:,}{left}."


def _mending_words(clips: ClipList) -> tuple[str, str]:
    """What mending would do, problem by problem; and what it cannot do anything about. Either may be empty."""
    from ltx2core.data.clip import PROBLEM_CODES
    from ltx2core.data.repair.plan import MENDS

    counted = clips.counted()
    can = [f"{words.count(count, 'clip')}: {code.replace('_', ' ')}, {MENDS[code]}" for code, count in counted if code in MENDS]
    cannot = [
        f"{code.replace('_', ' ')} ({count:,})"
        for code, count in counted
        if code not in MENDS and not PROBLEM_CODES[code].startswith("info")
    ]
    return "\n".join(can), f"Nothing can be done about: {', '.join(cannot)}." if cannot else ""


def _facts(row: Row) -> str:
    """Size, rate, length, codec and sound in a line."""
    clip = row.clip
    sound = f"{clip.audio.codec} {clip.audio.sample_rate / 1000:g} kHz, {clip.audio.channels} ch" if clip.audio is not None else "no sound"
    tokens = f" · {'' if row.tokens_exact else '~'}{row.tokens} tokens" if row.tokens else ""
    return f"{clip.width}x{clip.height} · {clip.fps:.4g} fps · {clip.frames} frames · {clip.seconds:.2f} s · {clip.codec} · {sound}{tokens}"
