"""Keys of scheduled sampling: training on states that the model itself reached (training/rollout.py)."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from ltx2core.config.keys import Keys, key

_key = partial(key, switch="scheduled_sampling_max_step_offset")


class RolloutKeys(Keys):
    """Training on the model's own states."""

    group: ClassVar[str] = "Scheduled sampling"

    scheduled_sampling_max_step_offset: int = key(
        0,
        "Longest rollout",
        "How many steps, at most, the model goes by itself before a batch is learned from: against errors that add up over sampling. Each "
        "is a forward more. 0 is off.",
        ge=0,
        le=100,
    )
    scheduled_sampling_step_size: float = _key(
        0.05,
        "Step of a rollout",
        "How far the noise level, 0 to 1, moves in a step of a rollout. 0.05 is what 20 even steps of a sample do.",
        gt=0,
        le=1,
    )
    scheduled_sampling_strategy: Literal["uniform", "biased_early", "biased_late"] = _key(
        "uniform", "Strategy", "How the length of a rollout is drawn: all alike, short ones more often, or long ones."
    )
    scheduled_sampling_probability: float = _key(
        0.0, "Probability", "Share of batches that are rolled out, unless scheduled_sampling_ramp_steps lets it rise.", ge=0, le=1
    )
    scheduled_sampling_prob_start: float = _key(0.0, "First probability", "Where a rising share begins.", ge=0, le=1)
    scheduled_sampling_prob_end: float = _key(0.5, "Last probability", "Where a rising share ends, and stays.", ge=0, le=1)
    scheduled_sampling_ramp_steps: int = _key(
        0, "Ramp", "Steps over which the share of batches that are rolled out rises; 0: scheduled_sampling_probability throughout.", ge=0
    )
    scheduled_sampling_start_step: int = _key(0, "First step", "The step at which rollouts, or their rise, begin.", ge=0)
    scheduled_sampling_ramp_shape: Literal["linear", "cosine"] = _key("linear", "Ramp shape", "How the share rises.")
    scheduled_sampling_sampler: Literal["euler", "unipc", "dpm"] = _key(
        "euler", "Sampler", "Rollouts go by Euler's method whatever is written here, as LTX-2 is sampled."
    )
    scheduled_sampling_order: int = _key(1, "Order", "The order of that sampler; Euler's is 1.", ge=1, le=3)
    scheduled_sampling_reflexflow: bool | None = _key(
        None,
        "ReflexFlow",
        "Use ReflexFlow's loss on rollouts: the direction back to the clip, and more weight where the rollout went wrong. Empty or false: "
        "learn the velocity that leads from the state reached to the clip.",
    )
    scheduled_sampling_reflexflow_alpha: float = _key(1.0, "ReflexFlow alpha", "The weight of where the rollout went wrong.", ge=0)
    scheduled_sampling_reflexflow_beta1: float = _key(10.0, "ReflexFlow beta 1", "The weight of the direction back to the clip.", ge=0)
    scheduled_sampling_reflexflow_beta2: float = _key(1.0, "ReflexFlow beta 2", "The weight of the plain loss.", ge=0)

    @property
    def rollout_forwards(self) -> float:
        """How many forwards a rollout takes on average."""
        most = self.scheduled_sampling_max_step_offset
        mean = {
            "uniform": (most + 1) / 2,
            "biased_early": (2 * most + 1) * (most + 1) / (6 * max(1, most)),  # the lower of two draws
            "biased_late": (4 * most - 1) * (most + 1) / (6 * max(1, most)),  # the higher
        }
        return mean[self.scheduled_sampling_strategy] + bool(self.scheduled_sampling_reflexflow)

    @property
    def rollout_probability(self) -> float:
        """The largest share of batches that are ever rolled out."""
        if not self.scheduled_sampling_ramp_steps:
            return self.scheduled_sampling_probability
        return max(self.scheduled_sampling_prob_start, self.scheduled_sampling_prob_end)
