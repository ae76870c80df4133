"""Keys that say which model is trained, from which files, in which precision."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import JsonValue

from ltx2core.config.keys import Keys, Later, key, later

FULL_TRAINING = Later(name="training all weights", instead="a LoRA is trained")
QUANTISATION = Later(
    name="choosing how a library rounds", instead="weights are rounded in one way of our own, as base_model_precision says"
)
FURTHER_ENCODERS = Later(name="a further text encoder", instead="LTX-2 has one")
INT8 = ("int8-torchao", "int8-quanto", "int8-sdnq")  # SimpleTuner's names of libraries; one way of our own stands for all of them
Precision = Literal[
    "no_change",
    "bf16",
    "int8",
    "int8-quanto",
    "int8-torchao",
    "int8-sdnq",
    "int8dq-torchao",
    "fp8",
    "fp8-quanto",
    "fp8-sdnq",
    "fp8wo-torchao",
    "fp8-torchao",
    "fp8-native",
    "fp8-transformerengine",
    "nf4",
    "nf4-bnb",
]
EIGHT_BIT_PRODUCTS = ("int8dq-torchao", "fp8-torchao", "fp8-native", "fp8-transformerengine")
TEXT_QUANTISATION = Later(name="a text encoder in fewer bits other than int8", instead="it keeps the precision of its file")
OTHER_PARTS = Later(name="taking parts of the model from elsewhere", instead="every part comes from the checkpoint itself")
VARIANT = Later(name="choosing a variant of a hub repository's files", instead="those without one in their name are used")
DTYPES = Later(name="choosing the number format of single parts", instead="mixed_precision decides for all of them")
COMPILING = Later(
    name="choosing a compiler",
    instead="compile_blocks compiles the blocks for training, in which query, key and value are one product; samples run uncompiled",
)
ATTENTION = Later(name="choosing the attention kernel", instead="the fastest of PyTorch's is measured for each shape of batch, and used")
TOKENIZER_LENGTH = Later(name="another caption length", instead="the text encoder's own length is used")


class ModelKeys(Keys):
    """Which model is trained."""

    group: ClassVar[str] = "Model"

    model_family: Literal["ltxvideo2"] = key("ltxvideo2", "Model family", "The kind of model. This program trains LTX-2 only.")
    model_flavour: Literal["2.0", "dev", "dev-fp4", "dev-fp8", "2.3-dev", "2.3-distilled", "2.5-dev", "2.5-distilled"] = key(
        "2.0", "Flavour", "The version of LTX-2. The checkpoint file says itself what it is; this only names it for you."
    )
    model_type: Literal["lora", "full"] = later("lora", FULL_TRAINING, "What is trained", "A LoRA: a small file that changes the model.")
    pretrained_model_name_or_path: str = key(
        "Lightricks/LTX-2",
        "Model",
        "The model to train on: a combined .safetensors file, a folder that holds one, LTX-2.5's pack of files or a model of diffusers, a "
        "hub name, which is downloaded once, or nano for the small model that comes with the program.",
        min_length=1,
    )
    ltx2_checkpoint_filename: str | None = key(
        None,
        "Checkpoint file",
        "The file to take from a folder or a hub repository, when it is not ltx-2-19b-dev.safetensors.",
        aliases=("ltx2_combined_filename",),
    )
    pretrained_gemma_model_name_or_path: str | None = key(
        None,
        "Text encoder",
        "The Gemma text encoder: its folder, LTX-2.5's single file, or a hub name such as google/gemma-3-12b-it, which is downloaded once. "
        "Empty: the one beside the model, or of the model's own hub repository.",
    )
    pretrained_vae_model_name_or_path: str | None = later(None, OTHER_PARTS, "Video VAE", "Another video autoencoder.")
    pretrained_audio_vae_model_name_or_path: str | None = later(None, OTHER_PARTS, "Audio VAE", "Another audio autoencoder.")
    revision: str | None = key(None, "Revision", "The branch, tag or commit of the hub repository that the model is. Empty: main.")
    variant: str | None = later(None, VARIANT, "Variant", "The variant of a hub repository's files, such as fp16.")
    mixed_precision: Literal["bf16", "no", "fp16", "fp8"] = key(
        "bf16",
        "Precision",
        "The number format the model computes in: bf16, or no for full float32 (twice the memory). The LoRA itself is always float32.",
    )
    base_model_precision: Precision = key(
        "no_change",
        "Base precision",
        "How the frozen weights of the blocks are held. int8-...: 8 bits by rows (groups of 128 where a row loses too much), half the "
        "memory; fp8-...: 8-bit floats, for cards that multiply them. The library in a name of SimpleTuner's makes no difference, but "
        "int8dq-torchao, fp8-torchao, fp8-native and fp8-transformerengine also multiply in 8 bits. nf4-bnb: 4 bits in the format of "
        "bitsandbytes, which is not needed: over a quarter of the memory, for cards of 8 to 10 GB. Other kinds of 4 bits are refused.",
    )
    keep_rounded_weights: bool = key(
        True,
        "Keep rounded weights",
        "With a base_model_precision of 8 bits or fewer, keep the rounded weights in a file beside the checkpoint, half its size or less, "
        "or below cache/ where its folder cannot be written: the next run reads that file, which is faster, instead of rounding again.",
    )
    fp8_gradients: bool = key(
        False,
        "Gradients in fp8",
        "Where products run in fp8, compute the gradient between layers in fp8 too: faster, a little noisier. The LoRA's own is bf16.",
    )
    step_engine: Literal["auto", "fast", "reference"] = key(
        "auto",
        "Step engine",
        "fast: blocks compiled, steps captured as CUDA graphs, weights resident or streamed. reference: diffusers and PEFT as they are, "
        "several times slower. auto: fast on a GPU.",
    )
    compile_blocks: bool = key(True, "Compile blocks", "Compile the blocks for the GPU: the first step takes about half a minute longer.")
    text_encoder_1_precision: str = later(
        "no_change",
        TEXT_QUANTISATION,
        "Text encoder precision",
        "int8-torchao, int8-quanto or int8-sdnq hold the text encoder in 8 bits: half the memory, captions that differ a little.",
        built=INT8,
    )
    text_encoder_2_precision: str = later(
        "no_change", FURTHER_ENCODERS, "Second text encoder", "LTX-2 has one text encoder; read, never used."
    )
    text_encoder_3_precision: str = later(
        "no_change", FURTHER_ENCODERS, "Third text encoder", "LTX-2 has one text encoder; read, never used."
    )
    text_encoder_4_precision: str = later(
        "no_change", FURTHER_ENCODERS, "Fourth text encoder", "LTX-2 has one text encoder; read, never used."
    )
    quantize_via: str = later("accelerator", QUANTISATION, "Quantise on", "Where weights are quantised: cpu or accelerator.")
    quantization_config: JsonValue = later(None, QUANTISATION, "Quantisation details", "Settings of the quantisation library, as JSON.")
    quantize_activations: bool = key(
        False, "Multiply in 8 bits", "With 8-bit weights, round what they are multiplied with to 8 bits too: faster products."
    )
    sdnq_group_size: int = later(0, QUANTISATION, "SDNQ group size", "How many weights share a scale.")
    sdnq_use_hadamard: bool = later(False, QUANTISATION, "SDNQ Hadamard", "Rotate weights before they are quantised.")
    sdnq_hadamard_group_size: int = later(0, QUANTISATION, "SDNQ Hadamard size", "The width of that rotation.")
    sdnq_use_quantized_matmul: bool = key(False, "SDNQ matrix product", "The same as quantize_activations.")
    sdnq_compile_mode: str = later("", QUANTISATION, "SDNQ compile mode", "How SDNQ compiles its kernels.")
    base_model_default_dtype: str = later("bf16", DTYPES, "Frozen weights' format", "The number format of the frozen weights.")
    vae_dtype: str = later("bf16", DTYPES, "VAE format", "The number format of the autoencoders.", built=("default",))
    gradient_precision: str = later("unmodified", DTYPES, "Gradient format", "The number format in which gradients are added up.")
    tokenizer_max_length: int = later(1024, TOKENIZER_LENGTH, "Caption length", "The longest caption, in tokens.")
    attention_mechanism: str = later("diffusers", ATTENTION, "Attention kernel", "The program that computes attention.", built=("sdpa",))
    dynamo_backend: str = later("no", COMPILING, "Compiler", "The backend of torch.compile.", built=("",))
    validation_torch_compile: bool = later(False, COMPILING, "Compile for samples", "Compile the model before sampling.")
    fuse_qkv_projections: bool = later(False, COMPILING, "Fused projections", "Compute query, key and value in one product.")
