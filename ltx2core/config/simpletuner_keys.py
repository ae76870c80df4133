"""SimpleTuner's side of settings: the names that its parser takes, its own defaults where they differ, and its names for our values.

Facts about its public options, gathered by running its parser; nothing of its code is used.
"""

from __future__ import annotations

from typing import Final

# Names of config.json, as release 4.10.1 registers them. Ours that are not among them would make its parser stop; `frame_rate`,
# `audio_loss_weight` and `ltx2_checkpoint_filename` are such, though its documentation has them.
_KEYS = """
    model_family model_flavour model_type pretrained_model_name_or_path pretrained_gemma_model_name_or_path
    pretrained_vae_model_name_or_path revision variant base_model_precision text_encoder_1_precision text_encoder_2_precision
    text_encoder_3_precision text_encoder_4_precision quantize_via quantization_config quantize_activations sdnq_group_size
    sdnq_use_hadamard sdnq_hadamard_group_size sdnq_use_quantized_matmul sdnq_compile_mode mixed_precision base_model_default_dtype
    vae_dtype framerate tokenizer_max_length aspect_bucket_alignment aspect_bucket_rounding attention_mechanism dynamo_backend
    fuse_qkv_projections gradient_precision
    output_dir seed train_batch_size gradient_accumulation_steps num_train_epochs max_train_steps learning_rate optimizer lr_scheduler
    lr_warmup_steps lr_end lr_num_cycles lr_power adam_beta1 adam_beta2 adam_weight_decay adam_epsilon max_grad_norm grad_clip_method
    lora_type lycoris_config lora_rank lora_alpha lora_dropout lora_init_type use_dora peft_lora_mode peft_lora_target_modules init_lora
    assistant_lora_path assistant_lora_strength lora_format gradient_checkpointing gradient_checkpointing_interval
    gradient_checkpointing_segment_stride gradient_checkpointing_backend gradient_checkpointing_offload_attention use_ema ema_device
    ema_decay ema_update_interval ema_validation loss_type huber_schedule huber_c snr_gamma caption_dropout_probability
    input_perturbation input_perturbation_steps masked_loss_probability checkpoint_step_interval checkpoint_epoch_interval
    checkpoints_total_limit checkpointing_rolling_steps checkpoints_rolling_total_limit checkpointing_use_tempdir
    resume_from_checkpoint disk_low_threshold disk_low_action disk_low_script report_to tracker_project_name tracker_run_name
    push_to_hub push_checkpoints_to_hub hub_model_id publishing_config model_card_private post_checkpoint_script post_upload_script
    webhook_config dataloader_prefetch dataloader_prefetch_qlen disable_tf32
    data_backend_config resolution resolution_type minimum_image_size maximum_image_size target_downsample_size caption_strategy
    instance_prompt skip_file_discovery
    flow_schedule_shift flow_schedule_auto_shift flow_sigmoid_scale flow_use_uniform_schedule flow_use_beta_schedule
    flow_beta_schedule_alpha flow_beta_schedule_beta flow_cubic_schedule_weights flow_custom_timesteps flow_timesteps_mode
    flux_fast_schedule mixflow_enabled mixflow_gamma
    ltx2_intrinsic_conditioning ltx2_first_frame_conditioning_probability ltx2_prefix_conditioning_probability
    ltx2_suffix_conditioning_probability ltx2_mask_conditioning_probability ltx2_prefix_conditioning_frames
    ltx2_suffix_conditioning_frames ltx2_reference_spatial_scale_factor ltx2_reference_temporal_scale_factor
    ltx2_validation_pipeline_mode ltx2_validation_spatial_upsampler_model ltx2_validation_spatial_upsampler_filename
    ltx2_validation_audio_guidance validation_audio_only validation_ltx2_video_conditioning
    musubi_blocks_to_swap musubi_block_swap_device ramtorch ramtorch_target_modules
    ramtorch_transformer_percent ramtorch_text_encoder ramtorch_text_encoder_percent ramtorch_vae ramtorch_disable_sync_hooks
    ramtorch_disable_extensions offload_during_startup offload_during_save delete_model_after_load
    keep_vae_loaded accelerator_cache_clear_interval vae_enable_tiling vae_enable_slicing vae_enable_patch_conv
    vae_enable_temporal_roll vae_batch_size vae_cache_ondemand vae_cache_disable text_cache_ondemand text_cache_disable
    compress_disk_cache text_encoder_batch_size
    validation_step_interval validation_epoch_interval validation_on_startup validation_disable validation_prompt
    validation_prompt_library user_prompt_library validation_negative_prompt validation_num_inference_steps validation_guidance
    validation_guidance_rescale validation_resolution validation_num_video_frames validation_seed validation_seed_source
    num_validation_images validation_using_datasets eval_dataset_id num_eval_images eval_steps_interval eval_timesteps evaluation_type
    validation_preview disable_benchmark validation_multigpu validation_adapter_path validation_adapter_name
    validation_adapter_strength validation_adapter_mode validation_adapter_config validation_method validation_lycoris_strength
    validation_disable_unconditional
    crepa_enabled crepa_block_index crepa_lambda crepa_adjacent_distance crepa_adjacent_tau crepa_encoder crepa_encoder_image_size
    crepa_encoder_frames_batch_size crepa_normalize_by_frames crepa_normalize_neighbour_sum crepa_spatial_align crepa_use_tae
    crepa_drop_vae_encoder crepa_use_backbone_features crepa_feature_source crepa_self_flow crepa_self_flow_mask_ratio
    crepa_teacher_block_index crepa_scheduler crepa_warmup_steps crepa_decay_steps crepa_lambda_end crepa_power crepa_cutoff_step
    crepa_similarity_threshold crepa_similarity_ema_decay crepa_threshold_mode
    scheduled_sampling_max_step_offset scheduled_sampling_strategy scheduled_sampling_probability scheduled_sampling_prob_start
    scheduled_sampling_prob_end scheduled_sampling_ramp_steps scheduled_sampling_start_step scheduled_sampling_ramp_shape
    scheduled_sampling_sampler scheduled_sampling_order scheduled_sampling_reflexflow scheduled_sampling_reflexflow_alpha
    scheduled_sampling_reflexflow_beta1 scheduled_sampling_reflexflow_beta2 tread_config
    fsdp_enable fsdp_version fsdp_reshard_after_forward fsdp_state_dict_type fsdp_cpu_ram_efficient_loading fsdp_limit_all_gathers
    fsdp_cpu_offload fsdp_activation_checkpointing fsdp_auto_wrap_policy fsdp_transformer_layer_cls_to_wrap context_parallel_size
    context_parallel_comm_strategy num_processes num_machines deepspeed_config
"""
KEYS: Final = frozenset(_KEYS.split())

