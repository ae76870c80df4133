"""Page 2: a folder of clips, what is in it, and what is wrong with it."""

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
from textual.widgets import DataTable, Input, Static

from ltx2core.errors import Ltx2Error
from ltx2tui import words
from ltx2tui.screens.captions import Captions, CaptionsDialog
from ltx2tui.screens.wizard import Page
from ltx2tui.widgets.head import Head
from ltx2tui.widgets.keys import Keys
from ltx2tui.widgets.thumbnail import Thumbnail

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from ltx2core.data.buckets import BucketRule
    from ltx2core.data.clip import Clip, Problem

COLUMNS = (
    ("clip", 1),
    ("size", 1),
    ("frames", 1),
    ("fps", 2),
    ("length", 2),
    ("sound", 2),
    ("bucket", 1),
    ("notes", 1),
)  # 2: wide screens only
MARKS = {"error": "✕", "warning": "!", "info": "·"}
WIDE = 120


@dataclass(frozen=True, slots=True)
class Row:
    """A clip with the bucket it would train in; the problems of both."""

    clip: Clip
    bucket: str
    captions: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def usable(self) -> bool:
        return bool(self.bucket)


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
    """Scans in a worker; a row a clip, the chosen one with picture, caption and problems beside the table."""

    CSS_PATH = "dataset.tcss"
    step = 1
    title_word = "Dataset"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r", "rescan", "Scan again", tooltip="Read the folder again", id="dataset.rescan"),
        Binding("f2,c", "captions", "Captions", tooltip="Where captions come from, and words put before them", id="dataset.captions"),
        Binding("v", "play", "Play", tooltip="Play the chosen clip, or stop it", id="dataset.play"),
        Binding("slash", "path", "Folder", tooltip="Type another folder", id="dataset.path"),
    ]

    @dataclass
    class Scanned(Message):
        """More of a folder was read; `done` with its last clip, `trouble` when it cannot be."""

        folder: str
        rows: list[Row]
        scan: threading.Event  # of the scan that found it, which may have been given up for another
        done: bool = False
        trouble: Ltx2Error | None = None

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self._scanning = ""
        self._closed_scan = threading.Event()

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
            with Vertical(id="clips", classes="panel") as clips:
                clips.border_title = "Clips"
                yield DataTable(id="clip-table", cursor_type="row")
            with Vertical(id="clip", classes="panel") as clip:
                clip.border_title = "Clip"
                yield Thumbnail(nothing="The chosen clip appears here.", autoplay=False, id="clip-picture")
                yield VerticalScroll(Static("", id="clip-text", markup=False), id="clip-words", can_focus=False)
        yield Keys()

    def on_mount(self) -> None:
        self._columns()
        self._say_captions()
        self.query_one("#folder", Input).focus()
        if self.draft.folder:
            self.scan_folder(self.draft.folder)
        else:
            self._say("Type a folder and press enter: .mp4 .mov .mkv .webm, each with a caption.")

    def on_unmount(self) -> None:
        self._closed_scan.set()

    def on_resize(self) -> None:
        self.set_class(self.app.size.width < WIDE, "-narrow")
        self._columns()
        self._fill(self.rows)

    # -- scanning

    def scan_folder(self, folder: str) -> None:
        """Read a folder from the start."""
        self._closed_scan.set()
        self._closed_scan = threading.Event()
        self.rows = []
        self._scanning = folder
        self.query_one(DataTable).clear()
        self.query_one(Thumbnail).show(None)
        self.query_one("#clip-text", Static).update("")
        self._say("Reading …")
        self._scan(folder, self._closed_scan)

    @work(thread=True, exclusive=True, group="scan", exit_on_error=False)
    def _scan(self, folder: str, stop: threading.Event) -> None:
        from ltx2core.data.scan import scan_folder

        place = self._placer()
        batch: list[Row] = []
        last = self.ltx.monotonic()

        def found(clip: Clip) -> None:
            nonlocal batch, last
            batch.append(place(clip))
            if (now := self.ltx.monotonic()) - last > 0.25:
                self.post_message(self.Scanned(folder, batch, stop))
                batch, last = [], now

        try:
            scan_folder(Path(folder).expanduser(), on_clip=found, should_stop=stop.is_set, captions=place.rule.captions)
        except Ltx2Error as error:
            self.post_message(self.Scanned(folder, [], stop, done=True, trouble=error))
            return
        self.post_message(self.Scanned(folder, batch, stop, done=True))

    def _placer(self) -> Placer:
        from ltx2core.data.dataset import bucket_rule

        return Placer(bucket_rule(self.draft.dataset(), frame_rate=float(str(self.draft.value("frame_rate")))))

    @on(Scanned)
    def _arrived(self, message: Scanned) -> None:
        if message.scan is not self._closed_scan:
            return
        if message.trouble is not None:
            self._say(str(message.trouble), wrong=True)
            return
        self.rows.extend(message.rows)
        self._fill(message.rows)
        usable = sum(row.usable for row in self.rows)
        said = f"{words.count(len(self.rows), 'clip')}, {usable} usable"
        left_out = len(self.rows) - usable
        if message.done:
            seconds = sum(row.clip.seconds for row in self.rows if row.usable)
            self._say(f"{said}, {words.duration(seconds)} in all." + (f" {left_out} left out: choose one to see why." if left_out else ""))
            self.keep(replace(self.draft, folder=message.folder))
            if self.rows and self.focused is self.query_one("#folder"):
                self.query_one(DataTable).focus()
        else:
            self._say(f"{said} …")

    # -- the table

    def _columns(self) -> None:
        table = self.query_one(DataTable)
        names = [name for name, need in COLUMNS if need == 1 or self.app.size.width >= WIDE]
        if [str(column.label) for column in table.ordered_columns] != names:
            table.clear(columns=True)
            for name in names:
                table.add_column(name, key=name)

    def _fill(self, rows: list[Row]) -> None:
        table = self.query_one(DataTable)
        names = [str(column.label) for column in table.ordered_columns]
        if rows is self.rows:
            table.clear()
        for row in rows:
            cells = _cells(row, Path(self._scanning).expanduser())
            style = "" if row.usable else self.app.theme_variables["text-quiet"]
            grave = {"bucket": "" if row.usable else self.app.theme_variables["error"], "notes": self.app.theme_variables["warning"]}
            table.add_row(*(Text(cells[name], style=grave.get(name, style) or style) for name in names))

    @on(DataTable.RowHighlighted)
    def _choose(self, event: DataTable.RowHighlighted) -> None:
        self._show_clip(event.cursor_row)

    def _show_clip(self, index: int) -> None:
        if not 0 <= index < len(self.rows):
            return
        row = self.rows[index]
        clip = row.clip
        self.query_one("#clip").border_title = clip.path.name
        self.query_one(Thumbnail).show(clip.path if clip.width else None)
        text = Text()
        caption = "\n".join(row.captions) or (clip.caption or "").strip()
        grave = [problem for problem in row.problems if problem.level != "info"]
        for problem in grave:
            text.append(self._said(problem))
        text.append(f"{caption}\n" if caption else "")
        for problem in row.problems:
            if problem.level == "info":
                text.append(self._said(problem))
        self.query_one("#clip-text", Static).update(text)

    def _said(self, problem: Problem) -> Text:
        colour = self.app.theme_variables[{"error": "error", "warning": "warning", "info": "text-quiet"}[problem.level]]
        return Text(f"{MARKS[problem.level]} {problem.text} {problem.fix}".rstrip() + "\n", style=colour)

    def _say(self, text: str, *, wrong: bool = False) -> None:
        line = self.query_one("#scan-line", Static)
        line.update(text)
        line.set_class(wrong, "-wrong")

    def relook(self) -> None:
        """Colours are in the text: draw it again in the new look."""
        table = self.query_one(DataTable)
        row = table.cursor_row
        self._fill(self.rows)
        table.move_cursor(row=row)
        self._show_clip(row)

    # -- keys

    @on(Input.Submitted, "#folder")
    def _submitted(self, event: Input.Submitted) -> None:
        if event.value.strip():
            self.scan_folder(event.value.strip())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if (action == "play" and not self.rows) or (action == "rescan" and not self._scanning):
            return None
        return True

    def action_rescan(self) -> None:
        if self._scanning:
            self.scan_folder(self._scanning)

    def action_play(self) -> None:
        self.query_one(Thumbnail).toggle()

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
        elif not any(row.usable for row in self.rows):
            self.notify("There is no usable clip yet.", severity="warning")
        else:
            from ltx2tui.screens.settings import SettingsScreen

            self.keep(replace(self.draft, folder=self._scanning))  # a long scan may not have come to its end
            self.app.push_screen(SettingsScreen())


