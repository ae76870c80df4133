"""Keys of CREPA: aligning the model's features over frames with those of an image encoder."""

from __future__ import annotations

from typing import ClassVar

from ltx2core.config.keys import Keys, Later, later

CREPA = Later(name="CREPA", instead="the plain loss is trained, without alignment", switch="crepa_enabled")


class CrepaKeys(Keys):
    """Alignment with an image encoder."""

    group: ClassVar[str] = "CREPA"

    crepa_enabled: bool = later(False, CREPA, "CREPA", "Align features of neighbouring frames with an image encoder: steadier motion.")
    crepa_block_index: int = later(8, CREPA, "Block", "The block whose features are aligned.")
    crepa_lambda: float = later(0.5, CREPA, "Weight", "How much alignment counts against the loss.")
    crepa_adjacent_distance: int = later(1, CREPA, "Neighbour distance", "How many frames apart neighbours are.")
    crepa_adjacent_tau: float = later(1.0, CREPA, "Neighbour decay", "How fast the weight of neighbours falls with distance.")
    crepa_cumulative_neighbors: bool = later(False, CREPA, "All neighbours", "Use all neighbours up to that distance.")
    crepa_encoder: str = later("dinov2_vitg14", CREPA, "Encoder", "The image encoder.")
    crepa_encoder_image_size: int = later(518, CREPA, "Encoder size", "The picture size the encoder sees.")
    crepa_model: str | None = later(None, CREPA, "Encoder (old name)", "An older name of crepa_encoder.")
    crepa_encoder_frames_batch_size: int = later(-1, CREPA, "Encoder batch", "Frames encoded together; -1 is all.")
    crepa_normalize_by_frames: bool = later(True, CREPA, "Mean over frames", "Divide by the number of frames.")
    crepa_normalize_neighbour_sum: bool = later(False, CREPA, "Mean over neighbours", "Divide by the weights of neighbours.")
    crepa_spatial_align: bool = later(True, CREPA, "Match positions", "Compare features at the same place of the picture.")
    crepa_use_tae: bool = later(False, CREPA, "Tiny decoder", "Decode pictures with a small decoder.")
    crepa_drop_vae_encoder: bool = later(False, CREPA, "Drop the VAE's encoder", "Free the half of the VAE that is not needed.")
    crepa_use_backbone_features: bool = later(False, CREPA, "Own features", "Align with the model's own later features.")
    crepa_feature_source: str = later("encoder", CREPA, "Feature source", "What features are aligned with.")
    crepa_self_flow: bool = later(False, CREPA, "Self flow", "Align with the model at another noise level.")
    crepa_self_flow_mask_ratio: float = later(0.1, CREPA, "Self flow mask", "Share of tokens at the other noise level.")
    crepa_teacher_block_index: int | None = later(None, CREPA, "Teacher block", "The later block that is aligned with.")
    crepa_scheduler: str = later("constant", CREPA, "Weight over time", "How the weight changes over the run.")
    crepa_warmup_steps: int = later(0, CREPA, "Warm-up", "Steps over which the weight rises.")
    crepa_decay_steps: int = later(0, CREPA, "Decay", "Steps over which the weight falls; 0 is the whole run.")
    crepa_lambda_end: float = later(0.0, CREPA, "Last weight", "Where the weight ends.")
    crepa_power: float = later(1.0, CREPA, "Decay power", "The bend of a polynomial decay.")
    crepa_cutoff_step: int = later(0, CREPA, "Cut-off", "The step at which alignment ends; 0 is never.")
    crepa_similarity_threshold: float | None = later(None, CREPA, "Similarity limit", "The similarity at which alignment ends.")
    crepa_similarity_ema_decay: float = later(0.99, CREPA, "Similarity average", "How slowly the measured similarity follows.")
    crepa_threshold_mode: str = later("permanent", CREPA, "After the limit", "Whether alignment may come back.")
