"""Train model organisms (tiny chat models, first helpful on everything, then aligned) and LoRA adapters."""
