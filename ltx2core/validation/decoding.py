"""Decodes samples beside a model that fills the card: at once, else in parts, else with the model's weights out of the way, else in
tiles.

Training takes the memory that there is, so what a decoder needs is seldom left, and an error there would end a run for the sake of a
picture. What has worked is what the next sample begins with. A way that needs more than is free is not tried while there are others: what
it would take before it fails is memory that a run says it has needed.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

import torch

from ltx2core.errors import DoesNotFit, RunError
from ltx2core.hardware.device_memory import free_device_memory
from ltx2core.hardware.free_memory import free_memory
from ltx2core.planning.clips import SPATIAL, TEMPORAL, ClipShape
from ltx2core.planning.job import Version
from ltx2core.planning.vae_sizes import decoder_bytes
from ltx2core.validation.decode_ways import DecodeWay, decode_ways, in_any_case
from ltx2core.validation.media import decode

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.models.vae_levers import VaeLevers
    from ltx2core.validation.media import Media
    from ltx2core.validation.sampling import SampledLatents


@dataclass(kw_only=True)
class SampleDecoder:
    """Decodes each sample in the first way that fits. lend: inside it, the model's weights are away from the card; it raises DoesNotFit
    where RAM has no room for them. None: no model is there.

    tell: is given a sentence when a way has not fitted and the next is taken.
    """

    checkpoint: Checkpoint
    device: torch.device
    dtype: torch.dtype
    levers: VaeLevers
    lend: Callable[[], AbstractContextManager[None]] | None
    tell: Callable[[str], None]
    _ways: list[DecodeWay] = field(init=False)  # those that have not failed yet, and the last one
    _untried: list[DecodeWay] = field(default_factory=list)  # for what they would need; beside the weights
    _no_ram: DoesNotFit | None = None  # why the weights cannot leave the card

    def __post_init__(self) -> None:
        self._ways = [way for way in decode_ways(self.levers) if self.lend is not None or not way.alone]

    def __call__(self, latents: SampledLatents) -> Media:
        """The decoded sample. Raises RunError when it fits in no way."""
        free_memory(self.device)  # drawing leaves pieces that are too small for a decoder: up to 4 GiB idle on H100s
        while True:
            way, rest = self._ways[0], self._ways[1:]
            less = [other for other in rest if other.levers != way.levers] if way.alone else rest  # beside the weights it fits even less
            stuck = self._no_ram is not None
            media = self._attempt(latents, way, must=stuck or in_any_case(way, less))
            if media is not None:
                return media
            free_memory(self.device)  # outside the handlers: their tracebacks would keep the decoder's tensors alive
            rest = less
            if self._no_ram is not None and not stuck:  # the least of what was passed over is tried now, whatever it needs
                rest = [*self._untried[-1:], *(other for other in self._ways[1:] if not other.alone)]
            if not rest:
                raise self._in_no_way()
            self._ways = rest
            because = "" if self._no_ram is None else f" {self._no_ram.text}"
            self.tell(f"Decoding a sample needs more than the GPU has free: {rest[0].words(self.levers)} from now on.{because}")

    def _attempt(self, latents: SampledLatents, way: DecodeWay, *, must: bool) -> Media | None:
        """None: it did not fit on the card, or the weights could not leave it. must: whether it is tried in any case."""
        if not must and not self._has_room(latents, way):
            self._untried.append(way)
            return None
        with contextlib.ExitStack() as room:
            if way.alone and self.lend is not None:
                try:
                    room.enter_context(self.lend())
                except DoesNotFit as error:
                    self._no_ram = error
                    return None
            try:
                return decode(self.checkpoint, latents, device=self.device, dtype=self.dtype, levers=way.levers)
            except (torch.OutOfMemoryError, DoesNotFit):  # the latter before the decoder's own weights are loaded
                return None

    def _has_room(self, latents: SampledLatents, way: DecodeWay) -> bool:
        free, version = self._free_bytes(), self.checkpoint.version[:3]
        if latents.video is None or free is None or version not in get_args(Version):
            return True
        frames, height, width = latents.video.shape[2:]
        clip = ClipShape(width=width * SPATIAL, height=height * SPATIAL, frames=(frames - 1) * TEMPORAL + 1)
        return decoder_bytes(version, clip, way.levers) <= free  # type: ignore[arg-type, unused-ignore]

    def _free_bytes(self) -> int | None:
        """Of the card; None without one, whose memory ends otherwise."""
        return free_device_memory(self.device) if self.device.type == "cuda" else None

    def _in_no_way(self) -> RunError:
        fix = "Lower validation_resolution or validation_num_video_frames"
        if self._no_ram is None:
            alone = "" if self.lend is None else " and with the transformer's weights in RAM"
            return RunError(f"Its decoder does not fit on the GPU, even in tiles{alone}.", fix=f"{fix}.")
        return RunError(
            f"Its decoder does not fit on the GPU beside the transformer, even in tiles. {self._no_ram.text}",
            fix=f"{fix}. {self._no_ram.fix}",
        )
