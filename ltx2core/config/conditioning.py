"""Keys of conditioning on parts of a clip, and the one that holds those of TREAD (tread.py)."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from ltx2core.config.keys import Keys, Later, key, later
from ltx2core.config.tread import TreadKeys

MASK_NAMES = Later(name="several kinds of masks", instead="a dataset's clips have the masks of its conditioning_data")


class GivenPartKeys(Keys):
    """An entry of ltx2_intrinsic_conditioning."""

    group: ClassVar[str] = "A given part"

    type: Literal["first_frame", "prefix", "suffix", "spatial_crop", "mask"] = key(
        ..., "Part", "first_frame; prefix or suffix: the first or last temporal_boundary latents; spatial_crop: spatial_region; mask."
    )
    probability: float = key(1.0, "How often", "The share of samples that it is given in.", ge=0, le=1)
    modality: Literal["video", "audio"] = key("video", "Of", "Whether it is a part of the picture or of the sound.")
    temporal_boundary: int = key(
        1, "Length", "Latents of a prefix or suffix: 8 frames each, the very first one frame; 25 a second in sound.", ge=1, le=100_000
    )
    spatial_region: tuple[int, int, int, int] | None = key(
        None, "Region", "y1, x1, y2, x2 of a spatial_crop in latent cells, which are 32 pixels; the end is not included."
    )
    mask_key: str | None = later(None, MASK_NAMES, "Mask", "The name of the masks to use.", built=("mask",))

    @model_validator(mode="after")
    def _region_is_one(self) -> Self:
        if self.type != "spatial_crop":
            return self
        if self.modality == "audio" or self.spatial_region is None:
            raise PydanticCustomError("no_region", "a spatial_crop of the picture has its spatial_region")
        top, left, bottom, right = self.spatial_region
        if not (0 <= top < bottom and 0 <= left < right):
            raise PydanticCustomError("no_region", "spatial_region is y1, x1, y2, x2 with y1 < y2 and x1 < x2")
        return self


class ConditioningKeys(Keys):
    """What the model is given beside the caption, and which tokens it computes."""

    group: ClassVar[str] = "Conditioning and TREAD"

    tread_config: TreadKeys | None = key(
        None,
        "TREAD",
        "Lets a share of the video tokens skip some blocks while training, for faster steps: its routes, or the JSON file that holds them. "
        "The LoRA is used without it, and learns less from a step.",
    )
    tread_share_of_steps: float = key(
        0.3,
        "TREAD's share of steps",
        "How much of the run, from its begin, is routed. The rest trains with every token, as the LoRA is used: routed to its end, a run "
        "learns less than in the same time without.",
        gt=0,
        le=1,
        switch="tread_config",
    )
    ltx2_intrinsic_conditioning: tuple[GivenPartKeys, ...] = key(
        (),
        "Given parts",
        "Parts of a clip that are given now and then instead of learned, as a list; each has a type, a probability and what that needs.",
    )
    ltx2_first_frame_conditioning_probability: float = key(
        0.0, "First frame", "How often the first frame is given, as image-to-video needs: 0.5 to train it, 0.1 to keep it.", ge=0, le=1
    )
    ltx2_prefix_conditioning_probability: float = key(0.0, "Prefix", "How often the first frames are given, to continue clips.", ge=0, le=1)
    ltx2_suffix_conditioning_probability: float = key(0.0, "Suffix", "How often the last frames are given.", ge=0, le=1)
    ltx2_mask_conditioning_probability: float = key(
        0.0, "Mask", "How often what a clip's mask shows in white is given, as inpainting needs; see conditioning_type.", ge=0, le=1
    )
    ltx2_prefix_conditioning_frames: int = key(
        1, "Prefix length", "Latent frames of the prefix: k are 8k - 7 frames of the clip.", ge=1, le=100_000
    )
    ltx2_suffix_conditioning_frames: int = key(1, "Suffix length", "Latent frames of the suffix: 8 frames each.", ge=1, le=100_000)
    ltx2_reference_spatial_scale_factor: int | None = key(
        None,
        "Reference size",
        "What part of the clip's size references are seen at: 2 halves it. Empty: 1, the same.",
        ge=1,
        le=16,
    )
    ltx2_reference_temporal_scale_factor: int = key(
        1, "Reference speed", "References are seen at this fraction of the clip's frame rate: 2 takes every second frame.", ge=1, le=16
    )
    ltx2_reference_conditioning_probability: float = key(
        1.0, "Reference", "How often clips are trained with their references; drawn for a whole batch.", ge=0, le=1
    )
