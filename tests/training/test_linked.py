"""Masks and reference clips: found by name, cached with their clip, given while training, and named where they are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from engine_fixtures import FPS, FRAMES, HEIGHT, WIDTH, MakeConfig, OpenRun, events_of, write_clip
from safetensors import safe_open

from ltx2core.caching.passes import References
from ltx2core.data.clip import Bucket
from ltx2core.data.linked import decode_linked, mask_tokens, reference_bucket
from ltx2core.data.write import write_png
from ltx2core.errors import ConfigError, DatasetError
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.components import load_transformer
from ltx2core.models.latents import latent_grid
from ltx2core.models.nano import nano_checkpoint
from ltx2core.models.rope import video_positions
from ltx2core.runs.events import Notice, SampleReady, StepDone
from ltx2core.training.conditions import GivenPart, draw_given
from ltx2core.training.reference import Reference, joint_positions

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.training.session import TrainingSession

BUCKET = Bucket(width=WIDTH, height=HEIGHT, frames=FRAMES)


def _losses(run: TrainingSession) -> list[float | None]:
    assert run.run() == "finished", run.failure
    return [event.video_loss for event in events_of(run) if isinstance(event, StepDone)]


def _codes(run: TrainingSession) -> dict[str, str]:
    return {event.code: event.text for event in events_of(run) if isinstance(event, Notice)}


def _entry(folder: Path, kind: str) -> dict[str, object]:
    return {"id": kind, "dataset_type": "conditioning", "conditioning_type": kind, "instance_data_dir": str(folder)}


def _left_half(path: Path) -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    picture[:, : WIDTH // 2] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, picture)


def test_a_mask_is_pooled_over_the_frames_that_a_latent_stands_for() -> None:
    frames = np.zeros((17, 64, 64, 3), dtype=np.uint8)
    frames[0] = 255  # the first latent stands for one frame, the second for 1 to 8, the third for 9 to 16
    frames[1:5] = 255  # just half of eight: not given
    frames[9:14, :32] = 255  # five of eight, in the upper half
    assert mask_tokens(frames).tolist() == [
        [[True, True], [True, True]],
        [[False, False], [False, False]],
        [[True, True], [False, False]],
    ]


def test_a_picture_stands_for_every_frame_and_one_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    _left_half(tmp_path / "mask %d.png")  # no pattern to count by
    frames = decode_linked(tmp_path / "mask %d.png", bucket=BUCKET, fps=FPS)
    assert frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert frames[-1, 0, 0].tolist() == [255, 255, 255]
    assert frames[-1, 0, -1].tolist() == [0, 0, 0]
    (tmp_path / "no.png").write_text("not a picture")
    with pytest.raises(DatasetError, match=r"no\.png"):
        decode_linked(tmp_path / "no.png", bucket=BUCKET, fps=FPS)


def test_masks_give_what_they_show_and_only_when_drawn() -> None:
    masks = torch.zeros(4000, 8, dtype=torch.bool)
    masks[:, :3] = True
    part = GivenPart(kind="mask", probability=0.25)
    given = draw_given([part], grid=(2, 2, 2), count=4000, generator=torch.Generator().manual_seed(0), masks=masks)
    assert not given[:, 3:].any()
    assert torch.equal(given[:, 0], given[:, 2])
    assert given[:, 0].float().mean() == pytest.approx(0.25, abs=0.03)
    assert not draw_given([part], grid=(2, 2, 2), count=8, generator=torch.Generator().manual_seed(0)).any()


def test_a_run_with_masks_trains_on_what_they_leave_and_names_clips_without_one(
    make_config: MakeConfig, open_run: OpenRun, tmp_path: Path
) -> None:
    for seed in range(2):
        write_clip(tmp_path / "clips" / "in" / f"clip{seed}.mp4", seed=seed, sound=False)
    _left_half(tmp_path / "masks" / "in" / "clip0.png")

    def run(name: str, chance: float) -> TrainingSession:
        return open_run(
            make_config(
                folder=tmp_path / "clips",
                dataset={"conditioning_data": "mask"},
                others=[_entry(tmp_path / "masks", "mask")],
                max_train_steps=2,
                train_batch_size=2,
                ltx2_mask_conditioning_probability=chance,
            ),
            name,
        )

    assert _losses(run("with", 1.0)) != _losses(run("without", 0.0))
    assert "1 clips have no mask" in _codes(run("with", 1.0))["no_mask"]
    assert "clip1.mp4" in _codes(run("with", 1.0))["no_mask"]
    (tmp_path / "masks" / "in" / "clip0.png").write_text("broken")
    broken = run("broken", 1.0)
    assert broken.run() == "finished"
    assert "clip0.mp4 is left out" in _codes(broken)["clip_left_out"]


@pytest.mark.parametrize(("smaller", "slower"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_a_reference_covers_the_same_pixels_and_seconds_as_its_clip(smaller: int, slower: int) -> None:
    transformer = load_transformer(open_checkpoint(nano_checkpoint()), dtype=torch.float32)
    bucket = Bucket(width=128, height=64, frames=33)
    seen = reference_bucket(bucket, smaller=smaller, slower=slower)
    grid, small = (latent_grid(width=size.width, height=size.height, frames=size.frames) for size in (bucket, seen))
    reference = Reference(
        tokens=torch.zeros(1, small[0] * small[1] * small[2], 32), grid=small, seen=References(smaller=smaller, slower=slower)
    )
    fps = torch.tensor([25.0])
    places = joint_positions(transformer, reference, grid=grid, fps=fps)
    own = video_positions(transformer, grid, fps)
    count = reference.tokens.shape[1]
    torch.testing.assert_close(places[:, :, count:], own)
    for axis in range(3):
        assert places[0, axis, :count].max() == pytest.approx(own[0, axis].max(), abs=1e-5)
        assert places[0, axis, :count].min() == pytest.approx(own[0, axis].min(), abs=1e-5)


def test_references_are_seen_while_training_and_change_what_is_learned(make_config: MakeConfig, open_run: OpenRun, tmp_path: Path) -> None:
    for seed in range(2):
        write_clip(tmp_path / "clips" / f"clip{seed}.mp4", seed=seed)
        write_clip(tmp_path / "references" / f"clip{seed}.mp4", seed=seed + 10, sound=False)

    def run(name: str, **keys: object) -> TrainingSession:
        return open_run(
            make_config(
                folder=tmp_path / "clips",
                dataset={"conditioning_data": ["reference_strict"]},
                others=[_entry(tmp_path / "references", "reference_strict")],
                max_train_steps=2,
                **keys,
            ),
            name,
        )

    losses = {
        "with": _losses(run("with")),
        "smaller": _losses(run("smaller", ltx2_reference_spatial_scale_factor=2)),
        "without": _losses(run("without", ltx2_reference_conditioning_probability=0.0)),
    }
    assert len({tuple(values) for values in losses.values()}) == 3
    (tmp_path / "references" / "clip1.mp4").unlink()
    with safe_open(open_run(make_config(max_train_steps=1), "smaller").folder.lora, framework="np") as file:
        header = file.metadata()  # what official inference asks an IC-LoRA for
    assert (header["reference_downscale_factor"], header["reference_temporal_scale_factor"]) == ("2", "1")
    less = run("less")
    assert less.run() == "finished", less.failure
    assert "clip1.mp4" in _codes(less)["no_reference"]


def test_what_has_no_effect_on_masks_and_references_is_named(make_config: MakeConfig, open_run: OpenRun, tmp_path: Path) -> None:
    entry = _entry(tmp_path, "mask") | {"repeats": 3, "resolution": 256}
    loaded = make_config(dataset={"conditioning_data": "mask"}, others=[entry])
    assert "repeats, resolution has no effect" in " ".join(notice.text for notice in loaded.notices)
    learned = make_config(dataset={"conditioning_type": "mask"})
    assert any("no effect on clips that are learned" in notice.text for notice in learned.notices)
    run = open_run(make_config(max_train_steps=1, ltx2_mask_conditioning_probability=0.5, ltx2_reference_temporal_scale_factor=2))
    assert run.run() == "finished", run.failure
    assert {"no_masks", "no_references"} <= _codes(run).keys()


@pytest.mark.parametrize(
    ("named", "others", "said"),
    [
        ("maks", ["mask"], "use mask"),
        ("nothing", [], '"dataset_type": "conditioning"'),
        (["mask", "mask2"], ["mask", "mask2"], "one mask and one reference at most"),
    ],
)
def test_a_wrong_link_is_told_with_what_would_work(
    make_config: MakeConfig, tmp_path: Path, named: object, others: list[str], said: str
) -> None:
    entries = [_entry(tmp_path, "mask") | {"id": name} for name in others]
    with pytest.raises(ConfigError, match=said):
        make_config(dataset={"conditioning_data": named}, others=entries)
    with pytest.raises(ConfigError, match="use mask or reference_strict"):
        make_config(others=[{"id": "x", "dataset_type": "conditioning", "instance_data_dir": str(tmp_path)}])


def _samples(session: TrainingSession) -> tuple[list[bytes], str]:
    """The first picture of each sample, and what they were drawn for."""
    assert session.run() == "finished", session.failure
    ready = [event for event in events_of(session) if isinstance(event, SampleReady)]
    assert ready
    pictures = [(session.folder.path / event.path).with_name("first.png").read_bytes() for event in ready]
    return pictures, ready[-1].prompt


def test_samples_are_drawn_beside_a_held_out_reference_and_change_with_it(
    make_config: MakeConfig, open_run: OpenRun, tmp_path: Path
) -> None:
    for seed in range(5):
        write_clip(tmp_path / "clips" / f"clip{seed}.mp4", seed=seed, sound=False)
        write_clip(tmp_path / "references" / f"clip{seed}.mp4", seed=seed + 10, sound=False)

    def run(name: str, **keys: object) -> TrainingSession:
        return open_run(
            make_config(
                folder=tmp_path / "clips",
                dataset={"conditioning_data": "reference_strict", "audio": None},
                others=[_entry(tmp_path / "references", "reference_strict")],
                max_train_steps=1,
                validation_disable=False,
                validation_step_interval=1,
                eval_steps_interval=1,
                **{"validation_prompt": "", **keys},
            ),
            name,
        )

    one = run("one")
    drawn, prompt = _samples(one)
    told = _codes(one)
    chosen = told["sample_reference"].removesuffix(".").split()[-1]
    assert chosen in told["held_out"]
    assert prompt == (tmp_path / "clips" / chosen).with_suffix(".txt").read_text()
    assert "samples_without_reference" not in told
    assert _samples(run("named", validation_prompt="something else"))[1] == "something else"

    assert _samples(run("again"))[0] == drawn
    assert _samples(run("never", ltx2_reference_conditioning_probability=0.0, validation_prompt=prompt))[0][0] != drawn[0]
    write_clip(tmp_path / "references" / chosen, seed=77, sound=False)
    other = run("other")
    assert _samples(other)[0][0] != drawn[0]
    assert chosen in _codes(other)["sample_reference"]


def test_samples_longer_than_every_reference_are_drawn_without_and_it_is_said(
    make_config: MakeConfig, open_run: OpenRun, tmp_path: Path
) -> None:
    for seed in range(2):
        write_clip(tmp_path / "clips" / f"clip{seed}.mp4", seed=seed, sound=False)
        write_clip(tmp_path / "references" / f"clip{seed}.mp4", seed=seed + 10, sound=False)
    session = open_run(
        make_config(
            folder=tmp_path / "clips",
            dataset={"conditioning_data": "reference_strict", "audio": None},
            others=[_entry(tmp_path / "references", "reference_strict")],
            max_train_steps=1,
            validation_disable=False,
            validation_step_interval=1,
            validation_num_video_frames=17,
        )
    )
    _samples(session)
    assert "not one of 2 lasts as long" in _codes(session)["samples_without_reference"]


def test_a_reference_is_seen_clean_and_at_timestep_0_whatever_the_noise_level(monkeypatch: pytest.MonkeyPatch) -> None:
    from ltx2core.models.text import TextEmbedding
    from ltx2core.validation import sampling

    transformer = load_transformer(open_checkpoint(nano_checkpoint()), dtype=torch.float32, audio=False)
    draw = torch.Generator().manual_seed(0)
    reference = Reference(
        tokens=torch.randn(1, 4, transformer.config.in_channels, generator=draw), grid=(1, 2, 2), seen=References(smaller=2)
    )
    width = transformer.config.caption_channels
    texts = [TextEmbedding(torch.randn(128, width, generator=draw), torch.randn(128, width, generator=draw)) for _ in range(2)]
    seen: list[dict[str, torch.Tensor]] = []
    real = sampling.predict_velocity

    def note(*arguments: object, **keys: torch.Tensor) -> object:
        seen.append(keys)
        return real(*arguments, **keys)  # type: ignore[call-overload]

    monkeypatch.setattr(sampling, "predict_velocity", note)
    latents = sampling.sample_latents(
        transformer, text=texts[0], negative_text=texts[1], grid=(1, 4, 4), audio_steps=None, fps=25.0, steps=3, guidance=3.0, seed=0,
        inputs=sampling.Inputs(reference=reference),
    )  # fmt: skip
    assert latents.video is not None
    assert latents.video.shape[-3:] == (1, 4, 4)
    assert len(seen) == 3
    for call in seen:  # with the prompt and without
        assert torch.equal(call["video"][:, :4], reference.tokens.expand(2, -1, -1))
        assert not call["video_timesteps"][:, :4].any()
        assert torch.equal(call["video_timesteps"][:, 4:], call["video_sigma"][:, None].expand(2, 16))
        assert call["positions"].shape == (2, 3, 20, 2)
