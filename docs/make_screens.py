"""Draws a picture of each screen into docs/screens/, from the same scenes that the snapshot tests compare.

python docs/make_screens.py [NAME ...]
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tests.app.scenes import Scene, page_scene, run_scene  # noqa: E402

PAGES = ("welcome_runs", "hardware", "hardware_gpu", "dataset", "settings", "review", "plan")
RUNS = ("training", "paused", "stalled", "caching", "finished", "nan", "failed")
SIZES = ((80, 24), (160, 48))
VIEWS = {"held-out": ("n",), "levels": ("n", "n")}  # of the training's loss
FONT = "DejaVu Sans Mono"


def main(names: list[str]) -> None:
    """Draw the scenes of these names, or all, at both sizes; `training` in the light look too."""
    screens = HERE / "screens"
    screens.mkdir(exist_ok=True)
    os.environ["TZ"] = "UTC"
    time.tzset()
    for name in names or [*PAGES, *RUNS]:
        for size in SIZES:
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
                os.environ["XDG_CONFIG_HOME"] = folder
                scene = run_scene(name, Path("runs/red-kite")) if name in RUNS else page_scene(name, Path())
                svg = asyncio.run(draw(scene, size))
                (screens / f"{name}-{size[0]}x{size[1]}.png").write_bytes(as_png(svg))
                if name == "training":
                    for view, keys in VIEWS.items():
                        svg = asyncio.run(draw(run_scene(name, Path("runs/red-kite")), size, *keys))
                        (screens / f"{name}-{view}-{size[0]}x{size[1]}.png").write_bytes(as_png(svg))
                if name == "training" and size == SIZES[0]:
                    light = asyncio.run(draw(run_scene(name, Path("runs/red-kite")), size, "ctrl+t"))
                    (screens / f"{name}-light-{size[0]}x{size[1]}.png").write_bytes(as_png(light))
                os.chdir(HERE)


async def draw(scene: Scene, size: tuple[int, int], *keys: str) -> str:
    """The SVG of a scene once it shows all it has."""
    async with scene.app.run_test(size=size) as pilot:
        await scene.complete(pilot)
        for key in keys:
            await pilot.press(key)
        await pilot.pause()
        return scene.app.export_screenshot()


def as_png(svg: str) -> bytes:
    """A picture of a screenshot, in a palette: a third of the bytes. The SVG names a web font; an installed one has every box and dot."""
    import resvg_py
    from PIL import Image

    whole = bytes(resvg_py.svg_to_bytes(svg_string=svg.replace("Fira Code", FONT), font_family=FONT, monospace_family=FONT))
    with Image.open(io.BytesIO(whole)) as picture, io.BytesIO() as small:
        picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(small, "png", optimize=True)
        return small.getvalue()


if __name__ == "__main__":
    main(sys.argv[1:])
