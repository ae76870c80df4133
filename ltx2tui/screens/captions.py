"""The question where captions come from, asked over the Dataset page. Without it a folder with no .txt files would be a dead end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, OptionList, Static
from textual.widgets.option_list import Option

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from ltx2tui.draft import Draft

STRATEGIES = (
    ("textfile", "A text file beside each clip", "clip.mp4 has its caption in clip.txt, one caption a line"),
    ("filename", "The clip's name", "a_red_kite.mp4 is captioned \u201ca red kite\u201d"),
    ("instanceprompt", "The words below, for every clip", "one caption for all: a trigger word and what the clips share"),
    ("csv", "A table in the folder", "captions.csv: a row for each clip, with its name and its caption"),
    ("jsonl", "JSON lines in the folder", "metadata.jsonl, as datasets on the hub have it"),
    ("parquet", "A Parquet table in the folder", "metadata.parquet; needs pip install 'ltx2tui\\[parquet]'"),
)


FROM = {
    "textfile": ".txt files",
    "filename": "the clips' names",
    "csv": "captions.csv",
    "jsonl": "metadata.jsonl",
    "parquet": "metadata.parquet",
}


@dataclass(frozen=True, slots=True)
class Captions:
    """Where captions come from, and the words that go before them, or stand alone."""

    strategy: str
    words: str

    @classmethod
    def of(cls, draft: Draft) -> Captions:
        given = draft.value("dataset.instance_prompt")
        return cls(str(draft.value("dataset.caption_strategy")), str(given or ""))

    def put_in(self, draft: Draft) -> Draft:
        """The draft with these. Words given with captions of the clips' own go before each of them."""
        draft = draft.having("dataset.caption_strategy", self.strategy).having("dataset.instance_prompt", self.words or None)
        return draft.having("dataset.prepend_instance_prompt", bool(self.words) and self.strategy != "instanceprompt")

    @property
    def said(self) -> str:
        """For one line of the page."""
        if self.strategy == "instanceprompt":
            return f"\u201c{self.words}\u201d for every clip"
        own = f"from {FROM[self.strategy]}"
        return f"{own}, after \u201c{self.words}\u201d" if self.words else own


class CaptionsDialog(ModalScreen[Captions | None]):
    """Asks for both; dismisses with None for escape."""

    CSS_PATH = "captions.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss_none", "Cancel", id="captions.cancel")]

    def __init__(self, captions: Captions) -> None:
        super().__init__()
        self._captions = captions

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "Captions"
            yield OptionList(*(Option(f"[b]{text}[/b]\n   [dim]{more}[/dim]") for _, text, more in STRATEGIES))
            yield Label("Words before each caption, such as a trigger word; empty for none", classes="quiet", id="words-label")
            entry = Input(self._captions.words, compact=True, id="words")
            entry.cursor_blink = False
            yield entry
            yield Static("", id="words-problem", markup=False)
            yield Label("\u2191 \u2193 choose \u00b7 tab to the words \u00b7 enter takes both \u00b7 esc cancels", classes="quiet")

    def on_mount(self) -> None:
        names = [name for name, _, _ in STRATEGIES]
        self.query_one(OptionList).highlighted = names.index(self._captions.strategy)
        self.query_one(OptionList).focus()

    @property
    def _strategy(self) -> str:
        return STRATEGIES[self.query_one(OptionList).highlighted or 0][0]

    @on(OptionList.OptionHighlighted)
    def _highlighted(self) -> None:
        alone = self._strategy == "instanceprompt"
        said = "The caption of every clip" if alone else "Words before each caption, such as a trigger word; empty for none"
        self.query_one("#words-label", Label).update(said)
        self.query_one("#words-problem", Static).update("")

    @on(OptionList.OptionSelected)
    @on(Input.Submitted)
    def _take(self) -> None:
        entry = self.query_one(Input)
        found = Captions(self._strategy, " ".join(entry.value.split()))
        if found.strategy == "instanceprompt" and not found.words:
            self.query_one("#words-problem", Static).update("Type the caption first.")
            entry.focus()
            return
        self.dismiss(found)

    def action_dismiss_none(self) -> None:
        self.dismiss(None)
