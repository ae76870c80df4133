"""Where tokens are in time and space, and the rotary tables made of it, computed once for each shape and frame rate.

diffusers' model computes four tables in every forward from the positions that it is given. `Positions` stands for them by what they
follow from, so that a table is known again without reading anything back from the device.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from diffusers.models.transformers.transformer_ltx2 import LTX2AudioVideoRotaryPosEmbed
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import LTX2VideoTransformer3DModel

_KEPT_BYTES = 128 * 1024 * 1024
Table = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Positions:
    """Positions of the tokens of a batch: the model takes it where it takes their tensor.

    grid: latent frames, rows and columns of video, or (steps,) of sound. rates: of each sample, frames a second; of sound, which is in
    seconds anyway, 1. alone: the other modality is not there. in_time: seconds only, which is what video and sound meet by.
    """

    grid: tuple[int, int, int] | tuple[int]
    rates: tuple[float, ...]
    alone: bool = False
    in_time: bool = False

    def __getitem__(self, _cut: object) -> Positions | None:
        """The time axis, which the model cuts out with `coords[:, 0:1, :]`; None where there is nothing to meet."""
        return None if self.alone else replace(self, in_time=True)

    def distinct(self) -> Positions:
        """What decides the table: one sample where all have one rate, whether alone or not."""
        rates = self.rates[:1] if len(set(self.rates)) == 1 else self.rates
        return Positions(self.grid, rates, in_time=self.in_time)


def video_positions(transformer: LTX2VideoTransformer3DModel, grid: tuple[int, int, int], fps: Tensor) -> Tensor:
    """[B, 3, L, 2]: start and end of every token: time in seconds by its own sample's fps [B], height and width in pixels."""
    return _video_positions(transformer.rope, grid, fps)


def audio_positions(transformer: LTX2VideoTransformer3DModel, steps: int, *, device: torch.device | str = "cpu") -> Tensor:
    """[1, 1, La, 2]: start and end of every audio token in seconds."""
    return _audio_positions(transformer.audio_rope, steps, torch.device(device))


def keep_tables(transformer: LTX2VideoTransformer3DModel) -> None:
    """Make the transformer's rope modules take `Positions`, and keep what they answer to them. Tensors go through as before."""
    for rope, source in (
        (transformer.rope, transformer.rope),
        (transformer.audio_rope, transformer.audio_rope),
        (transformer.cross_attn_rope, transformer.rope),
        (transformer.cross_attn_audio_rope, transformer.audio_rope),
    ):
        # By class: a function put in the place of `forward` would tie the model into a cycle, and 35 GiB of weights would stay on
        # the device until the garbage collector comes by.
        rope.__class__ = _KeepingRope
        rope.kept = OrderedDict()
        rope.sources = [] if source is rope else [source]


class _KeepingRope(LTX2AudioVideoRotaryPosEmbed):  # type: ignore[misc]
    """A rope module that knows a table again.

    The newest table is needed until the end of the step anyway; older ones stay as long as all together are within 128 MiB (a table of
    the 19B takes 16 KiB a video token).
    """

    kept: OrderedDict[tuple[Positions, torch.device], Table]
    sources: list[LTX2AudioVideoRotaryPosEmbed]  # whose positions these are, if not its own; in a list, it is no second submodule

    def forward(self, coords: Tensor | Positions | None, device: torch.device | str | None = None) -> Table | None:
        if coords is None:
            return None
        if isinstance(coords, Tensor):
            computed: Table = super().forward(coords, device=device)
            return computed
        key = coords.distinct(), torch.device(device or "cpu")
        if key not in self.kept:
            # Not as an inference tensor, which a later step could not train through.
            with torch.inference_mode(False), torch.no_grad():
                self.kept[key] = super().forward(self._positions(*key), device=key[1])
            while len(self.kept) > 1 and sum(part.nbytes for table in self.kept.values() for part in table) > _KEPT_BYTES:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        cos, sin = self.kept[key]
        if len(key[0].rates) == len(coords.rates):
            return cos, sin
        return cos.expand(len(coords.rates), *cos.shape[1:]), sin.expand(len(coords.rates), *sin.shape[1:])

    def _positions(self, positions: Positions, device: torch.device) -> Tensor:
        source = self.sources[0] if self.sources else self
        if len(positions.grid) == 3:
            found = _video_positions(source, positions.grid, torch.tensor(positions.rates, device=device))
        else:
            found = _audio_positions(source, *positions.grid, device)
        return found[:, :1] if positions.in_time else found


def _video_positions(rope: LTX2AudioVideoRotaryPosEmbed, grid: tuple[int, int, int], fps: Tensor) -> Tensor:
    positions: Tensor = rope.prepare_video_coords(fps.shape[0], *grid, fps.device, fps=1.0)
    positions = positions.float().clone()  # the clone: diffusers hands out an expanded view
    positions[:, 0] /= fps.float()[:, None, None]
    return positions


def _audio_positions(rope: LTX2AudioVideoRotaryPosEmbed, steps: int, device: torch.device) -> Tensor:
    positions: Tensor = rope.prepare_audio_coords(1, steps, device)
    return positions
