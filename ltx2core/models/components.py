"""Builds diffusers' modules from a combined checkpoint: on the meta device first, then tensor by tensor, so that nothing is held twice."""

from __future__ import annotations

from dataclasses import dataclass
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
    model: LTX2VideoTransformer3DModel = _load(
        checkpoint,
        "transformer",
        LTX2VideoTransformer3DModel,
        header.transformer_arguments,
        dtype,
        device,
        prepare=_leaving_out(video=video, audio=audio),
    )
    follow_official_code(model)
    return model


def check_transformer(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str | None = None,
    video: bool = True,
    audio: bool = True,
) -> LTX2VideoTransformer3DModel:
    """The transformer without its numbers, on the meta device: its layers' names and sizes. Reads nothing but the header.

    Raises what `load_transformer` would raise for a file that is not whole or, on a device, memory without room: caching takes hours, and
    comes first. device: None asks for no room.
    """
    empty = _empty(
        checkpoint, "transformer", LTX2VideoTransformer3DModel, header.transformer_arguments, _leaving_out(video=video, audio=audio)
    )
    _check_whole(checkpoint, "transformer", empty)
    if device is not None:
        _check_room(checkpoint, "transformer", empty, dtype, device)
    model: LTX2VideoTransformer3DModel = empty.model
    return model


def _leaving_out(*, video: bool, audio: bool) -> Callable[[LTX2VideoTransformer3DModel], None]:
    if not video and not audio:
        raise ValueError("expected video, audio or both")

    def prepare(model: LTX2VideoTransformer3DModel) -> None:
        if not audio:
            leave_out(model, "audio")
        if not video:
            leave_out(model, "video")

    return prepare


def load_outside_blocks(
    checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device | str = "cpu", video: bool = True, audio: bool = True
) -> LTX2VideoTransformer3DModel:
    """The transformer with all that lies outside its blocks, which are empty: for callers that keep the blocks' weights themselves.

    Everything is in dtype, tables too.
    """

    leave = _leaving_out(video=video, audio=audio)

    def prepare(model: LTX2VideoTransformer3DModel) -> None:
        leave(model)
        model.transformer_blocks = torch.nn.ModuleList()

    model: LTX2VideoTransformer3DModel = _load(
        checkpoint, "transformer", LTX2VideoTransformer3DModel, header.transformer_arguments, dtype, device, prepare=prepare
    )
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    follow_official_code(model)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Empty:
    """A module on the meta device; `known` are all names that its class has, `expected` those that are to be filled, with their sizes."""

    model: Any
    known: frozenset[str]
    expected: dict[str, torch.Size]


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
    empty = _empty(checkpoint, component, cls, describe, prepare)
    _check_whole(checkpoint, component, empty)
    _check_room(checkpoint, component, empty, dtype, device)
    for name, tensor in checkpoint.tensors(component, wanted=lambda name: name in empty.expected, device=device):
        _assign(empty.model, name, tensor.to(_kept_dtype(name, tensor, dtype)))
    return empty.model.eval().requires_grad_(False)


def _empty(
    checkpoint: Checkpoint,
    component: Component,
    cls: type[Any],
    describe: Callable[[Mapping[str, Any]], dict[str, Any]],
    prepare: Callable[[Any], None] | None,
) -> _Empty:
    try:
        arguments = describe(checkpoint.config)
        with torch.device("meta"):
            model = cls(**arguments)
    except (LookupError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise CheckpointError(
            f"The header of {checkpoint.path} does not say how the {_called(component)} is built ({type(error).__name__}: {error}).",
            fix="Use a published checkpoint, or download the file again.",
        ) from error
    known = frozenset(model.state_dict())
    if prepare is not None:
        prepare(model)
    return _Empty(model=model, known=known, expected={name: tensor.shape for name, tensor in model.state_dict().items()})


def _check_whole(checkpoint: Checkpoint, component: Component, empty: _Empty) -> None:
    """Raise CheckpointError unless the file holds every tensor that is expected, in its size, and none that is no part of the module."""
    missing = dict(empty.expected)
    for key, name in checkpoint.names(component).items():
        shape = checkpoint.shape(key)
        if name not in empty.known or (name in empty.expected and empty.expected[name] != shape):
            found = "is not part of it" if name not in empty.known else f"is {list(shape)}, not {list(empty.expected[name])}"
            raise CheckpointError(
                f"{checkpoint.path} does not fit its own header: in the {_called(component)}, {name} {found}.",
                fix="Download the file again, or use another checkpoint.",
            )
        missing.pop(name, None)
    if missing:
        first = ", ".join(list(missing)[:5])
        raise CheckpointError(
            f"{checkpoint.path} lacks {len(missing)} tensors of the {_called(component)}: {first}.", fix="Download it again."
        )


def _check_room(checkpoint: Checkpoint, component: Component, empty: _Empty, dtype: torch.dtype, device: torch.device | str) -> None:
    needed_bytes = sum(shape.numel() for shape in empty.expected.values()) * dtype.itemsize
    check_room(f"The {_called(component)} of {checkpoint.path.name}", needed_bytes, device)


def _called(component: Component) -> str:
    return component.replace("_", " ")


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
