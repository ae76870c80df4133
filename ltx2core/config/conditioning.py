"""Keys of conditioning on parts of a clip, and of TREAD, which routes tokens around blocks."""

from __future__ import annotations

from typing import ClassVar

from pydantic import JsonValue

from ltx2core.config.keys import Keys, Later, later

CONDITIONING = Later(
    name="training with given frames, masks or reference clips", instead="every frame of a clip is learned from its caption"
)
TREAD = Later(name="TREAD", instead="every token goes through every block")


class ConditioningKeys(Keys):
    """What the model is given beside the caption, and which tokens it computes."""

    group: ClassVar[str] = "Conditioning and TREAD"

    tread_config: JsonValue = later(None, TREAD, "TREAD routes", "Routes that let some tokens skip some blocks: faster steps.")
    ltx2_intrinsic_conditioning: JsonValue = later(None, CONDITIONING, "Given parts", "Parts of a clip that are given, as a list.")
    ltx2_first_frame_conditioning_probability: float = later(
        0.0, CONDITIONING, "First frame", "How often the first frame is given, as image-to-video needs.", ge=0, le=1
    )
    ltx2_prefix_conditioning_probability: float = later(0.0, CONDITIONING, "Prefix", "How often the first frames are given.", ge=0, le=1)
    ltx2_suffix_conditioning_probability: float = later(0.0, CONDITIONING, "Suffix", "How often the last frames are given.", ge=0, le=1)
    ltx2_mask_conditioning_probability: float = later(0.0, CONDITIONING, "Mask", "How often what a mask shows is given.", ge=0, le=1)
    ltx2_prefix_conditioning_frames: int = later(1, CONDITIONING, "Prefix length", "Latent frames of the prefix.", ge=1)
    ltx2_suffix_conditioning_frames: int = later(1, CONDITIONING, "Suffix length", "Latent frames of the suffix.", ge=1)
    ltx2_reference_spatial_scale_factor: float | None = later(None, CONDITIONING, "Reference size", "How much smaller references are.")
    ltx2_reference_temporal_scale_factor: float = later(1.0, CONDITIONING, "Reference speed", "How many fewer frames references have.")
