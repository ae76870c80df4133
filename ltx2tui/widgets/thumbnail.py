"""A clip as a small moving picture. Decodes in a worker; plays a few rounds when it is new, and when asked; still otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.segment import Segment
from textual import on, work
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

if TYPE_CHECKING:
    from pathlib import Path

    from textual.timer import Timer

    from ltx2tui.widgets.frames import Pictures

FRAMES_PER_SECOND = 8.0
READING = "Reading …"
ROUNDS = 3  # that a new clip plays by itself: a line over SSH is slow, and a still picture costs nothing


class Thumbnail(Widget):
    """Shows the clip of `show(path)`, fitted and centred; `nothing` is said until then."""

    DEFAULT_CSS = """
    Thumbnail { width: 1fr; height: 1fr; }
    """
    COMPONENT_CLASSES = {"thumbnail--text"}  # noqa: RUF012

    playing: reactive[bool] = reactive(False)

    @dataclass
    class Decoded(Message):
        """Pictures of a clip for a size of this widget in cells, or why there are none."""

        path: Path
        size: tuple[int, int]
        pictures: Pictures | None
        trouble: str = ""

    def __init__(self, *, nothing: str, autoplay: bool = True, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.nothing = nothing
        self.autoplay = autoplay
        self.path: Path | None = None
        self._text = nothing
        self._pictures: Pictures | None = None
        self._decoded_size: tuple[int, int] | None = None
        self._frame = 0
        self._rounds_left = 0
        self._timer: Timer | None = None

    def show(self, path: Path | None) -> None:
        """Show another clip, or none."""
        if path == self.path:
            return
        self.path = path
        self._pictures, self._decoded_size, self._frame = None, None, 0
        self._text = self.nothing if path is None else READING
        self.playing = False
        self._rounds_left = ROUNDS if self.autoplay else 0
        self.refresh()
        self._decode()

    def rest(self) -> None:
        """Stop, on the first frame."""
        self.playing, self._frame = False, 0
        self.refresh()

    def toggle(self) -> None:
        """Play, round after round, or stop."""
        self._rounds_left = 0 if self.playing else 1_000_000
        self.playing = not self.playing

    @property
    def settled(self) -> bool:
        """Whether it shows a clip in its present size, or says why it cannot, and does not move."""
        return (self.path is None or not self._has_room or self._decoded_size == tuple(self.size)) and not self.playing

    @property
    def _has_room(self) -> bool:
        return self.size.width >= 4 and self.size.height >= 2

    def on_mount(self) -> None:
        self._timer = self.set_interval(1 / FRAMES_PER_SECOND, self._next_frame, pause=True)

    def on_resize(self) -> None:
        self._decode()

    def _decode(self) -> None:
        if self.path is not None and self._has_room:
            self._read(self.path, self.size.width, self.size.height)

    @work(thread=True, exclusive=True, group="thumbnail", exit_on_error=False)
    def _read(self, path: Path, width: int, height: int) -> None:
        from ltx2tui.widgets.frames import read_pictures

        size = (width, height)
        try:
            self.post_message(self.Decoded(path, size, read_pictures(path, width=width, height=height)))
        except (OSError, ValueError, IndexError) as error:  # av's own errors are OSErrors and ValueErrors
            self.post_message(self.Decoded(path, size, None, f"No picture: {type(error).__name__}"))

    @on(Decoded)
    def _take(self, message: Decoded) -> None:
        message.stop()
        # A thread cannot be stopped: what it decodes for a size that is gone comes all the same, perhaps after the right one.
        if message.path != self.path or message.size != tuple(self.size):
            return
        self._pictures, self._text, self._decoded_size = message.pictures, message.trouble, message.size
        self._frame = 0
        if self._pictures is not None and len(self._pictures.frames) > 1 and self._rounds_left:
            self.playing = True
        self.refresh()

    def watch_playing(self, playing: bool) -> None:
        if self._timer is not None:
            (self._timer.resume if playing else self._timer.pause)()

    def _next_frame(self) -> None:
        if self._pictures is None or not self.screen.is_active or not self.is_on_screen:
            return
        self._frame += 1
        if self._frame >= len(self._pictures.frames):
            self._frame = 0
            self._rounds_left -= 1
            if self._rounds_left <= 0:
                self.playing = False
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width, height = self.size
        if self._pictures is None:
            return self._words(y, width, height)
        top = (height - self._pictures.height) // 2
        if not 0 <= y - top < self._pictures.height:
            return Strip.blank(width, self.rich_style)
        left = max(0, (width - self._pictures.width) // 2)
        picture = self._pictures.frames[min(self._frame, len(self._pictures.frames) - 1)][y - top]
        return Strip([Segment(" " * left, self.rich_style), *picture]).adjust_cell_length(width, self.rich_style)

    def _words(self, y: int, width: int, height: int) -> Strip:
        import textwrap

        lines = textwrap.wrap(self._text, max(8, width - 4))
        index = y - (height - len(lines)) // 2
        if not 0 <= index < len(lines):
            return Strip.blank(width, self.rich_style)
        return Strip([Segment(lines[index].center(width), self.get_component_rich_style("thumbnail--text"))]).adjust_cell_length(width)
