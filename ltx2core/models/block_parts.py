"""A block of LTX-2 in five parts, so that what it computes for sound can run beside what it computes for the picture.

    AudioFirst   self-attention and text for the sound; what the two cross-attentions need of it
    VideoFirst   self-attention and text for the picture
    VideoToAudio what the sound gets of the picture: the attention alone, whose keys are as long as the clip
    AudioLast    adds that to the sound, then its feed-forward
    VideoLast    what the picture gets of the sound, then its feed-forward

AudioFirst and VideoFirst know nothing of each other, nor do AudioLast and VideoLast; what goes from one stream to the other is as short
as the sound, a hundredth of the picture. The sound's share is a fifth of a short clip's time and a twentieth of its arithmetic: all
small kernels, which find room beside large ones.

The maths is that of diffusers' LTX2VideoTransformerBlock, to which tests/models/test_block_parts.py holds it bit for bit. Each part takes
the block's other arguments as diffusers names them, in `context`, and `levels` (levels.py).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from diffusers.models.transformers.transformer_ltx2 import LTX2Attention
from torch import Tensor, nn

from ltx2core.models.attention import attend, attend_kept
from ltx2core.models.levels import pick_levels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ltx2core.models.attention import Kernel
    from ltx2core.models.fused_block import FusedAttention

Attended = tuple[Tensor, Tensor]
"""out [B, T, H, D] and lse [B, H, T] of a self-attention."""

_ALL, _FIRST_PAIR, _SECOND_PAIR = slice(None), slice(2), slice(2, 4)
_VIDEO = ("encoder_hidden_states", "temb", "temb_prompt", "video_rotary_emb")
_AUDIO = ("audio_encoder_hidden_states", "temb_audio", "temb_prompt_audio", "audio_rotary_emb")
_VIDEO_CROSS = ("temb_ca_scale_shift", "temb_ca_gate", "ca_video_rotary_emb")
_AUDIO_CROSS = ("temb_ca_audio_scale_shift", "temb_ca_audio_gate", "ca_audio_rotary_emb")
_MASKS = (
    "encoder_attention_mask",
    "audio_encoder_attention_mask",
    "self_attention_mask",
    "audio_self_attention_mask",
    "a2v_cross_attention_mask",
    "v2a_cross_attention_mask",
)


def check_parts(context: Mapping[str, Any]) -> None:
    """Raise ValueError for what diffusers' block takes and its parts do not: masks, which nothing here asks for, and a skip of
    self-attention for some samples only."""
    if masks := [name for name in _MASKS if context.get(name) is not None]:
        raise ValueError(f"blocks of the step engine take no {masks[0]}")
    if context.get("perturbation_mask") is not None and not skips(context):
        raise ValueError("blocks of the step engine skip self-attention for all samples or for none")


def skips(context: Mapping[str, Any]) -> bool:
    """Whether all samples skip their self-attentions, which give their values."""
    return context.get("perturbation_mask") is not None and bool(context.get("all_perturbed"))


@dataclass(frozen=True, slots=True)
class Computed:
    """What a block gives. attended: of the picture's self-attention. between: what went from one stream to the other, which has to
    outlive the backward: its memory belongs to the stream that made it, and is read on the other one."""

    video: Tensor
    audio: Tensor
    attended: Attended | None = None
    between: tuple[Tensor, ...] = ()


class BlockInParts:
    """Runs a block's parts, the sound's on a CUDA stream of their own. beside: whether they are."""

    def __init__(self, block: nn.Module, *, compiled: Callable[[nn.Module], Callable[..., Any]], beside: bool = True) -> None:
        self._first = VideoFirst(block)
        self.audio_first, self.video_first = compiled(AudioFirst(block)), compiled(self._first)
        self.video_to_audio, self.audio_last, self.video_last = (compiled(part(block)) for part in (VideoToAudio, AudioLast, VideoLast))
        self._shown, self._heard = (isinstance(getattr(block, name), LTX2Attention) for name in ("attn1", "audio_attn1"))
        self._beside = beside
        self.side: torch.cuda.Stream | None = None

    def use_attention(self, kernel: Kernel | None) -> None:
        """Compute the picture's self-attention with this kernel; None: with the block's own, which cannot be kept."""
        self._first.kernel = kernel

    def __call__(self, video: Tensor, audio: Tensor, context: Mapping[str, Any], *, kept: Attended | None = None) -> Computed:
        """video [B, T, C], audio [B, A, D]; context: a block's other arguments, which `check_parts` lets through. kept: `attended` of
        another call with the same inputs. A modality whose layers were left out comes back as it went in."""
        tied = self._shown and self._heard and context.get("use_a2v_cross_attention", True)
        query = key = value = answer = attended = None
        skipped = skips(context)
        self._fork(video)
        if self._heard:
            with self._aside():
                audio, query, key, value = self.audio_first(audio, AudioFirst.arguments(context), tied, skipped)
        if self._shown:
            video, attended = self.video_first(video, VideoFirst.arguments(context), kept, skipped)
        if tied:
            self.join()
            answer = self.video_to_audio(video, query, VideoToAudio.arguments(context))
            self._fork(video)
        if self._heard:
            with self._aside():
                audio = self.audio_last(audio, answer, AudioLast.arguments(context))
        if self._shown:
            video = self.video_last(video, key, value, VideoLast.arguments(context))
        self.join()
        crossed = tuple(tensor for tensor in (query, key, value, answer) if tensor is not None)
        return Computed(video if self._shown else video.clone(), audio if self._heard else audio.clone(), attended, crossed)

    def join(self) -> None:
        """Have the current stream wait for the sound's."""
        if self.side is not None:
            torch.cuda.current_stream(self.side.device).wait_stream(self.side)

    def fork(self) -> None:
        """Have the sound's stream wait for the current one."""
        if self.side is not None:
            self.side.wait_stream(torch.cuda.current_stream(self.side.device))

    def _fork(self, video: Tensor) -> None:
        if self.side is None and self._beside and self._heard and self._shown and video.is_cuda:
            self.side = torch.cuda.Stream(video.device)  # type: ignore[no-untyped-call]
        self.fork()

    def _aside(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.side is None else torch.cuda.stream(self.side)


class _Part(nn.Module):
    """A part of `block`, which holds the weights."""

    takes: ClassVar[tuple[str, ...]]  # of the block's arguments

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block: Any = block

    @classmethod
    def arguments(cls, context: Mapping[str, Any]) -> dict[str, Any]:
        """What this part takes of a block's arguments: fewer things that a compiled part would have to look at."""
        return {name: context.get(name) for name in (*cls.takes, "levels")}

    def modulation(self, table: Tensor, given: Tensor, level: Tensor | None, rows: slice = _ALL) -> tuple[Tensor, ...]:
        """As many modulations [B, T or 1, D] as the table has rows. level: [B, T], where `given` has one row a noise level."""
        found: tuple[Tensor, ...] = self.block.get_mod_params(table, given, given.shape[0])[rows]
        # Picked last, one by one, where each is used: the backward picks again, and keeps none that is as long as the clip.
        return found if level is None else tuple(pick_levels(modulation, level) for modulation in found)

    def text(self, states: Tensor, table: str, given: Tensor | None) -> Tensor:
        """The text embeddings [B, S, D], modulated where the version has that."""
        if not self.block.cross_attn_adaln:
            return states
        rows = getattr(self.block, table)
        shift, scale = (
            self.block.get_mod_params(rows, given, states.shape[0]) if given is not None else rows[None, None].to(states.dtype).unbind(2)
        )
        modulated: Tensor = states * (1 + scale) + shift
        return modulated


class VideoFirst(_Part):
    takes = _VIDEO

    def __init__(self, block: nn.Module) -> None:
        super().__init__(block)
        self.kernel: Kernel | None = None

    def forward(self, video: Tensor, context: Mapping[str, Any], kept: Attended | None, skipped: bool) -> tuple[Tensor, Attended | None]:
        """video [B, T, C]; and what its self-attention found, for `kept` of another call: None where the kernel does not tell."""
        block = self.block
        video, attended = self._after_itself(video, context, kept, skipped)
        normed = block.norm2(video)
        if block.video_cross_attn_adaln:
            shift, scale, gate = self.modulation(*self._rows(context), slice(6, 9))
            normed = normed * (1 + scale) + shift
        text = self.text(context["encoder_hidden_states"], "prompt_scale_shift_table", context["temb_prompt"])
        answer = block.attn2(normed, encoder_hidden_states=text)
        return video + (answer * gate if block.video_cross_attn_adaln else answer), attended

    def _after_itself(
        self, video: Tensor, context: Mapping[str, Any], kept: Attended | None, skipped: bool
    ) -> tuple[Tensor, Attended | None]:
        """Self-attention. A function of its own, so that what it computes is gone before the text's turn where no compiler sees to that."""
        block = self.block
        shift, scale, gate = self.modulation(*self._rows(context), slice(3))
        normed = block.norm1(video) * (1 + scale) + shift
        fused: FusedAttention = block.attn1.processor
        query, key, value = fused.prepare(block.attn1, normed, None, context["video_rotary_emb"], None)
        if skipped:
            answer, attended = value, None
        elif self.kernel is None:
            answer, attended = fused.attend(block.attn1, query, key, value, None), None
        else:
            q, k, v = (part.view(*part.shape[:2], block.attn1.heads, -1) for part in (query, key, value))
            attended = kept or attend(q, k, v, self.kernel)
            answer = (attended[0] if kept is None else attend_kept(q, k, v, *kept, self.kernel)).flatten(2)
        return video + fused.finish(block.attn1, normed, answer) * gate, attended

    def _rows(self, context: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.block.scale_shift_table, context["temb"], context["levels"][0]


class AudioFirst(_Part):
    takes = (*_AUDIO, *_AUDIO_CROSS)

    def forward(
        self, audio: Tensor, context: Mapping[str, Any], tied: bool, skipped: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """audio [B, A, D]; the query that asks the picture, the keys and values that the picture asks, [B, A, D], unless not `tied`."""
        block = self.block
        of_audio = block.audio_scale_shift_table, context["temb_audio"], context["levels"][1]
        shift, scale, gate = self.modulation(*of_audio, slice(3))
        normed = block.audio_norm1(audio) * (1 + scale) + shift
        answer = block.audio_attn1(hidden_states=normed, query_rotary_emb=context["audio_rotary_emb"], all_perturbed=skipped)
        audio = audio + answer * gate
        normed = block.audio_norm2(audio)
        if block.audio_cross_attn_adaln:
            shift, scale, gate = self.modulation(*of_audio, slice(6, 9))
            normed = normed * (1 + scale) + shift
        text = self.text(context["audio_encoder_hidden_states"], "audio_prompt_scale_shift_table", context["temb_prompt_audio"])
        answer = block.audio_attn2(normed, encoder_hidden_states=text)
        audio = audio + (answer * gate if block.audio_cross_attn_adaln else answer)
        if not tied:
            return audio, None, None, None
        normed = block.video_to_audio_norm(audio)
        a2v_scale, a2v_shift, v2a_scale, v2a_shift = _audio_cross(self, context)
        table = context["ca_audio_rotary_emb"]
        fused: FusedAttention = block.video_to_audio_attn.processor
        query = fused.query(block.video_to_audio_attn, normed * (1 + v2a_scale) + v2a_shift, table)
        fused = block.audio_to_video_attn.processor
        key, value = fused.keys(block.audio_to_video_attn, normed * (1 + a2v_scale) + a2v_shift, table)
        return audio, query, key, value


class VideoToAudio(_Part):
    takes = _VIDEO_CROSS

    def forward(self, video: Tensor, query: Tensor, context: Mapping[str, Any]) -> Tensor:
        """What the sound's query [B, A, D] finds in the picture [B, T, C]: [B, A, D]."""
        block, attention = self.block, self.block.video_to_audio_attn
        scale, shift = _video_cross(self, context, _SECOND_PAIR)
        fused: FusedAttention = attention.processor
        key, value = fused.keys(attention, block.audio_to_video_norm(video) * (1 + scale) + shift, context["ca_video_rotary_emb"])
        return fused.attend(attention, query, key, value, None)


class AudioLast(_Part):
    takes = ("temb_audio", *_AUDIO_CROSS)

    def forward(self, audio: Tensor, answer: Tensor | None, context: Mapping[str, Any]) -> Tensor:
        """audio [B, A, D]. answer: what VideoToAudio found, None for sound alone."""
        block = self.block
        if answer is not None:
            scale, shift = _audio_cross(self, context, _SECOND_PAIR)
            (gate,) = self.modulation(block.audio_a2v_cross_attn_scale_shift_table[4:], context["temb_ca_audio_gate"], None)
            fused: FusedAttention = block.video_to_audio_attn.processor
            asked = block.video_to_audio_norm(audio) * (1 + scale) + shift
            audio = audio + gate * fused.finish(block.video_to_audio_attn, asked, answer)
        shift, scale, gate = self.modulation(block.audio_scale_shift_table, context["temb_audio"], context["levels"][1], slice(3, 6))
        answer = block.audio_ff(block.audio_norm3(audio) * (1 + scale) + shift)
        return audio + answer * gate


class VideoLast(_Part):
    takes = ("temb", *_VIDEO_CROSS)

    def forward(self, video: Tensor, key: Tensor | None, value: Tensor | None, context: Mapping[str, Any]) -> Tensor:
        """video [B, T, C]. key, value: of the sound, None for a picture alone."""
        block = self.block
        if key is not None and value is not None:
            video = self._after_sound(video, key, value, context)
        shift, scale, gate = self.modulation(block.scale_shift_table, context["temb"], context["levels"][0], slice(3, 6))
        answer: Tensor = block.ff(block.norm3(video) * (1 + scale) + shift)
        return video + answer * gate

    def _after_sound(self, video: Tensor, key: Tensor, value: Tensor, context: Mapping[str, Any]) -> Tensor:
        """A function of its own, so that what it computes is gone before the feed-forward."""
        block, attention = self.block, self.block.audio_to_video_attn
        scale, shift = _video_cross(self, context, _FIRST_PAIR)
        (gate,) = self.modulation(block.video_a2v_cross_attn_scale_shift_table[4:], context["temb_ca_gate"], None)
        fused: FusedAttention = attention.processor
        asking = block.audio_to_video_norm(video) * (1 + scale) + shift
        query = fused.query(attention, asking, context["ca_video_rotary_emb"])
        return video + gate * fused.finish(attention, asking, fused.attend(attention, query, key, value, None))


def _video_cross(part: _Part, context: Mapping[str, Any], rows: slice) -> tuple[Tensor, ...]:
    """Scale and shift of the picture as it asks the sound, then as it is asked."""
    table = part.block.video_a2v_cross_attn_scale_shift_table[:4]
    return part.modulation(table, context["temb_ca_scale_shift"], context["levels"][0], rows)


def _audio_cross(part: _Part, context: Mapping[str, Any], rows: slice = _ALL) -> tuple[Tensor, ...]:
    """Scale and shift of the sound as it is asked by the picture, then as it asks."""
    table = part.block.audio_a2v_cross_attn_scale_shift_table[:4]
    return part.modulation(table, context["temb_ca_audio_scale_shift"], context["levels"][1], rows)
