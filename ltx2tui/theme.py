"""The two looks of the app. Colour only repeats what words and shapes say already."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="ltx2-dark",
    dark=True,
    primary="#6cb6d9",
    secondary="#a99bf0",
    accent="#f0b866",
    success="#8fcf8a",
    warning="#e9b872",
    error="#f07f7f",
    foreground="#d6dce6",
    background="#11151c",
    surface="#171c25",
    panel="#222a36",
    variables={"border-quiet": "#38424f", "text-quiet": "#8a95a5", "border-blurred": "#38424f"},
)

LIGHT = Theme(
    name="ltx2-light",
    dark=False,
    primary="#12637e",
    secondary="#5b49ad",
    accent="#9a5b00",
    success="#2c7338",
    warning="#8a5a00",
    error="#ad2b28",
    foreground="#21262f",
    background="#fbfaf7",
    surface="#f3f1eb",
    panel="#e6e3da",
    variables={"border-quiet": "#c3beb0", "text-quiet": "#676458", "border-blurred": "#c3beb0"},
)
