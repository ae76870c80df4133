"""Builds diffusers' modules from a combined checkpoint: on the meta device first, then tensor by tensor, so that nothing is held twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video, LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder, LTX2VocoderWithBWE, UpSample1d

from ltx2core.errors import CheckpointError
from ltx2core.models import header
from ltx2core.models.forward import follow_official_code
from ltx2core.models.modalities import leave_out
from ltx2core.models.room import check_room

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.models.names import Component


def load_transformer(
    checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device | str = "cpu", video: bool = True, audio: bool = True
) -> LTX2VideoTransformer3DModel:
    """The transformer, frozen and in eval mode. Scale-shift tables stay in float32, as the file holds them.

    video, audio: False leaves the modules of that modality out, unread, and those between the two: without audio it is 31 % fewer
    weights, without video 83 %. One of them must stay.
    """
    if not video and not audio:
        raise ValueError("expected video, audio or both")

    def prepare(model: LTX2VideoTransformer3DModel) -> None:
        if not audio:
            leave_out(model, "audio")
        if not video:
            leave_out(model, "video")

    model: LTX2VideoTransformer3DModel = _load(
        checkpoint, "transformer", LTX2VideoTransformer3DModel, header.transformer_arguments, dtype, device, prepare=prepare
    )
    follow_official_code(model)
    return model


def load_outside_blocks(
    checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device | str = "cpu", audio: bool = True
) -> LTX2VideoTransformer3DModel:
    """The transformer with all that lies outside its blocks, which are empty: for callers that keep the blocks' weights themselves.

    Everything is in dtype, tables too.
    """

    def prepare(model: LTX2VideoTransformer3DModel) -> None:
        if not audio:
            leave_out(model, "audio")
        model.transformer_blocks = torch.nn.ModuleList()

    model: LTX2VideoTransformer3DModel = _load(
        checkpoint, "transformer", LTX2VideoTransformer3DModel, header.transformer_arguments, dtype, device, prepare=prepare
    )
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    follow_official_code(model)
    return model


def transformer_shapes(checkpoint: Checkpoint, *, audio: bool = True) -> LTX2VideoTransformer3DModel:
    """The whole transformer on the meta device: names and shapes, no weights."""
    model: LTX2VideoTransformer3DModel = _describe(checkpoint, "transformer", LTX2VideoTransformer3DModel, header.transformer_arguments)
    if not audio:
        leave_out(model, "audio")
    return model


def load_connectors(checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device | str = "cpu") -> LTX2TextConnectors:
    """The text connectors, which turn a text encoder's stacked states into what the transformer attends to."""

    def describe(config: Mapping[str, Any]) -> dict[str, Any]:
        _, stacked = checkpoint.shape(f"text_embedding_projection.{header.text_projection(config)}.weight")
        return header.connector_arguments(config, num_states=stacked // header.text_width(config))

    return _load(checkpoint, "connectors", LTX2TextConnectors, describe, dtype, device)


def load_video_vae(
    checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device | str = "cpu", half: Literal["encoder", "decoder"] | None = None
) -> AutoencoderKLLTX2Video:
    """The video VAE: 32 x 32 x 8 pixels a latent. Its latents are not normalised; use latents.py.

    half: the only half that is wanted. The other is left out, unread.
    """

    def prepare(model: AutoencoderKLLTX2Video) -> None:
        if half is not None:
            setattr(model, "decoder" if half == "encoder" else "encoder", None)

    return _load(checkpoint, "video_vae", AutoencoderKLLTX2Video, header.video_vae_arguments, dtype, device, prepare=prepare)


def load_audio_vae(checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device | str = "cpu") -> AutoencoderKLLTX2Audio:
    """The audio VAE: mel frames to latents, 25 a second."""
    return _load(checkpoint, "audio_vae", AutoencoderKLLTX2Audio, header.audio_vae_arguments, dtype, device)


def load_vocoder(checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device | str = "cpu") -> LTX2Vocoder | LTX2VocoderWithBWE:
    """The vocoder: mel frames to a stereo waveform at `config.output_sampling_rate`."""
    if not header.extends_bandwidth(checkpoint.config):
        return _load(checkpoint, "vocoder", LTX2Vocoder, header.vocoder_arguments, dtype, device)
    return _load(checkpoint, "vocoder", LTX2VocoderWithBWE, header.extending_vocoder_arguments, dtype, device, prepare=_fill_resampler)


def _fill_resampler(vocoder: LTX2VocoderWithBWE) -> None:
    """Its filter is computed, not saved, so it would stay on the meta device."""
    ratio = vocoder.config.output_sampling_rate // vocoder.config.input_sampling_rate
    vocoder.resampler = UpSample1d(ratio=ratio, window_type="hann", persistent=False)


def _load(
    checkpoint: Checkpoint,
    component: Component,
    cls: type[Any],
    describe: Callable[[Mapping[str, Any]], dict[str, Any]],
    dtype: torch.dtype,
    device: torch.device | str,
    *,
    prepare: Callable[[Any], None] | None = None,
) -> Any:
    """The module, filled. describe: from the header's config to the class's arguments. prepare: what is done to the module before
    anything is read; what it takes out is not read."""
    called = component.replace("_", " ")
    model = _describe(checkpoint, component, cls, describe)
    known = set(model.state_dict())
    if prepare is not None:
        prepare(model)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    check_room(f"The {called} of {checkpoint.path.name}", sum(shape.numel() for shape in expected.values()) * dtype.itemsize, device)
    for name, tensor in checkpoint.tensors(component, wanted=lambda name: name in expected or name not in known, device=device):
        if name not in expected or expected[name] != tensor.shape:
            found = "is not part of it" if name not in expected else f"is {list(tensor.shape)}, not {list(expected[name])}"
            raise CheckpointError(
                f"{checkpoint.path} does not fit its own header: in the {called}, {name} {found}.",
                fix="Download the file again, or use another checkpoint.",
            )
        del expected[name]
        _assign(model, name, tensor.to(_kept_dtype(name, tensor, dtype)))
    if expected:
        first = ", ".join(list(expected)[:5])
        raise CheckpointError(f"{checkpoint.path} lacks {len(expected)} tensors of the {called}: {first}.", fix="Download it again.")
    return model.eval().requires_grad_(False)


def _describe(checkpoint: Checkpoint, component: Component, cls: type[Any], describe: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Any:
    """The module on the meta device. Raises CheckpointError when the header does not say how it is built."""
    try:
        arguments = describe(checkpoint.config)
        with torch.device("meta"):
            return cls(**arguments)
    except (LookupError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
        called = component.replace("_", " ")
        raise CheckpointError(
            f"The header of {checkpoint.path} does not say how the {called} is built ({type(error).__name__}: {error}).",
            fix="Use a published checkpoint, or download the file again.",
        ) from error


def _kept_dtype(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.dtype:
    keeps_float32 = tensor.dtype == torch.float32 and ("scale_shift_table" in name or name.startswith("latents_"))
    return torch.float32 if keeps_float32 else dtype


def _assign(model: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    parent, _, leaf = name.rpartition(".")
    module = model.get_submodule(parent)
    if leaf in module._parameters:
        module._parameters[leaf] = torch.nn.Parameter(tensor, requires_grad=False)
    else:
        module._buffers[leaf] = tensor
