from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from engine_fixtures import events_of

from ltx2core.models import latents
from ltx2core.runs.events import Notice, SampleReady
from ltx2core.training.fast_model import FastModel
from ltx2core.validation import sampling

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest
    from diffusers import AutoencoderKLLTX2Video, LTX2VideoTransformer3DModel
    from engine_fixtures import MakeConfig, OpenRun

    from ltx2core.models.text import TextEmbedding
    from ltx2core.models.vae_levers import VaeLevers


def test_a_sample_that_cannot_be_written_is_said_and_training_goes_on(make_config: MakeConfig, open_run: OpenRun) -> None:
    session = open_run(make_config(max_train_steps=2, validation_disable=False, validation_step_interval=2), "in-the-way")
    session.folder.create()
    session.folder.samples.write_text("a file where the folder should be")
    assert session.run() == "finished", session.failure
    events = events_of(session)
    failed = [event for event in events if isinstance(event, Notice) and event.code == "sample_failed"]
    assert [event.text.split(":")[0] for event in failed] == ["Step 0", "Step 2"]
    assert failed[0].fix
    assert not [event for event in events if isinstance(event, SampleReady)]
    assert session.folder.lora.exists()


def test_a_sample_that_does_not_fit_beside_the_model_is_drawn_and_decoded_in_parts(
    make_config: MakeConfig, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_decode, real_forward, real_put_away = latents.decode_video, sampling.predict_velocity, FastModel.put_away
    away = [False]  # now; then at each try
    tries: list[bool] = []

    def forward(transformer: LTX2VideoTransformer3DModel, *, text: TextEmbedding, **given: Any) -> object:
        if len(text.video) > 1:
            raise torch.OutOfMemoryError("two at once do not fit")
        return real_forward(transformer, text=text, **given)

    def decode(vae: AutoencoderKLLTX2Video, found: torch.Tensor, *, levers: VaeLevers) -> torch.Tensor:
        tries.append(away[0])
        if not (levers.temporal_roll and away[0]):
            raise torch.OutOfMemoryError("not beside the model")
        return real_decode(vae, found, levers=levers)

    @contextlib.contextmanager
    def put_away(model: FastModel) -> Iterator[None]:
        with real_put_away(model):
            away[0] = True
            yield
            away[0] = False

    monkeypatch.setattr("ltx2core.validation.sampling.predict_velocity", forward)
    monkeypatch.setattr("ltx2core.validation.media.decode_video", decode)
    monkeypatch.setattr(FastModel, "put_away", put_away)
    config = make_config(
        max_train_steps=2, validation_disable=False, validation_step_interval=2, validation_guidance=3.0, step_engine="fast"
    )
    session = open_run(config, "tight")
    assert session.run() == "finished", session.failure
    events = events_of(session)
    codes = [event.code for event in events if isinstance(event, Notice)]
    assert codes.count("sample_drawn_apart") == 1
    assert codes.count("sample_decoded_in_parts") == 2
    assert tries == [False, False, True, True]
    assert [event.step for event in events if isinstance(event, SampleReady)] == [0, 2]
