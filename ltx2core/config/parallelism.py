"""Keys of training on several devices: one process a GPU, each with the whole model, which average the adapter's gradients."""

from __future__ import annotations

from typing import ClassVar

from pydantic import JsonValue

from ltx2core.config.keys import Keys, Later, key, later

_PROCESSES = "num_processes trains on several GPUs of one machine"
FSDP = Later(
    name="sharding the weights (FSDP)",
    instead="they do not train, so each GPU has all of them, in 8 bits or from RAM that all share: set num_processes to the number of GPUs",
    switch="fsdp_enable",
)
CONTEXT_PARALLEL = Later(name="context parallelism", instead=f"each GPU computes whole clips; {_PROCESSES}", switch="context_parallel_size")
SEVERAL_MACHINES = Later(name="training on several machines", instead=f"training runs on this one; {_PROCESSES}")
DEEPSPEED = Later(name="DeepSpeed", instead=f"its settings are not used; {_PROCESSES}")


class ParallelismKeys(Keys):
    """Several devices."""

    group: ClassVar[str] = "Several GPUs"

    num_processes: int = key(
        1,
        "Processes",
        "How many processes train together, each on a GPU of its own. An update learns from num_processes x train_batch_size x "
        "gradient_accumulation_steps clips. Weights that wait in RAM are there once for all.",
        ge=1,
        le=64,
    )
    num_machines: int = later(1, SEVERAL_MACHINES, "Machines", "How many machines train together.", ge=1)
    deepspeed_config: JsonValue = later(None, DEEPSPEED, "DeepSpeed", "Settings of DeepSpeed.")
    fsdp_enable: bool = later(False, FSDP, "FSDP", "Spread the weights over several GPUs.")
    fsdp_version: int = later(2, FSDP, "FSDP version", "1 or 2.")
    fsdp_reshard_after_forward: bool = later(True, FSDP, "Reshard", "Free gathered weights after each block.")
    fsdp_state_dict_type: str = later("SHARDED_STATE_DICT", FSDP, "Checkpoint form", "Whether checkpoints are in one piece.")
    fsdp_cpu_ram_efficient_loading: bool = later(False, FSDP, "Load once", "Read weights in one process only.")
    fsdp_limit_all_gathers: bool = later(True, FSDP, "Limit gathers", "Gather few blocks at a time.")
    fsdp_cpu_offload: bool = later(False, FSDP, "Offload shards", "Keep shards in RAM.")
    fsdp_activation_checkpointing: bool = later(False, FSDP, "FSDP checkpointing", "Let FSDP recompute blocks.")
    fsdp_auto_wrap_policy: str = later("TRANSFORMER_BASED_WRAP", FSDP, "Wrap policy", "How layers are grouped.")
    fsdp_transformer_layer_cls_to_wrap: str | None = later(None, FSDP, "Wrapped layer", "The class of a group.")
    context_parallel_size: int = later(1, CONTEXT_PARALLEL, "Context parallel", "How many GPUs share one clip.", ge=1)
    context_parallel_comm_strategy: str = later("allgather", CONTEXT_PARALLEL, "Exchange", "How those GPUs exchange tokens.")