class Placer:
    """Finds each clip's bucket and captions, by the rule of the draft."""

    def __init__(self, rule: BucketRule) -> None:
        self.rule = rule

    def __call__(self, clip: Clip) -> Row:
        from ltx2core.data.buckets import place
        from ltx2core.data.clip import Sample

        placed = place(clip, self.rule)
        if isinstance(placed, Sample):
            return Row(clip, placed.bucket.label, placed.captions, placed.clip.problems)
        return Row(clip, "", (), placed.problems)


def _cells(row: Row, folder: Path) -> dict[str, str]:
    clip = row.clip
    read = clip.width > 0
    name = str(clip.path.relative_to(folder)) if clip.path.is_relative_to(folder) else clip.path.name
    worst = next((problem for level in ("error", "warning") for problem in row.problems if problem.level == level), None)
    return {
        "clip": name if len(name) <= 18 else f"…{name[-17:]}",
        "size": f"{clip.width}x{clip.height}" if read else "–",
        "frames": str(clip.frames) if read else "–",
        "fps": f"{clip.fps:.4g}" if read else "–",
        "length": f"{clip.seconds:.1f} s" if read else "–",
        "sound": f"{clip.audio.sample_rate / 1000:g} kHz" if clip.audio else "none" if read else "–",
        "bucket": row.bucket or (f"✕ {worst.code.replace('_', ' ')}" if worst else "✕ left out"),
        "notes": f"{MARKS[worst.level]} {worst.code.replace('_', ' ')}" if worst and row.bucket else "",
    }
