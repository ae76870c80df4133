"""The last line of every screen: its keys. One widget that draws text: Textual's footer makes a widget a key, anew at every change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text
from textual.widget import Widget

if TYPE_CHECKING:
    from textual.events import Click
    from textual.screen import Screen


class Keys(Widget):
    """Shows the bindings of its screen that are meant to be shown; those that do not apply now are dim. A click presses the key."""

    DEFAULT_CSS = """
    Keys { dock: bottom; height: 1; width: 1fr; padding: 0 1; background: $panel; color: $foreground; }
    """
    COMPONENT_CLASSES = {"keys--key", "keys--off"}  # noqa: RUF012
    ALLOW_SELECT = False

    def __init__(self) -> None:
        super().__init__()
        self._shown: tuple[tuple[str, str, str, bool], ...] = ()  # (key, its display, description, usable)

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._changed)
        self._changed(self.screen)

    def _changed(self, screen: Screen[object]) -> None:
        if not self.is_attached or screen is not self.screen:
            return
        found: dict[str, tuple[str, str, str, bool]] = {}
        for _, binding, enabled, _tooltip in screen.active_bindings.values():
            if binding.show:
                found.setdefault(binding.action, (binding.key, self.app.get_key_display(binding), binding.description, enabled))
        order = list(screen._bindings.key_to_bindings)  # as the screen lists them, whatever has the focus
        shown = tuple(sorted(found.values(), key=lambda one: order.index(one[0]) if one[0] in order else len(order)))
        if shown != self._shown:
            self._shown = shown
            self.refresh()

    def render(self) -> Text:
        key, off = (self.get_component_rich_style(f"keys--{name}", partial=True) for name in ("key", "off"))
        text = Text(no_wrap=True, overflow="ellipsis")
        for _, display, description, usable in self._shown:
            text.append(display, key if usable else off)
            text.append(f" {description}  ", "" if usable else off)
        return text

    def on_click(self, event: Click) -> None:
        x = 1  # the padding
        for key, display, description, usable in self._shown:
            x += len(display) + len(description) + 3
            if event.x < x:
                if usable:
                    self.app.simulate_key(key)
                return
