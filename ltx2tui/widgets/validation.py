"""The validation videos of a run: the newest, or the one gone back to, and where there is room the base model's to compare with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Container, Vertical
from textual.widgets import Static

from ltx2tui.widgets.thumbnail import Thumbnail

if TYPE_CHECKING:
    from pathlib import Path

    from textual.app import ComposeResult

    from ltx2core.runs.events import Notice, SampleReady

ROOM = 50  # columns from which two pictures fit, beside each other or one over the other
ASPECT = 16 / 9


class Validation(Vertical):
    """Panel 2 of the Run screen. Follows the newest sample until `scrub` goes back to an earlier one."""

    DEFAULT_CSS = """
    Validation > #pictures { height: 1fr; layout: vertical; }
    Validation.-beside > #pictures { layout: horizontal; }
    Validation .picture { height: 1fr; width: 1fr; }
    Validation .picture-word { height: 1; text-align: center; display: none; }
    Validation #base { display: none; }
    Validation.-compare #base { display: block; }
    Validation.-compare .picture-word { display: block; }
    Validation > #faults { height: auto; max-height: 4; color: $text-warning; display: none; }
    Validation.-faulty > #faults { display: block; }
    Validation > #prompt { height: 1; text-align: center; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, classes="panel")
        self.border_title = "2 Validation"
        self._samples: tuple[SampleReady, ...] = ()
        self._faults: tuple[Notice, ...] = ()
        self._folder: Path | None = None
        self._chosen: int | None = None  # index of the one gone back to; None follows the newest

    def compose(self) -> ComposeResult:
        with Container(id="pictures"):
            with Vertical(id="base", classes="picture"):
                yield Static("step 0 · the base model", classes="picture-word quiet")
                yield Thumbnail(nothing="", autoplay=False, id="base-picture")
            with Vertical(id="now", classes="picture"):
                yield Static("", id="now-word", classes="picture-word quiet", markup=False)
                yield Thumbnail(nothing="The first validation video appears here.", id="picture")
        yield Static(id="prompt", classes="quiet", markup=False)
        yield Static(id="faults", markup=False)

    def show(self, samples: tuple[SampleReady, ...], folder: Path, *, faults: tuple[Notice, ...] = ()) -> None:
        """Show these; paths are relative to the folder. faults: what is wrong with samples, which they name."""
        self._samples, self._folder, self._faults = samples, folder, faults
        picture = self.query_one("#picture", Thumbnail)
        if not samples:
            picture.show(None)
            self.query_one("#prompt", Static).update("", layout=False)
            self.border_title, self.border_subtitle = "2 Validation", ""
            self.set_class(False, "-faulty")
            return
        index = len(samples) - 1 if self._chosen is None else min(self._chosen, len(samples) - 1)
        sample = samples[index]
        base = next((one for one in samples if one.step == 0 and one.name == sample.name), samples[0])
        picture.show(folder / sample.path)
        self.query_one("#prompt", Static).update(sample.prompt, layout=False)
        self.query_one("#now-word", Static).update(f"step {sample.step:,}", layout=False)
        self.border_title = f"2 Validation · step {sample.step:,}" + (f" · {sample.name}" if sample.name else "")
        self.border_subtitle = f"‹ {index + 1} of {len(samples)} ›" if len(samples) > 1 else ""
        wrong = [fault for fault in faults if fault.sample == sample.path]
        self.set_class(bool(wrong), "-faulty")
        if wrong:
            more = f" (and {len(wrong) - 1} more: see the log)" if len(wrong) > 1 else ""
            self.query_one("#faults", Static).update(f"! {wrong[0].text} {wrong[0].fix}{more}", layout=False)
        compare = self.size.width >= ROOM and base.step == 0 and sample.step > 0
        self.set_class(compare, "-compare")
        if compare:
            self.query_one("#base-picture", Thumbnail).show(folder / base.path)

    def on_resize(self) -> None:
        width, height = self.size
        beside, stacked = min(width / 2, height * 2 * ASPECT), min(width, height * ASPECT)  # how wide a picture gets
        self.set_class(beside > stacked, "-beside")
        if self._folder is not None:
            self.show(self._samples, self._folder, faults=self._faults)

    def scrub(self, by: int) -> None:
        """Go to an earlier or later sample; at the newest, follow again."""
        last = len(self._samples) - 1
        wanted = max(0, min(last, (last if self._chosen is None else self._chosen) + by))
        self._chosen = None if wanted == last else wanted
        if self._folder is not None:
            self.show(self._samples, self._folder, faults=self._faults)

    def toggle(self) -> None:
        """Play, or stop; both pictures where there are two."""
        picture, base = self.query_one("#picture", Thumbnail), self.query_one("#base-picture", Thumbnail)
        picture.toggle()
        if self.has_class("-compare") and base.playing != picture.playing:
            base.toggle()
