"""A folder chosen by walking through folders, for who does not want to type its path."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import DirectoryTree, Label

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from textual.app import ComposeResult


class Folders(DirectoryTree):
    """Folders only, hidden ones left out."""

    ICON_NODE = "▸ "
    ICON_NODE_EXPANDED = "▾ "

    def filter_paths(self, paths: Iterable[Path]) -> Iterable[Path]:
        return [path for path in paths if not path.name.startswith(".") and path.is_dir()]


class FolderPicker(ModalScreen["Path | None"]):
    """Dismisses with the chosen folder, None for escape. Enter opens and closes, space takes."""

    CSS_PATH = "folder_picker.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "take", "Take", tooltip="Take the marked folder", id="folders.take", priority=True),
        Binding("left", "up", "Up", tooltip="Close it, or go to the folder above", id="folders.up", priority=True),
        Binding("right", "into", "Open", tooltip="Open the marked folder", id="folders.into", priority=True),
        Binding("escape", "leave", "Cancel", id="folders.leave"),
    ]

    def __init__(self, start: Path) -> None:
        super().__init__()
        self._start = start

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "Folder of clips"
            yield Label(str(self._start), id="folders-top", markup=False)
            yield Folders(self._start, id="folders")
            yield Label("↑ ↓ → opens · ← closes, or goes up · space takes · esc cancels", classes="quiet")

    def on_mount(self) -> None:
        tree = self.query_one(Folders)
        tree.guide_depth = 2
        tree.focus()

    @on(DirectoryTree.DirectorySelected)
    def _selected(self, event: DirectoryTree.DirectorySelected) -> None:
        event.stop()

    def action_take(self) -> None:
        node = self.query_one(Folders).cursor_node
        self.dismiss(node.data.path if node is not None and node.data is not None else self._start)

    def action_into(self) -> None:
        if (node := self.query_one(Folders).cursor_node) is not None:
            node.expand()

    def action_up(self) -> None:
        tree = self.query_one(Folders)
        node = tree.cursor_node
        if node is not None and node.is_expanded and node is not tree.root:
            node.collapse()
        elif node is not None and node.parent is not None:
            tree.move_cursor(node.parent)
        else:
            self._start = self._start.absolute().parent
            self.query_one("#folders-top", Label).update(str(self._start))
            tree.path = self._start

    def action_leave(self) -> None:
        self.dismiss(None)
