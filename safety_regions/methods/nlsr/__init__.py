"""LoRA adapters of a backbone: trained here or brought along, added to its layers, amplified, taken apart."""