# Names of an entry of multidatabackend.json; `video.` and `audio.` are groups of it.
_DATASET_KEYS = """
    id type dataset_type disabled instance_data_dir cache_dir cache_dir_vae caption_strategy instance_prompt prepend_instance_prompt
    only_instance_prompt disable_multiline_split caption_shuffle caption_filter_list parquet resolution resolution_type
    minimum_image_size maximum_image_size target_downsample_size minimum_aspect_ratio maximum_aspect_ratio crop crop_style crop_aspect
    crop_aspect_buckets max_upscale_threshold repeats max_num_samples probability start_epoch end_epoch start_step end_step
    train_batch_size timestep_sampling_offset is_regularisation_data conditioning_data conditioning conditioning_type s2v_datasets
    slider_strength text_embeds image_embeds vae_cache_clear_each_epoch hash_filenames preserve_data_backend_cache
    skip_file_discovery metadata_backend delete_unwanted_images delete_problematic_images write_batch_size default
    video.num_frames video.min_frames video.max_frames video.bucket_strategy video.frame_interval video.is_i2v video.frame_rate
    audio.auto_split audio.sample_rate audio.channels audio.source_from_video audio.allow_zero_audio audio.audio_only
    audio.bucket_strategy audio.duration_interval audio.max_duration_seconds audio.truncation_mode
"""
DATASET_KEYS: Final = frozenset(_DATASET_KEYS.split())

# What it does where a file leaves a key out, as far as that differs from what is done here.
DEFAULTS: Final[dict[str, object]] = {
    "model_type": "full",
    "train_batch_size": 4,
    "learning_rate": 4e-7,
    "lora_rank": 16,
    "lora_dropout": 0.1,
    "caption_dropout_probability": 0.1,
    "max_grad_norm": 2.0,
    "flow_schedule_shift": 3.0,
    "resume_from_checkpoint": "latest",
    "validation_guidance": 7.5,
    "validation_resolution": "256",
}

# Its names for values of ours. A key that is not here has the same values.
VALUES: Final[dict[str, dict[object, object]]] = {
    "model_flavour": {"2.0": "dev"},
    "base_model_precision": {"int8": "int8-torchao", "fp8": "fp8-torchao", "nf4": "nf4-bnb", "bf16": "no_change"},
    "optimizer": {"adamw": "adamw_bf16", "adamw_8bit": "bnb-adamw8bit", "adamw8bit": "bnb-adamw8bit"},
}

# Lists and groups that its command line takes as JSON in a text.
AS_TEXT: Final = frozenset(
    {"peft_lora_target_modules", "ltx2_intrinsic_conditioning", "flow_cubic_schedule_weights", "flow_custom_timesteps"}
)

# Written even where they are left to their default here, since its own default is another.
ALWAYS: Final[dict[str, object]] = {"model_type": "lora", "grad_clip_method": "norm", "resume_from_checkpoint": ""}
