"""What the draft needs on a card, as levers move: memory and time by phase, and three recommendations. Nothing is loaded, no GPU needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.console import Group
from rich.text import Text
from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, VerticalScroll
from textual.message import Message
from textual.widgets import Static
from textual.worker import Worker, WorkerState

from ltx2core.errors import Ltx2Error
from ltx2tui.draft import Draft
from ltx2tui.plan_sheet import (
    RAM_GIB,
    USUAL_CARD,
    USUAL_RAM_GIB,
    Advice,
    Advise,
    Known,
    Predict,
    advice_for,
    advised,
    changes_between,
    levers_of,
    loaded_of,
    machine_levers,
    named_cards,
    predicted,
    pulled,
    start_of,
    with_ram,
)
from ltx2tui.plan_view import Look, bars, heading, machine, recommendation, sentences, verdict
from ltx2tui.screens.wizard import Step
from ltx2tui.widgets.head import Head
from ltx2tui.widgets.keys import Keys
from ltx2tui.widgets.levers import Levers

if TYPE_CHECKING:
    from rich.console import RenderableType
    from textual.app import ComposeResult
    from textual.timer import Timer

    from ltx2core.planning.hardware import Hardware
    from ltx2core.planning.predict import Prediction
    from ltx2core.planning.recommend import Recommendation
    from ltx2tui.plan_sheet import Lever

WIDE = 120
NOTHING = "Nothing that could be changed here fits."
SETTLED = 0.3  # seconds without a move, after which recommendations are looked for


class PlanScreen(Step):
    """Levers on the left, what they come to on the right, what would be better below."""

    CSS_PATH = "plan.tcss"
    step = 2
    title_word = "Plan"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "1", "take(0)", "Take", tooltip="Set the levers as recommended for the fastest steps", key_display="1-3", id="plan.fastest"
        ),
        Binding("2", "take(1)", "Best quality", tooltip="Set them for the best quality that fits", show=False, id="plan.quality"),
        Binding("3", "take(2)", "Longest clips", tooltip="Set them for the longest clips", show=False, id="plan.longest"),
        Binding("0", "own", "Yours again", tooltip="Take the recommendation back", id="plan.own"),
        Binding("u", "use", "Use", tooltip="Take this plan over into the new run's settings", id="plan.use"),
        Binding("e", "export", "Export", tooltip="Write this plan as config.json, with its dataset list", id="plan.export"),
        Binding("c", "card", "Card", tooltip="Plan for another card, by name or memory", id="plan.card"),
        Binding("pagedown", "scroll(1)", "More below", tooltip="Scroll the recommendations", show=False, id="plan.down"),
        Binding("pageup", "scroll(-1)", "More above", show=False, id="plan.up"),
        Binding("escape", "back", "Back", tooltip="The page before; nothing is changed", id="wizard.back"),
        Binding("f1,question_mark", "help", "Help", tooltip="This list", id="wizard.help"),
    ]

    @dataclass
    class Looked(Message):
        """What this machine is and what there is to train on."""

        here: Hardware | None
        known: Known

    @dataclass
    class Advised(Message):
        """Recommendations for the plan of a number; later ones may have been asked for since."""

        number: int
        advice: Advice

    def __init__(self, *, predict: Predict = predicted, advise: Advise = advice_for) -> None:
        super().__init__()
        self._predicted, self._advice_for = predict, advise
        self._here: Hardware | None = None
        self._cards: tuple[Hardware, ...] = ()
        self._at = 0  # which of them
        self._known = Known()
        self._asked = self._shown = Draft()  # as the user has set it; with a recommendation
        self._prediction: Prediction | None = None
        self._trouble = ""
        self._broken = ""  # why no recommendation was found
        self._advice: Advice | None = None
        self._taken: int | None = None  # of the recommendations
        self._number = 0  # of the plan that recommendations are for
        self._waiting: Timer | None = None  # until levers rest
        self._searching = False
        self._will_draw = False
        self._advised_on = Draft()  # what recommendations were found for
        self._drawn_advice: object = None
        self._stale = False  # whether levers have moved since recommendations were found

    @property
    def _hardware(self) -> Hardware | None:
        return self._cards[self._at] if self._cards else None

    def compose(self) -> ComposeResult:
        yield Head("Plan")
        with Horizontal(id="plan-top"):
            with VerticalScroll(id="plan-levers", classes="panel", can_focus=False) as levers:
                levers.border_title = "Levers"
                yield Levers(id="levers")
            with VerticalScroll(id="plan-needs", classes="panel", can_focus=False) as needs:
                needs.border_title = "What it needs"
                yield Static("Looking at the machine …", id="plan-bars")
        yield Static("", id="plan-said", markup=False)
        with VerticalScroll(id="plan-advice", classes="panel", can_focus=True) as advice:
            advice.border_title = "Recommended"
            yield Static("", id="plan-overview")
            with Container(id="plan-columns"):
                for number in range(3):
                    yield Static("", id=f"plan-{number}", classes="plan-column")
        yield Keys()

    def on_mount(self) -> None:
        self._asked = self._shown = start_of(self.draft)
        self.query_one(Levers).focus()
        self.look()

    def on_resize(self) -> None:
        self.set_class(self.app.size.width >= WIDE, "-wide")
        self.call_after_refresh(self._draw)

    @work(thread=True, exclusive=True, group="machine", exit_on_error=False)
    def look(self) -> None:
        from ltx2core.planning.before_run import hardware_here
        from ltx2core.planning.document import count_clips, version_in_header

        here = hardware_here(self.ltx.probe(measure_disk=False), self.ltx.root)
        try:
            loaded = loaded_of(start_of(self.draft), Path.cwd())
            known = Known(clips=count_clips(loaded), version=version_in_header(loaded))
        except Ltx2Error:  # said by the plan
            known = Known()
        self.post_message(self.Looked(here, known))

    @on(Looked)
    def _looked(self, message: Looked) -> None:
        self._here, self._known = message.here, message.known
        self._cards = named_cards(message.here)
        if message.here is None:
            self._at = next(index for index, card in enumerate(self._cards) if card.card.endswith(USUAL_CARD))
        self._plan()

    @on(Levers.Moved)
    def _moved(self, message: Levers.Moved) -> None:
        lever = next((lever for lever in self._levers() if lever.name == message.name), None)
        if lever is None:
            return
        at = max(0, min(len(lever.options) - 1, lever.at + message.by))
        if at == lever.at:
            return
        if lever.name == "card":
            self._at = at
        elif lever.name == "ram":  # the same for each of them, so that cards are compared in one machine
            self._cards = tuple(card if card is self._here else with_ram(card, RAM_GIB[at]) for card in self._cards)
        else:
            self._asked = self._shown = pulled(self._shown, lever, at)
        self._plan()

    def _levers(self) -> tuple[Lever, ...]:
        """As they stand now."""
        if self._hardware is None:
            return ()
        return (*machine_levers(self._cards, self._at, here=self._here), *levers_of(self._shown, self._hardware))

    def _plan(self) -> None:
        """Predict what is shown, at once, and have recommendations looked for when the levers rest."""
        self._taken, self._stale = None, True
        self._number += 1
        self._predict()
        if self._waiting is not None:
            self._waiting.stop()
        self._waiting = self.set_timer(SETTLED, self._rested)

    def _rested(self) -> None:
        self._waiting = None
        self._advise()

    def _predict(self) -> None:
        assert self._hardware is not None
        self._trouble = ""
        try:
            self._prediction = self._predicted(self._shown, self._hardware, Path.cwd(), self._known)
        except Ltx2Error as error:
            self._prediction, self._trouble = None, f"{error.text} {error.fix}".strip()
        if not self._will_draw:  # once for all moves that wait
            self._will_draw = True
            self.call_later(self._draw_plan)

    def _draw_plan(self) -> None:
        self._will_draw = False
        self._draw()
        self.refresh_bindings()

    def _advise(self) -> None:
        """Have recommendations looked for, one search at a time: a second one beside it would make levers wait for both."""
        if self._searching or self._hardware is None or self._prediction is None:
            return
        self._searching = True
        misfit = None if self._prediction.fits else self._prediction
        self._search(self._number, self._asked, self._hardware, misfit)

    @work(thread=True, group="advice", exit_on_error=False)
    def _search(self, number: int, draft: Draft, hardware: Hardware, misfit: Prediction | None) -> None:
        try:
            advice = self._advice_for(draft, hardware, Path.cwd(), self._known, misfit=None if misfit is None else misfit.job)
        except Ltx2Error:  # what cannot be planned was said already
            advice = Advice(recommendations=())
        self.post_message(self.Advised(number, advice))

    @on(Advised)
    def _advised(self, message: Advised) -> None:
        self._searching = False
        if message.number != self._number:  # levers have moved since
            if self._waiting is None:  # and rest
                self._advise()
            return
        self._advice, self._advised_on, self._stale = message.advice, self._asked, False
        self._draw()
        self.refresh_bindings()

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """A search that broke is said in the place of what it should have found; levers go on planning."""
        if event.state != WorkerState.ERROR:
            return
        if event.worker.group == "machine":
            self.notify(f"The machine could not be looked at: {event.worker.error}", severity="error", markup=False, timeout=12)
            self.post_message(self.Looked(None, Known()))
            return
        self._searching, self._stale, self._advice = False, False, None
        self._broken = f"None was found: {event.worker.error}"
        self._draw()

    def _draw(self) -> None:
        if self._hardware is None:
            return
        look = self._look()
        here = self._hardware is self._here
        self.query_one(Head).say(right=machine(self._hardware, here=here))
        self.query_one(Levers).show(self._levers())
        found, box = self._prediction, self.query_one("#plan-bars", Static)
        said = self.query_one("#plan-said", Static)
        if found is None:
            box.update("")
        else:
            width = self.query_one("#plan-needs").content_size.width - 1
            why: list[RenderableType] = [Text(""), sentences(found.because, look)] if self.has_class("-wide") and found.because else []
            box.update(Group(verdict(found, look), bars(found, self._hardware, look, width=width), *why))
        wrong = self._trouble or (found.misfit if found is not None and not found.fits else "") or ""
        said.update(f"✕ {wrong} {self._remedy()}".strip() if wrong else "")
        said.display = bool(wrong)
        self._draw_advice(look)

    def _draw_advice(self, look: Look) -> None:
        advice = () if self._advice is None else self._advice.recommendations
        box = self.query_one("#plan-advice", VerticalScroll)
        box.border_title = "Recommended before this change · looking again …" if self._stale and advice else "Recommended"
        said = "" if self._trouble else "Looking for better plans …" if self._stale else self._broken if self._advice is None else NOTHING
        told = tuple(changes_between(self._advised_on, advised(self._advised_on, one)) for one in advice)
        shown = (advice, told, self._taken, said if not advice else "", look)
        if shown == self._drawn_advice:  # drawing it takes longer than planning
            return
        self._drawn_advice = shown
        lines = [heading(one, number=number + 1, taken=number == self._taken, look=look) for number, one in enumerate(advice)]
        self.query_one("#plan-overview", Static).update(Text("\n").join(lines))
        for number in range(3):
            column = self.query_one(f"#plan-{number}", Static)
            if number < len(advice):
                column.update(recommendation(advice[number], told[number], look, number=number + 1, taken=number == self._taken))
            else:
                column.update(said if number == 0 else "")

    def _remedy(self) -> str:
        return self._advice.remedy if self._advice is not None and self._taken is None and not self._stale else ""

    def _look(self) -> Look:
        theme = self.app.theme_variables
        return Look(good=theme["success"], bad=theme["error"], bar=theme["primary"], quiet=theme["text-quiet"])

    def relook(self) -> None:
        """Colours are in the text: draw it again in the new look."""
        self._draw()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "take":
            return self._recommended(parameters[0]) is not None or None
        if action == "own":
            return self._taken is not None or None
        if action in ("use", "export"):
            return self._prediction is not None or None
        return True

    def _recommended(self, number: object) -> Recommendation | None:
        advice = () if self._advice is None or self._stale else self._advice.recommendations
        return advice[number] if isinstance(number, int) and number < len(advice) else None

    def action_take(self, number: int) -> None:
        one = self._recommended(number)
        if one is not None:
            self._shown, self._taken = advised(self._asked, one), number
            self._predict()

    def action_own(self) -> None:
        self._shown, self._taken = self._asked, None
        self._predict()

    def action_use(self) -> None:
        self.keep(self._shown)
        self.app.pop_screen()
        self.app.notify("The new run's settings are those of this plan.", markup=False)

    def action_export(self) -> None:
        from ltx2tui.screens.export import ExportDialog

        self.app.push_screen(ExportDialog(loaded_of(self._shown, Path.cwd())))

    def action_card(self) -> None:
        from ltx2tui.screens.card import CardDialog

        self.app.push_screen(CardDialog(USUAL_RAM_GIB), self._named)

    def _named(self, hardware: Hardware | None) -> None:
        if hardware is None:
            return
        others = tuple(card for card in self._cards if card.card != hardware.card or card is self._here)
        self._cards, self._at = (*others, hardware), len(others)
        self._plan()

    def action_scroll(self, pages: int) -> None:
        box = self.query_one("#plan-advice", VerticalScroll)
        box.scroll_relative(y=pages * max(1, box.size.height - 1), animate=False)
