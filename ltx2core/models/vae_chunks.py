"""Runs diffusers' video VAE in pieces that give the values of the whole, so that its memory does not grow with the clip.

Two levers, for encoding and decoding, alone or together:

- patch_conv: layer by layer. Each residual block and resampler goes over its input a few frames at a time (its convolutions over a few
  rows, where one is large), and writes over its input where the shapes are equal. Whole activations stay, what is computed in between not.
- temporal_roll: the whole half at once. A few frames go in, and come out at the other end; no layer ever holds the clip.

Both rest on one thing: a convolution in time keeps the last frames that it has seen, which the next piece begins with, in place of the
repeated first frame that a clip begins with. One that looks ahead (the decoder of every release) holds as many frames back as it looks
ahead, and computes them again with what follows. Norms are per position, so nothing else crosses a piece's border.
"""

from __future__ import annotations

import contextlib
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import (
    LTX2VideoCausalConv3d,
    LTX2VideoDownsampler3d,
    LTX2VideoResnetBlock3d,
    LTX2VideoUpsampler3d,
)
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from diffusers import AutoencoderKLLTX2Video

WINDOW_BYTES = 128 << 20  # of the larger of a layer's input and output, in one piece: 8 frames of 704x1280 at full width in bf16
PATCH_BYTES = 32 << 20  # of the larger of a convolution's input and output, in one piece of rows
ENCODED_FRAMES, DECODED_LATENTS = 8, 4  # what temporal_roll puts in at a time


@contextlib.contextmanager
def chunked(vae: AutoencoderKLLTX2Video, *, patch_conv: bool, temporal_roll: bool) -> Iterator[None]:
    """Encode and decode in pieces inside the block, without gradients; the module is as before at its end.

    With a lever on, the encoder also takes uint8 pixels.
    Raises ValueError for a VAE that injects noise, or convolves in another way than the released ones.
    """
    with contextlib.ExitStack() as undo, torch.no_grad():
        if patch_conv or temporal_roll:
            for half, feed in ((vae.encoder, ENCODED_FRAMES), (vae.decoder, DECODED_LATENTS)):
                if half is not None:  # one is left out when the other was loaded alone
                    _Half(half, feed=feed, rolled=temporal_roll, patched=patch_conv).install(undo)
        yield


