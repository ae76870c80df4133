"""What the terminal says of itself in the environment. It is never asked: a late answer would arrive as typed keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ltx2core.hardware.machine import Terminal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ltx2core.hardware.machine import Graphics

_KITTY_PROGRAMS = {"ghostty", "WezTerm", "kitty"}
_SIXEL_PROGRAMS = {"iTerm.app", "mintty", "contour"}
_SIXEL_TERMS = ("foot", "mlterm", "contour")


def terminal_of(environment: Mapping[str, str]) -> Terminal:
    """The terminal behind these variables."""
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "WT_SESSION" in environment and not program:
        program = "Windows Terminal"
    multiplexer = _multiplexer(environment, program)
    return Terminal(
        term=term,
        program="" if program in ("tmux", "screen") else program,
        multiplexer=multiplexer,
        ssh=any(environment.get(name) for name in ("SSH_CONNECTION", "SSH_TTY", "SSH_CLIENT")),
        truecolour=environment.get("COLORTERM", "") in ("truecolor", "24bit") or "direct" in term,
        graphics="half cells" if multiplexer else _graphics(environment, term, program),
    )


def _multiplexer(environment: Mapping[str, str], program: str) -> Literal["tmux", "screen", "zellij"] | None:
    if environment.get("TMUX") or program == "tmux":
        return "tmux"
    if environment.get("STY"):
        return "screen"
    return "zellij" if environment.get("ZELLIJ") else None


def _graphics(environment: Mapping[str, str], term: str, program: str) -> Graphics:
    """Within tmux and its kin pictures may go astray, so this is asked outside of them only."""
    if "KITTY_WINDOW_ID" in environment or term in ("xterm-kitty", "xterm-ghostty") or program in _KITTY_PROGRAMS:
        return "kitty"
    if program in _SIXEL_PROGRAMS or term.startswith(_SIXEL_TERMS):
        return "sixel"
    return "half cells"
