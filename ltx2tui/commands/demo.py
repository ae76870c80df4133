"""`ltx2tui demo`: the whole path on the embedded model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2tui.launches import demo_launch

if TYPE_CHECKING:
    import argparse


def run(arguments: argparse.Namespace) -> int:
    from ltx2tui.commands.train import begin

    return begin(demo_launch(arguments.out or arguments.root, steps=arguments.steps), headless=arguments.headless)
