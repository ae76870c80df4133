"""Keys of scheduled sampling: training on states that the model itself reached."""

from __future__ import annotations

from typing import ClassVar

from ltx2core.config.keys import Keys, Later, later

ROLLOUT = Later(
    name="scheduled sampling", instead="every step starts from a clean clip plus noise", switch="scheduled_sampling_max_step_offset"
)


class RolloutKeys(Keys):
    """Training on the model's own states."""

    group: ClassVar[str] = "Scheduled sampling"

    scheduled_sampling_max_step_offset: int = later(
        0, ROLLOUT, "Longest rollout", "How many steps the model runs by itself; 0 is off.", ge=0
    )
    scheduled_sampling_strategy: str = later("uniform", ROLLOUT, "Strategy", "How the length of a rollout is drawn.")
    scheduled_sampling_probability: float = later(0.0, ROLLOUT, "Probability", "How often a rollout is done.", ge=0, le=1)
    scheduled_sampling_prob_start: float = later(0.0, ROLLOUT, "First probability", "How often at the start.", ge=0, le=1)
    scheduled_sampling_prob_end: float = later(0.5, ROLLOUT, "Last probability", "How often at the end.", ge=0, le=1)
    scheduled_sampling_ramp_steps: int = later(0, ROLLOUT, "Ramp", "Steps from the first to the last probability.", ge=0)
    scheduled_sampling_start_step: int = later(0, ROLLOUT, "First step", "The step at which rollouts begin.", ge=0)
    scheduled_sampling_ramp_shape: str = later("linear", ROLLOUT, "Ramp shape", "linear or cosine.")
    scheduled_sampling_sampler: str = later("unipc", ROLLOUT, "Sampler", "The sampler that rolls out.")
    scheduled_sampling_order: int = later(2, ROLLOUT, "Order", "The order of that sampler.")
    scheduled_sampling_reflexflow: bool | None = later(None, ROLLOUT, "ReflexFlow", "Weigh errors by the drift of the rollout.")
    scheduled_sampling_reflexflow_alpha: float = later(1.0, ROLLOUT, "ReflexFlow alpha", "The strength of that weighing.")
    scheduled_sampling_reflexflow_beta1: float = later(10.0, ROLLOUT, "ReflexFlow beta 1", "The weight of its direction loss.")
    scheduled_sampling_reflexflow_beta2: float = later(1.0, ROLLOUT, "ReflexFlow beta 2", "The weight of the plain loss.")
