"""How many clips train in each bucket, as bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text
from textual.widget import Widget

if TYPE_CHECKING:
    from collections.abc import Mapping


class Buckets(Widget):
    """A bar for each bucket, the fullest first; those that do not fit are counted in the last line."""

    DEFAULT_CSS = """
    Buckets { height: 1fr; width: 1fr; }
    """
    COMPONENT_CLASSES = {"buckets--bar", "buckets--quiet", "buckets--warning"}  # noqa: RUF012

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._counts: tuple[tuple[str, int], ...] = ()
        self._batch_size = 1

    def show(self, counts: Mapping[str, int], batch_size: int) -> None:
        """Show these numbers of clips by bucket. Buckets that cannot fill a batch are marked."""
        found = tuple(sorted(((label, count) for label, count in counts.items() if count > 0), key=lambda one: (-one[1], one[0])))
        if (found, batch_size) != (self._counts, self._batch_size):
            self._counts, self._batch_size = found, batch_size
            self.refresh()

    def render(self) -> Text:
        bar, quiet, warning = (self.get_component_rich_style(f"buckets--{name}", partial=True) for name in ("bar", "quiet", "warning"))
        text = Text(no_wrap=True)
        if not self._counts:
            return text.append("No clip has a bucket yet.", quiet)
        room = max(self.size.height, 1)
        shown = self._counts if len(self._counts) <= room else self._counts[: room - 1]
        label_width = max(len(label) for label, _ in shown)
        count_width = max(len(f"{count:,}") for _, count in shown)
        width = max(self.size.width - label_width - count_width - 4, 1)
        most = shown[0][1]
        for label, count in shown:
            small = count < self._batch_size
            length = max(round(width * count / most), 1)
            text.append(f"{label:<{label_width}}  ").append("█" * length, warning if small else bar)
            text.append(f" {count:,}{' !' if small else ''}\n", warning if small else quiet)
        if len(shown) < len(self._counts):
            rest = self._counts[len(shown) :]
            text.append(f"and {len(rest)} more buckets with {sum(count for _, count in rest):,} clips", quiet)
        return text
