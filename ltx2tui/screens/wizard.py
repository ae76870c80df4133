"""What the pages of the wizard share: the draft they fill, and the keys that go on and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.binding import Binding, BindingType
from textual.screen import Screen

from ltx2core.errors import Ltx2Error
from ltx2tui.draft import Draft, draft_file, write_draft
from ltx2tui.screens.dialogs import Help

if TYPE_CHECKING:
    from ltx2tui.app import Ltx2App


class Step(Screen[None]):
    """A page of the wizard, without keys."""

    step: ClassVar[int]
    title_word: ClassVar[str]

    @property
    def ltx(self) -> Ltx2App:
        return cast("Ltx2App", self.app)

    @property
    def draft(self) -> Draft:
        return self.ltx.draft

    def keep(self, draft: Draft) -> None:
        """Take over a changed draft, and write it down."""
        self.ltx.draft = draft
        try:
            write_draft(draft_file(), draft)
        except Ltx2Error as error:
            self.notify(str(error), title="The answers cannot be kept", severity="warning", markup=False)

    def action_plan(self) -> None:
        """What the draft needs on a card, and what would be better."""
        from ltx2tui.screens.plan import PlanScreen

        self.app.push_screen(PlanScreen())

    def action_back(self) -> None:
        self.app.pop_screen()

    def action_help(self) -> None:
        self.app.push_screen(Help(cast("Screen[Any]", self), self.title_word))


class Page(Step):
    """A page that goes on to another. `ctrl+n` works while typing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+n", "next", "Next", tooltip="The next page", id="wizard.next", priority=True),
        Binding("escape", "back", "Back", tooltip="The page before; nothing is lost", id="wizard.back"),
        Binding("f1,question_mark", "help", "Help", tooltip="This list", id="wizard.help"),
    ]
