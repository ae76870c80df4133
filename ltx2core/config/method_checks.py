"""Keys of losses, optimizers and adapters that have no effect beside others, or would do harm: what is changed, and what is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.config.lycoris import read_lycoris
from ltx2core.config.optimizers import rule_of
from ltx2core.config.wording import shown
from ltx2core.errors import ConfigError
from ltx2core.runs.events import Notice

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ltx2core.config.train import TrainConfig


_MOST_FOR_CAME = 3e-4  # nano's demo at 1e-3 ended three times worse than it began; at 1e-4 better than AdamW at 1e-3


def adjust_methods(config: TrainConfig, changes: dict[str, object], notices: list[Notice], *, file: str) -> None:
    """Add to `changes` and `notices`."""
    if config.loss_type == "l2" and (unread := changed(config, ("huber_schedule", "huber_c"))):
        text = f"{file} {', '.join(unread)}: no effect, since loss_type is l2."
        notices.append(Notice(code="no_effect", level="warning", text=text, fix='Set loss_type to "huber" or "smooth_l1".'))
    _rollouts(config, notices, file)
    _crepa(config, notices, file)
    if rule_of(config.optimizer) == "prodigy":
        _prodigy(config, changes, notices, file)
    if rule_of(config.optimizer) == "came" and config.learning_rate > _MOST_FOR_CAME:
        text = f"{file} learning_rate = {config.learning_rate:g}: CAME's updates are several times as long as AdamW's at the same rate."
        notices.append(Notice(code="came_rate", level="warning", text=text, fix="Use a tenth of AdamW's rate, 1e-4 at most at first."))
    if rule_of(config.optimizer) == "schedule-free":
        _schedule_free(config, notices, file)


def method_problems(config: TrainConfig, *, file: str) -> list[str]:
    """Keys that cannot go together, a line each."""
    problems: list[str] = []
    lokr = config.lora_type == "lycoris"
    if lokr and config.use_dora:
        problems.append(f'{file} use_dora = true and lora_type = "lycoris": an adapter is one of them; set use_dora to false.')
    if lokr and (others := [name for name in ("lora_rank_pattern", "lora_alpha_pattern", "use_rslora") if getattr(config, name)]):
        problems.append(f"{file} {', '.join(others)}: a LoKr has one rank and alpha, in lycoris_config; remove them.")
    if lokr and config.lora_dropout:
        problems.append(f"{file} lora_dropout = {config.lora_dropout:g}: a LoKr has none; use 0.")
    if (lokr or config.use_dora) and config.init_lora:
        problems.append(f"{file} init_lora: only a plain LoRA can start from a file; remove it, or train a plain one.")
    if lokr and config.lora_format == "diffusers":
        problems.append(f'{file} lora_format = "diffusers": diffusers reads no LoKr; use "comfyui".')
    if config.use_dora and rule_of(config.optimizer) == "muon":
        problems.append(f"{file} optimizer = {config.optimizer}: Muon updates matrices, and a DoRA has lengths as well; use adamw.")
    return problems


def lycoris_problems(path: Path | None, written: str, *, file: str) -> list[str]:
    """What is wrong with the file that lycoris_config names, a line each."""
    if path is None:
        return [f"{file} lycoris_config = {shown(written)}: there is no such file; name one that exists, or remove the key."]
    try:
        read_lycoris(path)
    except ConfigError as error:
        return list(error.problems)
    return []


def changed(config: TrainConfig, names: Iterable[str]) -> list[str]:
    """Those of the keys that are set, and to something else than what holds without them."""
    fields = type(config).model_fields
    return [name for name in names if getattr(config, name) and getattr(config, name) != fields[name].default]


def _rollouts(config: TrainConfig, notices: list[Notice], file: str) -> None:
    """What rollouts cost, before they are trained with; and which of their keys do nothing."""
    most, likely = config.scheduled_sampling_max_step_offset, config.rollout_probability
    if not most:
        return
    if not likely:
        text = f"{file} scheduled_sampling_max_step_offset = {most}: no effect, since scheduled_sampling_probability is 0."
        notices.append(Notice(code="no_effect", level="warning", text=text, fix="Set it, or scheduled_sampling_ramp_steps."))
        return
    names = [name for name in type(config).model_fields if name.startswith("scheduled_sampling_")]
    extra = config.rollout_forwards
    upto = " at the end of the ramp" if config.scheduled_sampling_ramp_steps else ""
    text = (
        f"{file} scheduled sampling: {likely:.0%} of batches{upto} take {extra:.2g} more forwards on average, {extra * likely:.2g} over "
        f"all. A step without takes as long as 3 of them, or 4 where blocks are computed twice, so expect {1 + extra * likely / 4:.2g} to "
        f"{1 + extra * likely / 3:.2g} times its time. `ltx2tui plan` says it for your card."
    )
    notices.append(Notice(code="rollout_cost", text=text))
    if config.scheduled_sampling_sampler != "euler" or config.scheduled_sampling_order != 1:
        text = f"{file} scheduled_sampling_sampler, scheduled_sampling_order: rollouts go by Euler's method, as LTX-2 is sampled."
        notices.append(Notice(code="sampler_changed", text=text))
    if config.mixflow_enabled:
        text = f"{file} mixflow_enabled and scheduled sampling: a batch that is rolled out gets no further noise from MixFlow."
        notices.append(Notice(code="mixflow_and_rollouts", text=text))
    unread = (
        ("scheduled_sampling_probability",)
        if config.scheduled_sampling_ramp_steps
        else tuple(n for n in names if "prob_" in n or "ramp_" in n)
    )
    if not config.scheduled_sampling_reflexflow:
        unread += tuple(name for name in names if "reflexflow_" in name)
    if idle := changed(config, unread):
        text = f"{file} {', '.join(idle)}: no effect beside the other keys of scheduled sampling."
        notices.append(Notice(code="no_effect", level="warning", text=text))


def _crepa(config: TrainConfig, notices: list[Notice], file: str) -> None:
    if not config.crepa_enabled:
        return
    of_encoder = ("crepa_encoder", "crepa_model", "crepa_encoder_image_size", "crepa_encoder_frames_batch_size")
    if idle := changed(config, of_encoder if config.crepa_from_backbone else ("crepa_teacher_block_index",)):
        source = "backbone" if config.crepa_from_backbone else "encoder"
        text = f"{file} {', '.join(idle)}: no effect, since CREPA's features come from the {source}."
        notices.append(Notice(code="no_effect", level="warning", text=text))


def _prodigy(config: TrainConfig, changes: dict[str, object], notices: list[Notice], file: str) -> None:
    if "learning_rate" not in config.model_fields_set:
        changes["learning_rate"] = 1.0
        text = f"{file} optimizer = prodigy: it finds the learning rate itself, and learning_rate, which multiplies it, is 1.0."
        notices.append(Notice(code="prodigy_rate", text=text))
    elif config.learning_rate < 0.1:
        text = f"{file} learning_rate = {config.learning_rate:g}: Prodigy finds the rate itself and would use so small a part of it."
        notices.append(Notice(code="prodigy_rate", level="warning", text=text, fix="Use 1.0."))
    own_rates = [name for name in ("audio_learning_rate", "learning_rate_pattern") if getattr(config, name) not in (None, {})]
    if own_rates:
        changes |= {"audio_learning_rate": None, "learning_rate_pattern": {}}
        text = f"{file} {', '.join(own_rates)}: no effect, since Prodigy has one rate for all layers."
        notices.append(Notice(code="no_effect", level="warning", text=text, fix="Use another optimizer, or remove them."))


def _schedule_free(config: TrainConfig, notices: list[Notice], file: str) -> None:
    if config.lr_scheduler not in ("constant", "constant_with_warmup"):
        text = (
            f"{file} lr_scheduler = {config.lr_scheduler}: {config.optimizer} averages instead of a schedule; the two together learn less."
        )
        notices.append(Notice(code="two_schedules", level="warning", text=text, fix="Use constant_with_warmup."))
    if config.use_ema:
        text = f"{file} use_ema: {config.optimizer} is an average itself, and the second file will be an average of where it trains."
        notices.append(Notice(code="two_averages", level="warning", text=text, fix="Leave use_ema out."))
