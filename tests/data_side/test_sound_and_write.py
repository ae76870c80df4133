from __future__ import annotations

import errno
import os
import wave
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ltx2core.data.clip import Bucket
from ltx2core.data.decode import decode_frames
from ltx2core.data.probe import probe_clip
from ltx2core.data.sound import read_sound
from ltx2core.data.write import exact_rate, write_png, write_video, write_wav
from ltx2core.errors import DatasetError, StorageError

if TYPE_CHECKING:
    from pathlib import Path


def tone(seconds: float, *, rate: int = 48000, channels: int = 2, hertz: float = 440.0, level: float = 0.3) -> np.ndarray:
    wave = level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave[None].astype(np.float32), channels, axis=0)


def level_of(samples: np.ndarray) -> float:
    return float(np.sqrt((samples.astype(np.float64) ** 2).mean() * 2))


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("seconds", [9 / 25, 49 / 25, 1.0])
def test_sound_is_as_long_as_asked_to_the_sample(make_clip, rate: int, seconds: float) -> None:
    path = make_clip(frames=50, sound_seconds=2.0, sample_rate=rate)
    sound = read_sound(path, seconds=seconds)
    assert sound is not None
    assert sound.samples.shape == (2, round(seconds * 16000))
    assert sound.samples.dtype == np.float32
    assert sound.valid == sound.samples.shape[1]
    assert level_of(sound.samples[:, 1000:-1000]) == pytest.approx(0.3, rel=0.03)


def test_mono_is_given_to_both_sides_at_full_level(make_clip) -> None:
    sound = read_sound(make_clip(frames=50, sound_seconds=2.0, channels=1), seconds=1.0)
    assert sound is not None
    assert np.array_equal(sound.samples[0], sound.samples[1])
    assert level_of(sound.samples[:, 1000:]) == pytest.approx(0.3, rel=0.03)


def test_six_channels_are_mixed_down_without_clipping(make_clip) -> None:
    sound = read_sound(make_clip(frames=50, sound=tone(2.0, channels=6, level=0.9)), seconds=1.5)
    assert sound is not None
    assert sound.samples.shape == (2, 24000)
    assert 0.9 <= np.abs(sound.samples).max() <= 1.0


def test_what_is_beyond_the_track_is_silent_and_not_valid(make_clip) -> None:
    sound = read_sound(make_clip(frames=50, sound_seconds=1.0), seconds=2.0)
    assert sound is not None
    assert sound.samples.shape == (2, 32000)
    assert abs(sound.valid - 16000) <= 2
    assert np.abs(sound.samples[:, 16100:]).max() == 0


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_sound_that_starts_late_stays_late(make_clip, name: str) -> None:
    sound = read_sound(make_clip(name, frames=50, sound_seconds=1.0, sound_start=0.5), seconds=2.0)
    assert sound is not None
    loud = np.flatnonzero(np.abs(sound.samples[0]) > 0.05)
    assert loud[0] / 16000 == pytest.approx(0.5, abs=0.03)
    assert sound.valid / 16000 == pytest.approx(1.5, abs=0.03)


def test_sound_is_in_step_with_the_picture(make_clip) -> None:
    """A click at 1.000 s: after AAC, 48 to 16 kHz and placing it is still there to the millisecond."""
    click = np.zeros((2, 96000), dtype=np.float32)
    click[:, 48000:48032] = 0.9
    sound = read_sound(make_clip(frames=50, sound=click), seconds=2.0)
    assert sound is not None
    assert np.abs(sound.samples[0]).argmax() / 16000 == pytest.approx(1.0, abs=0.001)


def test_a_clip_without_sound_gives_none_and_the_real_one_in_5_1_stereo(real_clips: Path) -> None:
    assert read_sound(real_clips / "bikes.mp4", seconds=1.0) is None
    sound = read_sound(real_clips / "bigbuckbunny.mp4", seconds=121 / 25)
    assert sound is not None
    assert (sound.samples.shape, sound.valid) == ((2, 77440), 77440)
    assert 0.05 < np.abs(sound.samples).max() <= 1.0


def test_sound_of_a_file_that_is_no_media_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(bytes(1000))
    with pytest.raises(DatasetError, match=r"a\.mp4"):
        read_sound(tmp_path / "a.mp4", seconds=1)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 12),
    width=st.integers(16, 70),
    height=st.integers(16, 70),
    samples=st.integers(1, 5000),
    rate=st.sampled_from([16000, 24000, 48000]),
    fps=st.sampled_from([25, 24, Fraction(30000, 1001), 23.976, 12.5]),
)
def test_frames_and_samples_read_back_exactly_as_many(tmp_path: Path, count, width, height, samples, rate, fps) -> None:
    path = tmp_path / "out.mp4"
    frames = np.random.default_rng(0).integers(0, 255, (count, height, width, 3), dtype=np.uint8)
    write_video(path, frames, fps=fps, sound=tone(samples / rate, rate=rate), sample_rate=rate)
    clip = probe_clip(path)
    assert (clip.frames, clip.width, clip.height) == (count, width + width % 2, height + height % 2)
    assert clip.seconds == pytest.approx(count / float(fps), abs=1e-4)
    assert clip.audio is not None
    assert round(clip.audio.seconds * rate) == samples
    assert clip.audio.start == 0
    sound = read_sound(path, seconds=1.0, sample_rate=rate)
    assert sound is not None
    assert sound.valid == samples
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_a_written_video_looks_and_sounds_like_what_was_given(real_clips: Path, tmp_path: Path) -> None:
    bucket = Bucket(width=320, height=192, frames=25)
    frames = decode_frames(real_clips / "bigbuckbunny.mp4", bucket=bucket, fps=25)
    sound = read_sound(real_clips / "bigbuckbunny.mp4", seconds=1.0)
    assert sound is not None
    write_video(tmp_path / "out.mp4", frames, fps=25, sound=sound.samples, sample_rate=16000)
    back = decode_frames(tmp_path / "out.mp4", bucket=bucket, fps=25)
    error = ((back.astype(float) - frames) ** 2).mean()
    assert 10 * np.log10(255**2 / error) > 35
    heard = read_sound(tmp_path / "out.mp4", seconds=1.0)
    assert heard is not None
    assert np.corrcoef(heard.samples[0], sound.samples[0])[0, 1] > 0.97


