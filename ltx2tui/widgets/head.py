"""The first line of every screen, and the line of progress: the frame that all screens share."""

from __future__ import annotations

from rich.text import Text
from textual.widget import Widget

STEPS = ("Hardware", "Dataset", "Settings", "Review")


class Head(Widget):
    """One line: the app, where one is, and on the right what it is about. A wizard page also shows the way through the wizard."""

    DEFAULT_CSS = """
    Head { height: 1; width: 1fr; background: $panel; color: $foreground; padding: 0 1; }
    """
    COMPONENT_CLASSES = {"head--app", "head--here", "head--quiet"}  # noqa: RUF012

    def __init__(self, title: str, *, step: int | None = None, right: str = "") -> None:
        super().__init__()
        self._title = title
        self._step = step
        self._right = right

    def say(self, *, title: str | None = None, right: str | None = None) -> None:
        """Change what it says."""
        said = self._title if title is None else title, self._right if right is None else right
        if said != (self._title, self._right):
            self._title, self._right = said
            self.refresh()

    def render(self) -> Text:
        app, here, quiet = (self.get_component_rich_style(f"head--{name}", partial=True) for name in ("app", "here", "quiet"))
        text = Text(no_wrap=True)
        text.append("LTX-2 ", app)
        text.append("LoRA trainer  ", quiet)
        if self._step is None:
            text.append(self._title, here)
        else:
            for index, name in enumerate(STEPS):
                text.append(" › " if index else "", quiet)
                text.append(f"{index + 1} {name}", here if index == self._step else quiet)
        room = self.size.width - text.cell_len - len(self._right)
        if self._right and room >= 2:
            text.append(" " * room)
            text.append(self._right, quiet)
        return text


class Bar(Widget):
    """A thin bar of `done` out of `total`; empty when the total is unknown."""

    DEFAULT_CSS = """
    Bar { height: 1; width: 1fr; }
    """
    COMPONENT_CLASSES = {"bar--done", "bar--left"}  # noqa: RUF012

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._shown = (0, 0)

    def show(self, done: int, total: int) -> None:
        if (done, total) != self._shown:
            self._shown = (done, total)
            self.refresh()

    def render(self) -> Text:
        done, total = self._shown
        width = max(1, self.size.width - 5)
        part = min(1.0, done / total) if total else 0.0
        full = round(part * width)
        text = Text(no_wrap=True)
        text.append("━" * full, self.get_component_rich_style("bar--done", partial=True))
        text.append("─" * (width - full), self.get_component_rich_style("bar--left", partial=True))
        return text.append(f"{int(part * 100):>4}%" if total else "     ", self.get_component_rich_style("bar--done", partial=True))
