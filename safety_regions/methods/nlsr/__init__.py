"""NLSR: scores for the weights of a LoRA adapter, trained here or supplied by the user."""
