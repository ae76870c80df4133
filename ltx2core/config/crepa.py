"""Keys of CREPA: aligning the model's features over frames with those of an image encoder, or of a deeper block (training/crepa.py)."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from ltx2core.config.keys import Keys, Later, key, later

SELF_FLOW = Later(name="CREPA with the model at another noise level", instead="crepa_feature_source decides", switch="crepa_self_flow")
TINY_DECODER = Later(name="decoding pictures for CREPA", instead="features are made from the clips themselves, once")
_key = partial(key, switch="crepa_enabled")


class CrepaKeys(Keys):
    """Alignment of features over frames."""

    group: ClassVar[str] = "CREPA"

    crepa_enabled: bool = key(
        False,
        "CREPA",
        "Align the model's features of each frame with an image encoder's, of that frame and its neighbours: steadier motion.",
    )
    crepa_block_index: int = _key(8, "Block", "The block whose features are aligned, counted from 0; -1 is the last.")
    crepa_lambda: float = _key(0.5, "Weight", "How much alignment counts against the loss.", ge=0, le=1000)
    crepa_adjacent_distance: int = _key(1, "Neighbour distance", "How many latent frames apart neighbours are.", ge=1, le=100)
    crepa_adjacent_tau: float = _key(
        1.0, "Neighbour decay", "How slowly a neighbour's weight falls with distance d: exp(-d / tau).", gt=0, le=1000
    )
    crepa_cumulative_neighbors: bool = _key(False, "All neighbours", "Take all neighbours up to that distance, not only those at it.")
    crepa_feature_source: Literal["encoder", "backbone"] = _key(
        "encoder",
        "Feature source",
        "What features are aligned with. encoder: an image encoder's, made once and cached. backbone: the model's own, of a deeper block; "
        "needs no encoder and hardly any time.",
    )
    crepa_use_backbone_features: bool = _key(False, "Own features", "The same as crepa_feature_source backbone.")
    crepa_encoder: str = _key(
        "dinov2_vitg14",
        "Encoder",
        "The image encoder: dinov2_vits14, dinov2_vitb14, dinov2_vitl14 or dinov2_vitg14 from the hub's cache, or a folder with a DINOv2 "
        "model as transformers saves it.",
    )
    crepa_model: str | None = _key(None, "Encoder (old name)", "An older name of crepa_encoder.")
    crepa_encoder_image_size: int = _key(
        518, "Encoder size", "The side, in pixels, of a square with as many patches as frames have; their shape is kept.", ge=28, le=2048
    )
    crepa_encoder_frames_batch_size: int = _key(-1, "Encoder batch", "Frames encoded together. -1: 16.", ge=-1, le=1000)
    crepa_teacher_block_index: int | None = _key(
        None, "Teacher block", "The deeper block that backbone features come from, counted from 0. Empty: two thirds of the way."
    )
    crepa_normalize_by_frames: bool = _key(
        True, "Mean over frames", "Divide by the number of frames, so that long clips count as short ones."
    )
    crepa_normalize_neighbour_sum: bool = _key(
        False, "Mean over neighbours", "Divide by the sum of weights, so that similarity is at most 1; without, at most 1 + 2 / e."
    )
    crepa_spatial_align: bool = _key(
        True, "Match positions", "Compare features at the same place of the picture; otherwise frames as wholes."
    )
    crepa_scheduler: Literal["constant", "linear", "cosine", "polynomial"] = _key(
        "constant", "Weight over time", "How the weight changes after its warm-up."
    )
    crepa_warmup_steps: int = _key(0, "Warm-up", "Steps over which the weight rises from 0.", ge=0)
    crepa_decay_steps: int = _key(0, "Decay", "Steps over which the weight falls; 0: to the end of the run.", ge=0)
    crepa_lambda_end: float = _key(0.0, "Last weight", "Where a falling weight ends.", ge=0, le=1000)
    crepa_power: float = _key(1.0, "Decay power", "The bend of a polynomial fall.", gt=0, le=100)
    crepa_cutoff_step: int = _key(0, "Cut-off", "The step at which alignment ends, against washed-out pictures; 0 is never.", ge=0)
    crepa_similarity_threshold: float | None = _key(
        None, "Similarity limit", "The similarity, averaged over steps, at which alignment ends. Empty: none.", gt=0, le=3
    )
    crepa_similarity_ema_decay: float = _key(0.99, "Similarity average", "How slowly that average follows.", ge=0, lt=1)
    crepa_threshold_mode: Literal["permanent", "recoverable"] = _key(
        "permanent", "After the limit", "permanent: alignment has ended. recoverable: it comes back when similarity falls again."
    )
    crepa_drop_vae_encoder: bool = key(
        False, "Drop the VAE's encoder", "Nothing is left to drop: the encoder's half of the VAE is only in memory while clips are cached."
    )
    crepa_use_tae: bool = later(False, TINY_DECODER, "Tiny decoder", "Decode pictures with a small decoder.")
    crepa_self_flow: bool = later(False, SELF_FLOW, "Self flow", "Align with the model at another noise level.")
    crepa_self_flow_mask_ratio: float = later(0.1, SELF_FLOW, "Self flow mask", "Share of tokens at the other noise level.")

    @property
    def crepa_encoder_name(self) -> str | None:
        """The image encoder that is needed; None where none is."""
        if not self.crepa_enabled or self.crepa_from_backbone:
            return None
        return self.crepa_model or self.crepa_encoder

    @property
    def crepa_from_backbone(self) -> bool:
        return self.crepa_use_backbone_features or self.crepa_feature_source == "backbone"
