"""Our use of diffusers against outputs of Lightricks' own code on tiny random models of every version (reference_files.py).

float32 on a CPU. The tolerances are those of the reference data's own README: 1e-4 where rounding of large RoPE angles weighs in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from reference_files import F32, Reference, assert_close, each_case, each_version, predict, rates, transformer_of

from ltx2core.models import components, latents
from ltx2core.models.forward import predict_velocity
from ltx2core.models.rope import audio_positions, video_positions
from ltx2core.models.text import TextEmbedding
from ltx2core.training.sigma import ShiftedLogitNormal, shift_for

if TYPE_CHECKING:
    from diffusers import LTX2VideoTransformer3DModel


def assert_predicts(transformer: LTX2VideoTransformer3DModel, reference: Reference, case: str) -> None:
    given = reference.under(f"a.{case}.")
    text = TextEmbedding(reference.io["a.context.video"], reference.io["a.context.audio"])
    for modality, found in zip(("video", "audio"), predict(transformer, given, text, reference.grid), strict=True):
        if f"out.{modality}" in given:
            assert_close(found, given[f"out.{modality}"], 1e-4)
        else:
            assert found is None


@pytest.mark.parametrize(("reference", "case"), each_case("a"))
def test_the_transformer_predicts_what_the_official_one_predicts(reference: Reference, case: str) -> None:
    assert_predicts(transformer_of(reference), reference, case)


@pytest.mark.parametrize(
    ("reference", "case"), [case for case in each_case("a") if str(case.id).removesuffix("_kf").endswith(("video_only", "audio_only"))]
)
def test_a_transformer_without_the_other_modality_predicts_it_too(reference: Reference, case: str) -> None:
    alone = transformer_of(reference, video=case != "audio_only", audio=case == "audio_only")
    assert_predicts(alone, reference, case)
    text = TextEmbedding(reference.io["a.context.video"], reference.io["a.context.audio"])
    whole, part = (predict(model, reference.under(f"a.{case}."), text, reference.grid) for model in (transformer_of(reference), alone))
    for one, other in zip(whole, part, strict=True):
        assert one is other or torch.equal(one, other)  # to the last bit


@each_version
def test_the_first_latent_frame_is_marked_as_inference_marks_it(reference: Reference) -> None:
    given = reference.under("a.i2v_kf.") or reference.under("a.i2v.")
    found, _ = predict_velocity(
        transformer_of(reference),
        video=given["video.latent"],
        video_timesteps=given["video.timesteps"],
        video_sigma=given["video.sigma"],
        audio=given["audio.latent"],
        audio_timesteps=given["audio.timesteps"],
        audio_sigma=given["audio.sigma"],
        text=TextEmbedding(reference.io["a.context.video"], reference.io["a.context.audio"]),
        grid=reference.grid,
        fps=rates(given),
    )
    assert_close(found, given["out.video"], 1e-4)


@each_version
def test_positions_are_the_official_ones(reference: Reference) -> None:
    transformer = transformer_of(reference)
    for clip in reference.cases["e"]["video"]:
        found = video_positions(transformer, (clip["frames"], clip["height"], clip["width"]), torch.tensor([clip["fps"]]))
        assert torch.equal(found, reference.io[clip["key"]])
    for steps in reference.cases["e"]["audio"]:
        assert torch.equal(audio_positions(transformer, steps), reference.io[f"e.audio.{steps}"])
    mixed = reference.under("a.mixed_fps.")
    assert torch.equal(video_positions(transformer, reference.grid, rates(mixed)), mixed["video.positions"])


@each_version
def test_connectors_give_the_official_text_embeddings(reference: Reference) -> None:
    connectors = components.load_connectors(reference.checkpoint, dtype=F32)
    video, audio, mask = connectors(reference.io["b.hidden_states"], reference.io["b.attention_mask"])
    assert_close(video, reference.io["b.embeds.video"], 1e-5)
    assert_close(audio, reference.io["b.embeds.audio"], 1e-5)
    assert torch.equal(mask, reference.io["b.embeds_mask"])


@each_version
def test_video_encodes_and_decodes_as_the_official_vae_does(reference: Reference) -> None:
    vae = components.load_video_vae(reference.checkpoint, dtype=F32)
    pixels = reference.io["c.pixels_uint8"] / 127.5 - 1
    for frames in reference.cases["c"]["frames"]:
        assert_close(latents.encode_video(vae, pixels[:, :, :frames]), reference.io[f"c.latents_{frames}"], 1e-5)
    mean, std = (value.view(1, -1, 1, 1, 1) for value in (vae.latents_mean, vae.latents_std))
    for frames, name, every in ((9, "c.decoded_9", 1), (17, "c.decoded_17_every_2nd", 2)):
        given = reference.io[f"c.latents_{frames}"]
        whole = vae.decode(given * std + mean, return_dict=False)[0]
        assert_close(whole[..., ::every, ::every], reference.io[name], 1e-4)
        assert_close(latents.decode_video(vae, given), whole.clamp(-1, 1), 1e-6)


@each_version
def test_61_frames_are_refused_instead_of_cut(reference: Reference) -> None:
    vae = components.load_video_vae(reference.checkpoint, dtype=F32)
    with pytest.raises(ValueError, match="8k \\+ 1 frames"):
        latents.encode_video(vae, torch.zeros(1, 3, 61, 32, 32))


@each_version
def test_sound_encodes_and_decodes_as_the_official_audio_vae_does(reference: Reference) -> None:
    audio_vae = components.load_audio_vae(reference.checkpoint, dtype=F32)
    vocoder = components.load_vocoder(reference.checkpoint, dtype=F32)
    io = reference.io
    assert_close(latents.log_mel(io["d.waveform"]), io["d.mel"], 1e-5)
    assert_close(latents.encode_sound(audio_vae, io["d.waveform"], steps=io["d.latents"].shape[2]), io["d.latents"], 1e-5)
    steps = (io["d.decoded_mel"].shape[2] + 3) // 4
    mel = latents.decode_mel(audio_vae, io["d.latents"][:, :, :steps])
    assert_close(mel, io["d.decoded_mel"], 1e-5)
    assert_close(vocoder(io["d.decoded_mel"]), io["d.decoded_waveform"], 1e-4)
    waveform, rate = latents.decode_sound(audio_vae, vocoder, io["d.latents"][:, :, :steps])
    assert rate == (24000 if reference.checkpoint.version.startswith("2.0") else 48000)
    assert_close(waveform, io["d.decoded_waveform"], 1e-3)  # the vocoder makes much of the last digits of its mel frames


@each_version
def test_noise_levels_are_those_of_the_official_sampler(reference: Reference) -> None:
    for draw in reference.cases["f"]["draws"]:
        sampler = ShiftedLogitNormal(std=draw["std"], eps=draw["eps"], uniform_probability=draw["uniform_prob"])
        recorded = reference.under(f"{draw['key']}.")
        found = sampler.from_draws(normal=recorded["normal"], uniform=recorded["uniform"], choice=recorded["choice"], tokens=draw["tokens"])
        assert_close(found, recorded["sigma"], 1e-6)
        generator = torch.Generator().manual_seed(draw["seed"])
        assert_close(sampler.sample(draw["batch"], tokens=draw["tokens"], generator=generator), recorded["sigma"], 1e-6)
    shifts = [shift_for(int(tokens)) for tokens in reference.io["f.mu.tokens"]]
    assert shifts == pytest.approx(reference.io["f.mu.value"].tolist(), rel=1e-12)
