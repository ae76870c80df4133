"""LoRA files: reading every layout that LTX-2 LoRAs are passed around in, writing, converting and checking them."""