def unit_range(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Pixels [B, 3, F, H, W], 0..255, as -1..1, computed in float32; a few frames at a time, since a clip in float32 is large."""
    result = torch.empty(pixels.shape, dtype=dtype, device=pixels.device)
    for begin in range(0, pixels.shape[2], ENCODED_FRAMES):
        result[:, :, begin : begin + ENCODED_FRAMES] = pixels[:, :, begin : begin + ENCODED_FRAMES].float() / 127.5 - 1
    return result


class _Nothing(Exception):  # noqa: N818 (not an error: it ends a round early)
    """The last layer has no frame to give yet."""


class _Flow:
    """What the layers of a half tell each other while a piece goes through them, in the order of their execution."""

    final = False  # no frame follows those that the next layer is given
    begins = 0  # the first layer that works in this round


class _Half:
    """An encoder or a decoder whose layers have become stages."""

    def __init__(self, half: nn.Module, *, feed: int, rolled: bool, patched: bool) -> None:
        self._half, self._feed, self._rolled, self._flow = half, feed, rolled, _Flow()
        layers = [module for module in half.modules() if isinstance(module, (LTX2VideoResnetBlock3d, *_RESAMPLERS))]
        ends = [half.conv_out] if rolled else [half.norm_out, half.conv_act, half.conv_out]
        order = enumerate((half.conv_in, *layers, *ends))  # of their execution
        self._stages = [_Stage(module, self._flow, place=place, rolled=rolled, patched=patched) for place, module in order]
        self._stages[-1].ends = rolled
        owned = {id(conv) for stage in self._stages for conv in stage.convs}
        if any(id(module) not in owned for module in half.modules() if isinstance(module, LTX2VideoCausalConv3d)):
            raise ValueError("a convolution that is in no known layer cannot be computed in pieces")

    def install(self, undo: contextlib.ExitStack) -> None:
        original, dtype = self._half.forward, next(self._half.parameters()).dtype

        def forward(x: Tensor, temb: Tensor | None = None, causal: bool | None = None) -> Tensor:
            x = unit_range(x, dtype) if x.dtype == torch.uint8 else x
            result: Tensor = original(x, causal=causal) if temb is None else original(x, temb, causal=causal)
            return result

        _replace(undo, self._half, partial(self._roll, forward) if self._rolled else forward)
        for stage in self._stages:
            stage.install(undo)

    def _roll(self, original: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The half's output for x, [B, C, F, H, W], of which a few frames go through all layers at a time."""
        flow = self._flow
        for stage in self._stages:
            stage.reset()
        whole: Tensor | None = None
        given, made, total = 0, 0, x.shape[2]
        for stage in self._stages:
            total = stage.frames_out(total)
        while made < total:
            # Layers before the last one that can go on wait for it: they would only fill it up.
            ready = [stage.place for stage in self._stages if stage.ready]
            flow.begins = max(ready, default=0)
            # Of a clip's frames the first is a latent of its own, so that a piece after it is a whole number of latents.
            count = 0 if ready else self._feed + (given == 0)
            piece = x[:, :, given : given + count]
            given += piece.shape[2]
            flow.final = given == x.shape[2]
            with contextlib.suppress(_Nothing):
                part = original(piece, *args, **kwargs)
                whole = part.new_empty(*part.shape[:2], total, *part.shape[3:]) if whole is None else whole
                whole[:, :, made : made + part.shape[2]] = part
                made += part.shape[2]
                del part  # or it would be held while the next piece is computed
        for stage in self._stages:
            stage.reset()
        assert whole is not None
        return whole


class _Stage:
    """A layer that is given a clip in pieces: a residual block, a resampler, a convolution, or something of single positions."""

    def __init__(self, module: nn.Module, flow: _Flow, *, place: int, rolled: bool, patched: bool) -> None:
        if getattr(module, "per_channel_scale1", None) is not None:
            raise ValueError("a VAE that injects noise cannot be computed in pieces: each would get another noise")
        self._module, self._flow, self.place, self._rolled, self._patched = module, flow, place, rolled, patched
        self._original: Callable[..., Tensor] = module.forward
        self.convs = [part for part in module.modules() if isinstance(part, LTX2VideoCausalConv3d)]
        if any(conv.conv.stride != (1, 1, 1) or conv.conv.dilation != (1, 1, 1) for conv in self.convs):
            raise ValueError("a convolution with a stride or a dilation cannot be computed in pieces")
        self._down = module.stride if isinstance(module, LTX2VideoDownsampler3d) else (1, 1, 1)
        self._up = module.stride if isinstance(module, LTX2VideoUpsampler3d) else (1, 1, 1)
        self.ends = False  # whether nothing follows it, so that a round without a frame from it is over
        self.reset()

    def reset(self) -> None:
        self._seen: dict[int, Tensor] = {}  # by convolution, the last frames of its input
        self._pending: Tensor | None = None
        self._begun = self._done = False
        self.ready = False  # whether it can go on without being given more
        self._lead = self._held = 0  # frames of a convolution's input: put before it to be cut off, and computed again later

    def install(self, undo: contextlib.ExitStack) -> None:
        _replace(undo, self._module, self._roll if self._rolled else self._whole)
        for conv in self.convs:
            in_pieces = partial(self._convolve, conv)
            if conv is self._module:
                self._original = in_pieces
            else:
                _replace(undo, conv, in_pieces)

    def frames_out(self, frames: int) -> int:
        """How many frames it makes of a clip's first `frames`. Raises ValueError where a stride in time does not divide them."""
        if (frames - 1) % self._down[0]:
            raise ValueError(f"{frames} frames cannot be divided by a stride of {self._down[0]}")
        return ((frames - 1) // self._down[0] + 1) * self._up[0] - (self._up[0] - 1)

    def _roll(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """What can be made now: one window of what is pending. [B, C, 0, H, W] when that is nothing."""
        if self.place < self._flow.begins:
            self._flow.final = self._done
            return self._no_frames(x)
        if self._pending is not None:
            x = torch.cat([self._pending, x], dim=2) if x.shape[2] else self._pending
        final = self._flow.final
        part, taken = self._step(x, final, args, kwargs)
        rest = x[:, :, taken:]
        self._pending = rest.clone() if rest.shape[2] else None
        self._flow.final = self._done = final and not rest.shape[2]
        self.ready = self._window(rest, final, causal=kwargs.get("causal", True))[0] > 0
        if part is not None:
            return part
        if self.ends:
            raise _Nothing
        return self._no_frames(x)

    def _whole(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The layer's whole output. It lies in x where it has that shape, except for the first layer: its input is the caller's."""
        self.reset()
        result: Tensor | None = None
        position, made, total = 0, 0, self.frames_out(x.shape[2])
        while position < x.shape[2]:
            part, taken = self._step(x[:, :, position:], True, args, kwargs)
            assert part is not None
            if result is None:
                shape = (*part.shape[:2], total, *part.shape[3:])
                reuse = shape == tuple(x.shape) and self._module not in self.convs
                result = part if shape == tuple(part.shape) else x if reuse else part.new_empty(shape)
            if result is not part:
                result[:, :, made : made + part.shape[2]] = part
            position, made = position + taken, made + part.shape[2]
            del part  # or it would be held while the next window is computed
        self.reset()
        assert result is not None
        return result

    def _step(self, x: Tensor, final: bool, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor | None, int]:
        """(what follows from the first window of x, or None, and how many frames of x are done with)."""
        count, self._held = self._window(x, final, causal=kwargs.get("causal", True))
        if not count:
            return None, 0
        taken = count - self._held
        window = x[:, :, :count]
        if not self._begun:
            self._begun = True
            return self._original(window, *args, **kwargs)[:, :, : self.frames_out(taken)], taken
        if self._down[0] == self._up[0] == 1:
            return self._original(window, *args, **kwargs)[:, :, :taken], taken
        # A resampler treats a clip's first frame alone: it doubles it going down, and halves what became of it going up. So a window
        # that does not begin the clip is given one frame more for that, which its convolution leaves out and whose output is cut off.
        self._lead = self._down[0] if self._down[0] > 1 else 1
        part = self._original(torch.cat([window[:, :, :1], window], dim=2), *args, **kwargs)
        self._lead = 0
        return part[:, :, 1 : 1 + taken // self._down[0] * self._up[0]], taken

    def _window(self, x: Tensor, final: bool, *, causal: bool) -> tuple[int, int]:
        """(how many frames of x to run on now, how many of them to hold back); (0, 0) when nothing can be made of x."""
        length, stride = x.shape[2], self._down[0]
        lag = 0 if causal else sum((conv.kernel_size[0] - 1) // 2 for conv in self.convs)
        if lag and stride > 1:
            raise ValueError("an encoder that looks ahead cannot be computed in pieces")
        widest = max([x.shape[1], *(conv.out_channels for conv in self.convs)])
        frame_bytes = x.shape[0] * widest * x.shape[3] * x.shape[4] * x.element_size()
        count = min(length, max(WINDOW_BYTES // frame_bytes, stride) + lag)
        if stride > 1:
            alone = 0 if self._begun else 1
            count = max((count - alone) // stride * stride + alone, 0)
        held = 0 if final and count == length else lag
        return (count, held) if count > held else (0, 0)

    def _no_frames(self, x: Tensor) -> Tensor:
        """Its output for no frames: [B, C, 0, H, W]."""
        channels = self.convs[-1].out_channels * math.prod(self._down) // math.prod(self._up)
        height, width = (x.shape[3 + i] // self._down[1 + i] * self._up[1 + i] for i in (0, 1))
        return x.new_empty(x.shape[0], channels, 0, height, width)

    def _convolve(self, conv: LTX2VideoCausalConv3d, x: Tensor, causal: bool = True) -> Tensor:
        """The convolution of frames that follow those of its last call."""
        reach = conv.kernel_size[0] - 1
        front, back = (reach, 0) if causal else (reach // 2, reach // 2)
        x = x[:, :, self._lead :]
        before = self._seen.get(id(conv))
        before = x[:, :, :1].expand(-1, -1, front, -1, -1) if before is None else before
        after = [x[:, :, -1:].expand(-1, -1, back, -1, -1)] if back else []
        padded = torch.cat([before, x, *after], dim=2)
        taken = x.shape[2] - self._held
        self._seen[id(conv)] = padded[:, :, taken : taken + front].clone()
        result = _by_rows(conv.conv, padded) if self._patched else conv.conv(padded)
        return torch.cat([result[:, :, :1]] * self._lead + [result], dim=2) if self._lead else result


_RESAMPLERS = (LTX2VideoDownsampler3d, LTX2VideoUpsampler3d)


def _by_rows(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """A convolution, a few rows at a time where its input or output is large."""
    kernel, above, aside = conv.kernel_size[1], int(conv.padding[1]), int(conv.padding[2])
    height = x.shape[3]
    row_bytes = x.shape[0] * max(conv.in_channels, conv.out_channels) * x.shape[2] * x.shape[4] * x.element_size()
    step = max(PATCH_BYTES // row_bytes, 2 * kernel)
    if step >= height:
        result: Tensor = conv(x)
        return result
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    whole: Tensor | None = None
    for top in range(0, height, step):
        bottom = min(top + step, height)
        first, last = max(top - above, 0), min(bottom + above, height)
        patch = nn.functional.pad(x[:, :, :, first:last], (aside, aside, above - (top - first), above - (last - bottom), 0, 0), mode=mode)
        part = nn.functional.conv3d(patch, conv.weight, conv.bias, groups=conv.groups)
        whole = part.new_empty(*part.shape[:3], height, part.shape[4]) if whole is None else whole
        whole[:, :, :, top:bottom] = part
    assert whole is not None
    return whole


def _replace(undo: contextlib.ExitStack, module: nn.Module, forward: Callable[..., Tensor]) -> None:
    """Give a module another forward until `undo` is closed."""
    own = vars(module).get("forward")
    module.forward = forward

    def restore() -> None:
        if own is None:
            del module.forward
        else:
            module.forward = own

    undo.callback(restore)