def test_a_video_is_h264_aac_with_its_index_first(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", np.zeros((9, 64, 64, 3), np.uint8), fps=25, sound=tone(0.36), sample_rate=48000)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "a.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.pix_fmt, video.colorspace, video.color_range) == ("h264", "yuv420p", 1, 1)
        assert (audio.codec_context.name, audio.rate, audio.channels) == ("aac", 48000, 2)


def test_sound_beyond_1_and_not_a_number_is_limited(tmp_path: Path) -> None:
    wild = np.full((2, 16000), np.nan, dtype=np.float32)
    wild[:, ::2] = 50
    write_video(tmp_path / "a.mp4", np.zeros((9, 64, 64, 3), np.uint8), fps=25, sound=wild, sample_rate=16000)
    assert probe_clip(tmp_path / "a.mp4").audio is not None


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """/dev/full cannot be reached through a rename, so the room runs out by a limit on file sizes, in a child process."""
    (tmp_path / "a.mp4").write_bytes(b"old")
    child = os.fork()
    if child == 0:
        import resource
        import signal

        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
            noise = np.random.default_rng(0).integers(0, 255, (20, 128, 128, 3), dtype=np.uint8)
            write_video(tmp_path / "a.mp4", noise, fps=25)
        except StorageError as error:
            code = 0 if "a.mp4" in error.text else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (tmp_path / "a.mp4").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_ffmpegs_no_space_left_is_worded_as_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise av.error.OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ltx2core.data.write._encode", full)
    with pytest.raises(StorageError, match="is full"):
        write_video(tmp_path / "a.mp4", np.zeros((1, 32, 32, 3), np.uint8), fps=25)


def test_wrong_shapes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    good = np.zeros((1, 32, 32, 3), np.uint8)
    for frames, sound, rate in [
        (good[0], None, 48000),
        (good.astype(np.float32), None, 48000),
        (good[:0], None, 48000),
        (good, np.zeros((1, 10), np.float32), 48000),
        (good, np.zeros((2, 10), np.float32), 47999),
    ]:
        with pytest.raises(ValueError):
            write_video(tmp_path / "a.mp4", frames, fps=25, sound=sound, sample_rate=rate)
    assert list(tmp_path.iterdir()) == []


def test_rates_become_the_fractions_they_stand_for() -> None:
    assert exact_rate(23.976) == Fraction(24000, 1001)
    assert exact_rate(29.97) == Fraction(30000, 1001)
    assert exact_rate(59.94) == Fraction(60000, 1001)
    assert exact_rate(30000 / 1001) == Fraction(30000, 1001)
    assert (exact_rate(25), exact_rate(25.0), exact_rate(12.5)) == (25, 25, Fraction(25, 2))
    with pytest.raises(ValueError):
        exact_rate(0)


def test_a_picture_is_written_as_it_is(tmp_path: Path) -> None:
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    write_png(tmp_path / "deep" / "a.png", picture)
    with Image.open(tmp_path / "deep" / "a.png") as image:
        assert np.array_equal(np.asarray(image), picture)


@pytest.mark.parametrize(("layout", "channels", "rate"), [("7.1", 8, 48000), ("quad", 4, 44100), ("mono", 1, 48000), ("5.1", 6, 48000)])
@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_f32le"])
def test_any_number_of_channels_becomes_stereo(tmp_path: Path, codec: str, layout: str, channels: int, rate: int) -> None:
    """Eight channels and more end the process when PyAV hands them out itself, so this is not a formality."""
    kind = "s16" if codec == "pcm_s16le" else "flt"
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        stream.format = kind
        wave = tone(1.0, rate=rate, channels=channels, level=0.2).T.reshape(1, -1)
        data = np.ascontiguousarray((wave * 32767).astype(np.int16) if kind == "s16" else wave)
        for begin in range(0, rate, 1000):
            part = np.ascontiguousarray(data[:, begin * channels : (begin + 1000) * channels])
            frame = av.AudioFrame.from_ndarray(part, format=kind, layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, begin, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    sound = read_sound(path, seconds=1.0)
    assert sound is not None
    assert sound.samples.shape == (2, 16000)
    assert abs(sound.valid - 16000) <= 16
    assert 0.19 < sound.samples[0].max() < (0.21 if channels == 1 else 1.0)


def test_a_wav_holds_every_sample_to_16_bits_and_limits_what_is_beyond(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).uniform(-1, 1, (2, 1001)).astype(np.float32)
    sound[:, :3] = [2.0, -2.0, np.nan]
    write_wav(tmp_path / "a.wav", sound, sample_rate=24000)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 24000, 1001)
        found = np.frombuffer(file.readframes(1001), dtype="<i2").reshape(-1, 2).T / 32767
    assert np.abs(found[:, 3:] - sound[:, 3:]).max() <= 0.5 / 32767 + 1e-7
    assert found[:, :3].tolist() == [[1.0, -1.0, 0.0]] * 2
    with pytest.raises(ValueError, match=r"\[2, n\]"):
        write_wav(tmp_path / "b.wav", sound[0], sample_rate=24000)
    assert not (tmp_path / "b.wav").exists()
