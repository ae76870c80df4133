"""Lists of prompts that samples are made of: the built-in one, and a user's JSON file. Loads no torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ltx2core.config.reading import read_settings
from ltx2core.config.wording import line, shown
from ltx2core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

MOST_PROMPTS = 200  # a sample of each takes a minute or more, every time

# What LTX-2 is asked for in practice: people, speech, animals, places, cameras, styles, and what is hard (hands, water, text).
BUILT_IN: dict[str, str] = {
    "portrait": "A woman with grey hair looks up from a book by a window, smiles and turns a page. Soft daylight, a quiet room, paper "
    "rustling.",
    "speech": 'A man in a blue shirt stands in a workshop and says "we start at eight tomorrow". The camera holds still. A clear voice, a '
    "machine humming behind him.",
    "dog": "A brown dog runs through shallow water on a beach towards the camera, spray flying, waves and barking in the background.",
    "street": "A rainy street at night, neon signs mirrored in puddles. People with umbrellas walk past and a tram drives through. Rain "
    "and tram bells.",
    "drone": "A drone flies forward over a pine forest towards a snowy mountain at sunrise, mist between the trees, wind.",
    "hands": "Close view of two hands kneading dough on a floured wooden table, pressing and folding it. Soft thuds.",
    "dance": "A dancer in a red dress spins across an empty stage in one spotlight, the camera circling around her. Slow piano music.",
    "fire": "A campfire burns in the dark, sparks rise and a log falls into the embers. Crackling fire, crickets.",
    "drawing": "An animated fox in flat colours jumps from stone to stone across a river, leaves falling. Cheerful music.",
    "still": "A bowl of oranges on a white table in morning light. Nothing moves but the curtain behind it. A clock ticking.",
}


def read_library(path: Path, *, file: str, key: str, problems: list[str], notes: list[str]) -> dict[str, str]:
    """The prompts of a user's file by their names: {"name": "prompt", ...}, or a list of prompts. What is wrong is added to problems."""
    try:
        found = read_settings(path, notes=notes)
    except ConfigError as error:
        problems += error.problems
        return {}
    if isinstance(found, list):
        found = {f"prompt-{number}": prompt for number, prompt in enumerate(found, start=1)}
    if not isinstance(found, dict) or not found:
        problems.append(line(file, key, str(path), "it holds prompts by name", 'write {"a name": "a prompt"} into it'))
        return {}
    for name, prompt in found.items():
        if not isinstance(prompt, str) or not prompt.strip():
            problems.append(f"{path.name} {name} = {shown(prompt)}: a prompt is text; write what the video shows.")
    if len(found) > MOST_PROMPTS:
        problems.append(f"{path.name} holds {len(found)} prompts, of each of which a video would be made; keep {MOST_PROMPTS} at most.")
    return {str(name): prompt.strip() for name, prompt in found.items() if isinstance(prompt, str)}


def file_name(text: str) -> str:
    """The text as part of a file's name: lower case letters, digits and hyphens, 40 of them at most; `sample` where none is left."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-") or "sample"
