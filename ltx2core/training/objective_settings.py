"""What the objective needs of the config: how noise levels are drawn, which parts of a clip are given, which tokens skip blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.caching.passes import References
from ltx2core.training.conditions import GivenPart
from ltx2core.training.crepa import CrepaSettings, WeightSchedule
from ltx2core.training.penalty import Penalty
from ltx2core.training.rollout import ReflexFlow, Rollouts
from ltx2core.training.sigma import (
    BetaDraw,
    CurveDraw,
    FixedLevels,
    LevelsInTurn,
    MixFlowDraw,
    ShiftedLogitNormal,
    StaticShift,
    UniformDraw,
)
from ltx2core.training.tread import Route

if TYPE_CHECKING:
    from ltx2core.config.train import TrainConfig
    from ltx2core.training.sigma import SigmaSampler


def sigma_sampler(config: TrainConfig) -> SigmaSampler:
    """The first that is asked for: a list of levels, the fast schedule, MixFlow, a curve, uniform, beta, a fixed shift; else the
    official sampler. config/adjust.py names what is asked for and not read, in the same order."""
    shift = config.flow_schedule_shift
    if config.flow_custom_timesteps:
        levels = tuple(level if level <= 1 else level / 1000 for level in config.flow_custom_timesteps)
        return LevelsInTurn(levels=levels) if config.flow_timesteps_mode == "round-robin" else FixedLevels(levels=levels)
    if config.flux_fast_schedule:
        return FixedLevels(levels=(1.0,) * 7 + (0.75, 0.5, 0.25))
    if config.mixflow_enabled:
        return MixFlowDraw(gamma=config.mixflow_gamma, shift=shift or 1.0)
    if config.flow_cubic_schedule_weights:
        return CurveDraw(heights=tuple(config.flow_cubic_schedule_weights), shift=shift or 1.0)
    if config.flow_use_uniform_schedule:
        return UniformDraw(shift=shift or 1.0)
    if config.flow_use_beta_schedule:
        return BetaDraw(alpha=config.flow_beta_schedule_alpha, beta=config.flow_beta_schedule_beta, shift=shift or 1.0)
    if shift:
        return StaticShift(shift=shift, scale=config.flow_sigmoid_scale)
    return ShiftedLogitNormal(std=config.flow_sigmoid_scale, most_tokens=config.flow_shift_max_tokens)


def rollouts_of(config: TrainConfig) -> Rollouts | None:
    """How batches are rolled out; None where they never are."""
    if not config.scheduled_sampling_max_step_offset or not config.rollout_probability:
        return None
    reflexflow = ReflexFlow(
        alpha=config.scheduled_sampling_reflexflow_alpha,
        beta1=config.scheduled_sampling_reflexflow_beta1,
        beta2=config.scheduled_sampling_reflexflow_beta2,
    )
    return Rollouts(
        most_steps=config.scheduled_sampling_max_step_offset,
        step_size=config.scheduled_sampling_step_size,
        strategy=config.scheduled_sampling_strategy,
        probability=config.scheduled_sampling_probability,
        first=config.scheduled_sampling_prob_start,
        last=config.scheduled_sampling_prob_end,
        ramp_steps=config.scheduled_sampling_ramp_steps,
        ramp=config.scheduled_sampling_ramp_shape,
        start_step=config.scheduled_sampling_start_step,
        reflexflow=reflexflow if config.scheduled_sampling_reflexflow else None,
    )


def crepa_of(config: TrainConfig, *, total_steps: int, width: int | None) -> CrepaSettings | None:
    """What features are aligned with; None where none are. width: of the image encoder's features, None in backbone mode."""
    if not config.crepa_enabled:
        return None
    return CrepaSettings(
        width=width,
        block=config.crepa_block_index,
        teacher=config.crepa_teacher_block_index,
        weight=WeightSchedule(
            peak=config.crepa_lambda,
            shape=config.crepa_scheduler,
            warmup=config.crepa_warmup_steps,
            decay=config.crepa_decay_steps or max(1, total_steps - config.crepa_warmup_steps),
            end=config.crepa_lambda_end,
            power=config.crepa_power,
            cutoff=config.crepa_cutoff_step,
        ),
        distance=config.crepa_adjacent_distance,
        tau=config.crepa_adjacent_tau,
        cumulative=config.crepa_cumulative_neighbors,
        mean_frames=config.crepa_normalize_by_frames,
        mean_neighbours=config.crepa_normalize_neighbour_sum,
        spatial=config.crepa_spatial_align,
        threshold=config.crepa_similarity_threshold,
        average_decay=config.crepa_similarity_ema_decay,
        permanent=config.crepa_threshold_mode == "permanent",
    )


def penalty_of(config: TrainConfig) -> Penalty:
    """How errors are punished while training."""
    return Penalty(shape=config.loss_type, width=config.huber_c, schedule=config.huber_schedule, snr_gamma=config.snr_gamma)


def given_parts(config: TrainConfig) -> tuple[GivenPart, ...]:
    """The parts that are given now and then, the keys with a name of their own first."""
    named = (
        GivenPart(kind="first_frame", probability=config.ltx2_first_frame_conditioning_probability),
        GivenPart(kind="prefix", probability=config.ltx2_prefix_conditioning_probability, length=config.ltx2_prefix_conditioning_frames),
        GivenPart(kind="suffix", probability=config.ltx2_suffix_conditioning_probability, length=config.ltx2_suffix_conditioning_frames),
        GivenPart(kind="mask", probability=config.ltx2_mask_conditioning_probability),
    )
    listed = (
        GivenPart(
            kind=entry.type,
            probability=entry.probability,
            modality=entry.modality,
            length=entry.temporal_boundary,
            region=entry.spatial_region,
        )
        for entry in config.ltx2_intrinsic_conditioning
    )
    return tuple(part for part in (*named, *listed) if part.probability > 0)


def tread_routes(config: TrainConfig) -> tuple[Route, ...]:
    """The routes of TREAD as they are written: `resolve` knows their blocks."""
    routes = () if config.tread_config is None else config.tread_config.routes
    return tuple(Route(ratio=route.selection_ratio, start=route.start_layer_idx, end=route.end_layer_idx) for route in routes)


def references(config: TrainConfig) -> References:
    """How reference clips are seen."""
    return References(
        smaller=config.ltx2_reference_spatial_scale_factor or 1,
        slower=config.ltx2_reference_temporal_scale_factor,
    )
