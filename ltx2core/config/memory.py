"""Keys that trade time for memory."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import JsonValue

from ltx2core.config.keys import Keys, Later, key, later

GROUP_OFFLOAD = Later(
    name="other places for blocks", instead="blocks that do not stay on the GPU lie in RAM", switch="enable_group_offload"
)
LEAF_LEVEL = Later(name="offload by single layers", instead="whole blocks travel", switch="enable_group_offload")
BLOCK_SWAP = Later(name="swapping to another place", instead="blocks wait in RAM", switch="musubi_blocks_to_swap")
RAMTORCH = Later(name="RamTorch for single layers, or other parts", instead="ramtorch lets whole blocks of the transformer wait in RAM")
CHECKPOINTING_MODES = Later(name="other ways of gradient checkpointing", instead="as many blocks are computed twice as memory asks for")
MODEL_PLACEMENT = Later(name="choosing when models are kept or freed", instead="each phase loads what it needs and frees it at its end")
CACHE_LATER = Later(
    name="encoding while training", instead="latents and captions are encoded before training, so that no encoder lies on the GPU beside it"
)
COMPRESSION = Later(
    name="compressed cache files",
    instead="entries stay as they are: latents and embeddings in bf16 hardly shrink, and each step would unpack them",
)


class MemoryKeys(Keys):
    """How memory is saved."""

    group: ClassVar[str] = "Memory"

    gradient_checkpointing: bool = key(
        True,
        "Gradient checkpointing",
        "Compute blocks twice instead of keeping what they computed, as many as memory asks for. false: keep all of every block that "
        "lies on the card.",
    )
    recompute_all_blocks: bool = key(
        False, "Recompute all", "Compute every block twice even where memory would do without: the least memory, a third slower."
    )
    gpu_memory_limit_gib: float | None = key(
        None,
        "GPU memory limit",
        "GiB of GPU memory that training may take, all of it counted: the plan keeps within it as on a smaller card, and what goes beyond "
        "is an error. Empty: all that is free.",
        ge=2,
        le=1024,
    )
    vae_enable_tiling: bool = key(
        False,
        "VAE tiling",
        "Encode and decode pictures above 512 pixels in overlapping tiles: less memory, values that differ a little where tiles meet.",
    )
    vae_enable_slicing: bool = key(False, "VAE slicing", "Of a batch (vae_batch_size), encode and decode one clip at a time.")
    vae_enable_patch_conv: bool = key(
        False,
        "Patch convolution",
        "Compute each layer of the VAE a few frames and rows at a time: far less memory, the values of the whole.",
    )
    vae_enable_temporal_roll: bool = key(
        False,
        "Temporal roll",
        "Run the whole VAE a few frames at a time: the least memory, whatever the clip's length, and the values of the whole.",
    )
    enable_group_offload: bool = key(
        False,
        "Group offload",
        "Keep every block in RAM and bring it to the GPU when it is needed. Without this as many travel as do not fit.",
    )
    group_offload_type: Literal["block_level", "leaf_level"] = later(
        "block_level", LEAF_LEVEL, "Offload unit", "Whether blocks or single layers travel."
    )
    group_offload_blocks_per_group: int = key(
        1,
        "Blocks a group",
        "Blocks on the GPU at a time with enable_group_offload; twice as many where copies overlap.",
        switch="enable_group_offload",
        ge=1,
        le=24,
    )
    group_offload_use_stream: bool = key(
        False, "Overlap copies", "Copy the next blocks while these compute: twice the room, far faster.", switch="enable_group_offload"
    )
    group_offload_to_disk_path: str | None = key(
        None,
        "Offload to disk",
        "A folder on a fast disk where blocks that do not stay on the GPU wait, instead of in RAM: up to 38 GB, written once and used by "
        "later runs. Slower; for machines whose RAM does not hold them.",
    )
    group_offload_text_encoder: bool = key(
        False, "Offload text encoder", "With enable_group_offload, the same as ramtorch_text_encoder.", switch="enable_group_offload"
    )
    group_offload_vae: bool = later(False, GROUP_OFFLOAD, "Offload VAE", "Offload the VAE too.")
    musubi_blocks_to_swap: int = key(
        0,
        "Blocks to swap",
        "How many of the 48 blocks are kept in RAM and brought to the GPU when needed. 0: as many as do not fit.",
        ge=0,
        le=48,
    )
    musubi_block_swap_device: str = later("cpu", BLOCK_SWAP, "Swap to", "Where swapped blocks are kept.")
    ramtorch: bool = key(False, "RamTorch", "Keep blocks in RAM, ramtorch_transformer_percent of them, and bring them when needed.")
    ramtorch_target_modules: JsonValue = later(None, RAMTORCH, "RamTorch layers", "Which layers are kept in RAM.")
    ramtorch_transformer_percent: int = key(
        100, "RamTorch share", "How many of the blocks are kept in RAM with ramtorch.", switch="ramtorch", ge=1, le=100
    )
    ramtorch_text_encoder: bool = key(
        False,
        "Stream the text encoder",
        "Keep the text encoder in RAM and bring it to the GPU layer by layer: less than 4 GiB there. Where it does not fit as a whole this "
        "happens by itself.",
    )
    ramtorch_text_encoder_percent: int = later(100, RAMTORCH, "RamTorch text share", "How much of the text encoder is kept in RAM.")
    ramtorch_vae: bool = later(False, RAMTORCH, "RamTorch VAE", "Keep the VAE in RAM.")
    ramtorch_disable_sync_hooks: bool = later(False, RAMTORCH, "RamTorch without waits", "Do not wait after each copy.")
    ramtorch_disable_extensions: bool = later(True, RAMTORCH, "RamTorch plain", "Do not copy ahead of time.", built=(False,))
    offload_during_startup: bool = key(
        False, "Offload at start-up", "Never have the VAE and the text encoder on the GPU together. Here that is always so."
    )
    enable_model_cpu_offload: bool = later(False, MODEL_PLACEMENT, "Model offload", "Move whole models to RAM while they rest.")
    offload_during_save: bool = later(False, MODEL_PLACEMENT, "Offload while saving", "Move weights to RAM while a checkpoint is written.")
    delete_model_after_load: bool = later(False, MODEL_PLACEMENT, "Delete after loading", "Delete downloaded files once they are loaded.")
    keep_vae_loaded: bool = later(False, MODEL_PLACEMENT, "Keep the VAE", "Do not free the VAE between phases.")
    accelerator_cache_clear_interval: int | None = later(None, MODEL_PLACEMENT, "Empty the cache", "Steps between emptying GPU caches.")
    gradient_checkpointing_interval: int | None = later(
        None, CHECKPOINTING_MODES, "Blocks a segment", "How many blocks are recomputed together.", built=(0, 1)
    )
    gradient_checkpointing_segment_stride: int | None = later(None, CHECKPOINTING_MODES, "Segment stride", "Recompute only some segments.")
    gradient_checkpointing_backend: Literal["torch", "torch-ffn", "unsloth", "unsloth-ffn"] = later(
        "torch",
        CHECKPOINTING_MODES,
        "Checkpointing kind",
        "unsloth: what a block needs to be computed again waits in RAM instead of on the GPU.",
        built=("unsloth",),
    )
    gradient_checkpointing_offload_attention: bool = later(
        False, CHECKPOINTING_MODES, "Offload attention", "Keep attention results in RAM instead of recomputing them."
    )
    vae_batch_size: int = key(
        1, "VAE batch", "Clips of one bucket that the VAE encodes together: faster for small ones, memory for each.", ge=1
    )
    text_encoder_batch_size: int = key(
        1, "Caption batch", "Captions that are encoded together; one by one where the text encoder is streamed.", ge=1
    )
    vae_cache_ondemand: bool = later(False, CACHE_LATER, "Encode on demand", "Encode a clip when it is first needed.")
    vae_cache_disable: bool = later(False, CACHE_LATER, "No latent cache", "Encode clips anew each time.")
    text_cache_ondemand: bool = later(False, CACHE_LATER, "Captions on demand", "Encode a caption when it is first needed.")
    text_cache_disable: bool = later(False, CACHE_LATER, "No caption cache", "Encode captions anew each time.")
    compress_disk_cache: bool = later(False, COMPRESSION, "Compress the cache", "Compress cache files.")
