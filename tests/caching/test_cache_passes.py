"""What is encoded, and what is not encoded again, on nano and small clips."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from engine_fixtures import FPS, FRAMES, HEIGHT, MakeConfig, write_clip

from ltx2core.caching import passes
from ltx2core.caching.manage import measure_cache, prune_cache, verify_cache
from ltx2core.caching.passes import Cached, CachePass
from ltx2core.caching.store import Store
from ltx2core.caching.tensors import write_tensors
from ltx2core.errors import CheckpointError, DatasetError, Stopped
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.components import load_audio_vae, load_video_vae
from ltx2core.models.latents import decode_video, encode_video
from ltx2core.models.nano import nano_checkpoint, nano_text_encoder
from ltx2core.runs.events import Event, Notice, PassMeasured, Progress
from ltx2core.training.dataset import find_samples

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ltx2core.data.clip import Sample


def _samples(make_config: MakeConfig, folder: Path, **dataset: object) -> list[Sample]:
    loaded = make_config(folder=folder, dataset=dataset)
    return find_samples(loaded.datasets, base=folder, frame_rate=FPS, emit=lambda _: None, should_stop=lambda: False)


def _cache(root: Path, samples: list[Sample], *, audio: bool = True, prompts: tuple[str, ...] = ()) -> tuple[Cached, list[Event]]:
    events: list[Event] = []
    return _work(root, events.append).run(samples, audio=audio, prompts=prompts), events


def _work(root: Path, emit: Callable[[Event], None]) -> CachePass:
    return CachePass(
        store=Store(root),
        checkpoint=open_checkpoint(nano_checkpoint()),
        text_encoder=nano_text_encoder(),
        device=torch.device("cpu"),
        dtype=torch.float32,
        emit=emit,
    )


def _encoded(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.phase, event.item) for event in events if isinstance(event, Progress)]


@pytest.fixture
def folder(tmp_path: Path, warm_cache: Path) -> Path:
    """Three clips; tmp_path/cache holds what they need, by content, tmp_path/cold nothing."""
    shutil.copytree(warm_cache, tmp_path / "cache")
    for seed in range(3):
        write_clip(tmp_path / "clips" / f"clip{seed}.mp4", seed=seed, sound=seed < 2)
    return tmp_path / "clips"


def test_a_second_run_encodes_nothing_and_loads_no_encoder(
    folder: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, events = _cache(tmp_path / "cold", _samples(make_config, folder))
    assert len(_encoded(events)) == 3 + 2 + 4  # clips, sounds, captions and the empty one
    monkeypatch.setattr("ltx2core.models.components.load_video_vae", None)
    monkeypatch.setattr("ltx2core.models.components.load_audio_vae", None)
    monkeypatch.setattr("ltx2core.models.text.load_text_encoder", None)
    second, events = _cache(tmp_path / "cold", _samples(make_config, folder))
    assert _encoded(events) == []
    assert [clip.video for clip in first.clips] == [clip.video for clip in second.clips]


def test_changing_one_caption_encodes_that_caption_alone(folder: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    _cache(tmp_path / "cache", _samples(make_config, folder))
    (folder / "clip1.txt").write_text("something else")
    _, events = _cache(tmp_path / "cache", _samples(make_config, folder))
    assert _encoded(events) == [("cache_text", "something else")]


def test_changing_one_clip_encodes_that_clip_alone_and_renaming_none(folder: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    _cache(tmp_path / "cache", _samples(make_config, folder))
    write_clip(folder / "clip0.mp4", seed=7, caption=(folder / "clip0.txt").read_text())
    shutil.move(folder / "clip1.mp4", folder / "other.mp4")
    shutil.move(folder / "clip1.txt", folder / "other.txt")
    _, events = _cache(tmp_path / "cache", _samples(make_config, folder))
    assert _encoded(events) == [("cache_video", "clip0.mp4"), ("cache_audio", "clip0.mp4")]


@pytest.mark.parametrize("what", ["video_vae", "audio_vae", "connectors"])
def test_other_weights_invalidate_what_they_made_and_nothing_else(
    folder: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    _cache(tmp_path / "cache", _samples(make_config, folder))
    real = type(open_checkpoint(nano_checkpoint())).fingerprint
    monkeypatch.setattr(
        "ltx2core.models.checkpoint.Checkpoint.fingerprint", lambda self, part: "changed" if part == what else real(self, part)
    )
    _, events = _cache(tmp_path / "cache", _samples(make_config, folder))
    assert {phase for phase, _ in _encoded(events)} == {
        {"video_vae": "cache_video", "audio_vae": "cache_audio", "connectors": "cache_text"}[what]
    }


def test_another_length_encodes_clips_again_but_no_caption(folder: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    _cache(tmp_path / "cache", _samples(make_config, folder))
    _, events = _cache(tmp_path / "cache", _samples(make_config, folder, video={"num_frames": 1}))
    assert {phase for phase, _ in _encoded(events)} == {"cache_video", "cache_audio"}


def test_a_damaged_entry_is_made_again_with_a_notice(folder: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    cached, _ = _cache(tmp_path / "cache", _samples(make_config, folder))
    path = Store(tmp_path / "cache").path("video", cached.clips[1].video)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    _, events = _cache(tmp_path / "cache", _samples(make_config, folder))
    assert _encoded(events) == [("cache_video", "clip1.mp4")]
    assert any(isinstance(event, Notice) and event.code == "cache_damaged" for event in events)
    assert path.read_bytes() == whole


def test_two_runs_may_fill_one_cache_at_the_same_time(folder: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    samples, results = _samples(make_config, folder), []
    threads = [threading.Thread(target=lambda: results.append(_cache(tmp_path / "cold", samples)[0])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    store = Store(tmp_path / "cold")
    assert len(list(store.entries())) == 3 + 2 + 4
    assert all(store.load(kind, path.stem) is not None for kind, path in store.entries())
    assert not list((tmp_path / "cold").rglob("*.tmp*"))


def test_a_clip_whose_sound_cannot_be_read_trains_video_only_and_is_named(folder: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    samples = _samples(make_config, folder)
    write_clip(folder / "clip1.mp4", seed=1, sound=False, caption=(folder / "clip1.txt").read_text())  # it had sound at the scan
    cached, events = _cache(tmp_path / "cache", samples)
    assert [clip.audio is not None for clip in cached.clips] == [True, False, False]
    said = [event.text for event in events if isinstance(event, Notice) and event.code == "sound_left_out"]
    assert said == ["clip1.mp4 trains video only: its sound is gone since the scan."]


def test_another_precision_encodes_again(folder: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    samples = _samples(make_config, folder)
    passes = {
        dtype: CachePass(
            store=Store(tmp_path / "cache"),
            checkpoint=open_checkpoint(nano_checkpoint()),
            text_encoder=nano_text_encoder(),
            device=torch.device("cpu"),
            dtype=dtype,
            emit=lambda _: None,
        ).names(samples, audio=False)
        for dtype in (torch.float32, torch.bfloat16)
    }
    assert not passes[torch.float32] & passes[torch.bfloat16]


def test_a_clip_that_breaks_between_scan_and_cache_is_left_out_by_name(folder: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    samples = _samples(make_config, folder)
    data = (folder / "clip1.mp4").read_bytes()
    (folder / "clip1.mp4").write_bytes(data[: len(data) // 3])
    (folder / "clip2.mp4").unlink()
    cached, events = _cache(tmp_path / "cold", samples)
    assert [clip.sample.clip.path.name for clip in cached.clips] == ["clip0.mp4"]
    told = " ".join(event.text for event in events if isinstance(event, Notice) and event.code == "clip_left_out")
    assert "clip1.mp4 is left out" in told
    assert "clip2.mp4 is left out" in told


def test_no_clip_left_is_an_error_that_says_where_to_look(folder: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    samples = _samples(make_config, folder)
    for path in folder.glob("*.mp4"):
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match="Not one clip"):
        _cache(tmp_path / "cold", samples)


def test_latents_are_normalised_bf16_and_decode_to_the_clip(folder: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    cached, _ = _cache(tmp_path / "cache", _samples(make_config, folder))
    entry = Store(tmp_path / "cache").load("video", cached.clips[0].video)
    assert entry is not None
    latents = entry["latents"]
    vae = load_video_vae(open_checkpoint(nano_checkpoint()), dtype=torch.float32)
    assert latents.dtype == torch.bfloat16
    assert latents.shape == (vae.config.latent_channels, (FRAMES - 1) // 8 + 1, HEIGHT // 32, HEIGHT // 32)
    pixels = decode_video(vae, latents[None])
    again = encode_video(vae, pixels)
    assert pixels.shape == (1, 3, FRAMES, HEIGHT, HEIGHT)
    assert torch.isfinite(again).all()


def test_sound_that_ends_early_is_learned_only_as_far_as_it_goes(make_config: MakeConfig, make_clip, tmp_path: Path) -> None:
    make_clip("clips/short.mp4", width=64, height=64, frames=33, sound_seconds=0.6)
    make_clip("clips/whole.mp4", width=64, height=64, frames=33, sound_seconds=1.4)
    samples = _samples(make_config, tmp_path / "clips", video={"num_frames": 33})
    cached, _ = _cache(tmp_path / "cold", samples)
    learned = []
    for clip in cached.clips:
        assert clip.audio is not None
        entry = Store(tmp_path / "cold").load("audio", clip.audio)
        assert entry is not None
        assert entry["latents"].shape[1] == entry["learned"].shape[0] == 33  # 25 latents a second, as many as frames at 25 fps
        learned.append(int(entry["learned"].sum()))
    assert learned[1] == 33
    assert 15 <= learned[0] <= 17  # 0.6 s; AAC rounds up to its frame


def test_only_one_encoder_is_in_memory_at_a_time(
    folder: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gc
    import weakref

    from ltx2core.models import components, text

    alive: list[weakref.ref[torch.nn.Module]] = []
    loaded: list[str] = []

    def watched(load, name: str, together_with: str = ""):
        def wrapper(*args, **kwargs):
            gc.collect()
            others = [one for ref, one in zip(alive, loaded, strict=True) if ref() is not None]
            assert others in ([], [together_with]), f"{name} was loaded beside {others}"
            module = load(*args, **kwargs)
            alive.append(weakref.ref(getattr(module, "model", module)))
            loaded.append(name)
            return module

        return wrapper

    monkeypatch.setattr(components, "load_video_vae", watched(load_video_vae, "video"))
    monkeypatch.setattr(components, "load_audio_vae", watched(load_audio_vae, "audio"))
    monkeypatch.setattr(text, "load_text_encoder", watched(text.load_text_encoder, "text"))
    monkeypatch.setattr(components, "load_connectors", watched(components.load_connectors, "connectors", together_with="text"))
    monkeypatch.setattr(passes, "free_memory", lambda device: None)
    _cache(tmp_path / "cold", _samples(make_config, folder))
    gc.collect()
    assert loaded == ["video", "audio", "text", "connectors"]
    assert not [ref for ref in alive if ref() is not None]


def test_clips_encoded_together_are_those_encoded_one_by_one(folder: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    samples = _samples(make_config, folder)
    entries = {}
    for batch in (1, 2):
        store = Store(tmp_path / f"batch{batch}")
        work = replace(_work(store.root, lambda _: None), vae_batch=batch, text_batch=batch)
        cached = work.run(samples, audio=True)
        names = [(kind, path.stem) for kind, path in store.entries()]
        entries[batch] = {name: store.load(*name) for name in names}
        assert [clip.sample.clip.path.name for clip in cached.clips] == ["clip0.mp4", "clip1.mp4", "clip2.mp4"]
    assert entries[1].keys() == entries[2].keys()
    for name, alone in entries[1].items():
        together = entries[2][name]
        assert alone is not None
        assert together is not None
        for key, tensor in alone.items():
            torch.testing.assert_close(together[key].float(), tensor.float(), rtol=2**-7, atol=1e-4)  # one step of bf16


def test_a_pass_says_how_busy_its_encoder_was(folder: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    _, events = _cache(tmp_path / "cold", _samples(make_config, folder))
    measured = {event.phase: event for event in events if isinstance(event, PassMeasured)}
    assert measured.keys() == {"cache_video", "cache_audio"}
    video = measured["cache_video"]
    assert video.entries == 3
    assert 0 < video.busy_seconds <= video.seconds
    assert 0 <= video.waited_seconds <= video.seconds
    assert any(isinstance(event, Notice) and event.code == "cache_video_speed" for event in events)


def test_a_device_without_room_for_the_vae_names_the_lever(
    folder: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate")

    monkeypatch.setattr("ltx2core.models.latents.encode_video", full)
    with pytest.raises(CheckpointError, match="no room for the VAE to encode a clip of 64x64@9") as raised:
        _cache(tmp_path / "cold", _samples(make_config, folder))
    assert raised.value.fix.startswith("Set vae_enable_temporal_roll")


def test_a_caption_that_many_clips_have_is_stored_once(folder: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    for path in folder.glob("*.txt"):
        path.write_text("the same words")
    cached, events = _cache(tmp_path / "cold", _samples(make_config, folder))
    assert [item for phase, item in _encoded(events) if phase == "cache_text"] == ["", "the same words"]
    assert len({clip.captions for clip in cached.clips}) == 1


def test_a_stop_keeps_what_was_encoded_and_the_next_start_makes_the_rest(folder: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    samples, events = _samples(make_config, folder), []
    store = Store(tmp_path / "cold")
    stopped_after = 2
    work = replace(_work(store.root, events.append), should_stop=lambda: len(store.names()) >= stopped_after)
    with pytest.raises(Stopped):
        work.run(samples, audio=True)
    kept = len(store.names())
    assert stopped_after <= kept < 9
    _, events = _cache(store.root, samples)
    assert len(_encoded(events)) == 9 - kept


def test_the_cache_is_measured_verified_and_pruned_to_what_a_config_needs(folder: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    store, samples = Store(tmp_path / "cold"), _samples(make_config, folder)
    cached, _ = _cache(tmp_path / "cold", samples)
    before = {size.kind: size.entries for size in measure_cache(store)}
    assert before["video"] == 3
    assert before["audio"] == 2
    assert verify_cache(store) == []
    damaged, poisoned = store.path("video", cached.clips[0].video), store.path("video", cached.clips[1].video)
    damaged.write_bytes(damaged.read_bytes()[:-4])
    write_tensors(poisoned, {"latents": torch.full((2, 2), float("nan"))})
    changed = store.path("audio", str(cached.clips[0].audio))
    data = bytearray(changed.read_bytes())
    data[-3] ^= 1  # one bit, still finite and of the right length
    changed.write_bytes(data)
    assert {damage.path: damage.reason for damage in verify_cache(store)} == {
        damaged: "it cannot be read, or is cut short",
        poisoned: "it has values that are not finite",
        changed: "its values are not those that were written",
    }
    keep = CachePass(
        store=store,
        checkpoint=open_checkpoint(nano_checkpoint()),
        text_encoder=nano_text_encoder(),
        device=torch.device("cpu"),
        dtype=torch.float32,
        emit=lambda _: None,
    ).names(samples[:1], audio=True)
    pruned = prune_cache(store, keep=keep)
    assert pruned.entries == sum(before.values()) - 4  # the clip, its sound, its caption and the empty one stay
    assert pruned.file_bytes > 0
    assert {path.stem for _, path in store.entries()} == keep
